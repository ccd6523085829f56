"""The counts of `attack`, from its records."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from verifier.runs.attack_record import AttackRecord


@dataclass(frozen=True)
class AttackCounts:
    """The fields of `AttackResult` of the same names."""

    correct: int
    robust: int
    confirmed: int
    execution_only: int
    timed_out: int
    mean_distance: float | None
    median_distance: float | None
    queries: int
    gradients: int
    vanishing_gradients: float | None


def attacked(records: Sequence[AttackRecord]) -> AttackCounts:
    """Return the counts over the inputs that the records are of."""
    correct = [record for record in records if record.correct]
    distances = [record.distance for record in correct if record.distance is not None]
    looked_at = [record.vanishing for record in correct if record.vanishing is not None]
    return AttackCounts(
        correct=len(correct),
        robust=sum(record.robust for record in correct),
        confirmed=len(distances),
        execution_only=sum(r.execution_only is not None and r.distance is None for r in correct),
        timed_out=sum(record.reason is not None for record in correct),
        mean_distance=statistics.fmean(distances) if distances else None,
        median_distance=statistics.median(distances) if distances else None,
        queries=sum(record.queries for record in correct),
        gradients=sum(record.gradients for record in correct),
        vanishing_gradients=statistics.fmean(looked_at) if looked_at else None,
    )
