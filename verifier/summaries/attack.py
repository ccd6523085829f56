"""The counts of `attack`, from its records."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from verifier.runs.attack_record import AttackRecord


@dataclass(frozen=True, kw_only=True, eq=False)
class AttackCounts:
    """What the records of an attack come to.

    correct: inputs classified correctly, over which all else counts.
    robust: those without a confirmed counterexample at distance <= epsilon; no proof.
    confirmed: inputs with a counterexample at any distance, also beyond epsilon.
    execution_only: inputs whose only unsafe point is so by the rounding of the user's model.
    timed_out: inputs that the clock stopped.
    mean_distance, median_distance: of all confirmed counterexamples; None without any.
    queries, gradients: evaluations without and with a gradient.
    vanishing_gradients: share of the attacked inputs whose gradient is zero; None where the attack looked at none.
    """

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
