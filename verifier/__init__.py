"""Prove, measure and improve the robustness of neural networks."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from verifier.attacking import AttackResult, attack
    from verifier.certification import CertifyResult, certify
    from verifier.training.train import TrainResult, train

_HOMES = {
    "AttackResult": "verifier.attacking",
    "CertifyResult": "verifier.certification",
    "TrainResult": "verifier.training.train",
    "attack": "verifier.attacking",
    "certify": "verifier.certification",
    "train": "verifier.training.train",
}

__all__ = ["AttackResult", "CertifyResult", "TrainResult", "attack", "certify", "train"]


def __getattr__(name: str) -> Any:
    """Import on first use (PEP 562), so that `verifier --help` does not load torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'verifier' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
