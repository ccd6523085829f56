"""The counts of `certify` at each radius, from its records."""

from __future__ import annotations

from collections.abc import Sequence

from verifier.metrics import RobustnessAt, robustness_at
from verifier.runs.records import Record, bracket_of


def certified(records: Sequence[Record], epsilons: Sequence[float]) -> tuple[RobustnessAt, ...]:
    """Return what is known at each radius about the inputs that the records are of."""
    correct = [record for record in records if record["correct"]]
    brackets = [bracket_of(record) for record in correct]
    executed = [record.get("execution_only") for record in correct]
    return tuple(robustness_at(epsilon, brackets, len(records), executed) for epsilon in epsilons)
