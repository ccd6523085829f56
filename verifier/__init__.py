"""Prove, measure and improve the robustness of neural networks."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from verifier.commands.attack import AttackResult, attack
    from verifier.commands.certify import CertifyResult, certify
    from verifier.commands.check import CheckResult, check
    from verifier.commands.compare import CompareResult, compare
    from verifier.commands.detect import DetectResult, detect
    from verifier.commands.export import ExportResult, export
    from verifier.commands.merge import MergeResult, merge
    from verifier.commands.report import ReportResult, report
    from verifier.commands.robustness import RobustnessResult, robustness
    from verifier.commands.show import ShowResult, show
    from verifier.commands.train import TrainResult, train
    from verifier.commands.verify import verify
    from verifier.commands.verify_result import VerifyResult

_HOMES = {
    "AttackResult": "verifier.commands.attack",
    "CertifyResult": "verifier.commands.certify",
    "CheckResult": "verifier.commands.check",
    "CompareResult": "verifier.commands.compare",
    "DetectResult": "verifier.commands.detect",
    "ExportResult": "verifier.commands.export",
    "ReportResult": "verifier.commands.report",
    "MergeResult": "verifier.commands.merge",
    "RobustnessResult": "verifier.commands.robustness",
    "ShowResult": "verifier.commands.show",
    "TrainResult": "verifier.commands.train",
    "VerifyResult": "verifier.commands.verify_result",
    "attack": "verifier.commands.attack",
    "certify": "verifier.commands.certify",
    "check": "verifier.commands.check",
    "compare": "verifier.commands.compare",
    "detect": "verifier.commands.detect",
    "export": "verifier.commands.export",
    "report": "verifier.commands.report",
    "merge": "verifier.commands.merge",
    "robustness": "verifier.commands.robustness",
    "show": "verifier.commands.show",
    "train": "verifier.commands.train",
    "verify": "verifier.commands.verify",
}

__all__ = [
    "AttackResult",
    "CertifyResult",
    "CheckResult",
    "CompareResult",
    "DetectResult",
    "ExportResult",
    "MergeResult",
    "ReportResult",
    "RobustnessResult",
    "ShowResult",
    "TrainResult",
    "VerifyResult",
    "attack",
    "certify",
    "check",
    "compare",
    "detect",
    "export",
    "merge",
    "report",
    "robustness",
    "show",
    "train",
    "verify",
]


def __getattr__(name: str) -> Any:
    """Import on first use (PEP 562), so that `verifier --help` does not load torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'verifier' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
