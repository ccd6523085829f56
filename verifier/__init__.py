"""Prove, measure and improve the robustness of neural networks."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from verifier.attacking import AttackResult, attack
    from verifier.certification import CertifyResult, certify
    from verifier.checking import CheckResult, check
    from verifier.comparing import CompareResult, compare
    from verifier.measuring import RobustnessResult, robustness
    from verifier.training.train import TrainResult, train

_HOMES = {
    "AttackResult": "verifier.attacking",
    "CertifyResult": "verifier.certification",
    "CheckResult": "verifier.checking",
    "CompareResult": "verifier.comparing",
    "RobustnessResult": "verifier.measuring",
    "TrainResult": "verifier.training.train",
    "attack": "verifier.attacking",
    "certify": "verifier.certification",
    "check": "verifier.checking",
    "compare": "verifier.comparing",
    "robustness": "verifier.measuring",
    "train": "verifier.training.train",
}

__all__ = [
    "AttackResult",
    "CertifyResult",
    "CheckResult",
    "CompareResult",
    "RobustnessResult",
    "TrainResult",
    "attack",
    "certify",
    "check",
    "compare",
    "robustness",
    "train",
]


def __getattr__(name: str) -> Any:
    """Import on first use (PEP 562), so that `verifier --help` does not load torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'verifier' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
