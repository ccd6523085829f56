"""The counts of `certify` at each radius, from its records."""

from __future__ import annotations

from collections.abc import Sequence

from verifier.metrics import RobustnessAt, robustness_at
from verifier.runs.certify_record import CertifyRecord


def certified(records: Sequence[CertifyRecord], epsilons: Sequence[float]) -> tuple[RobustnessAt, ...]:
    """Return what is known at each radius about the inputs that the records are of."""
    answers = [record.answer for record in records if record.correct]
    brackets, executed = [answer.bracket for answer in answers], [answer.execution_only for answer in answers]
    return tuple(robustness_at(epsilon, brackets, len(records), executed) for epsilon in epsilons)
