"""Frequency and severity of `robustness`, and what each estimator alone says, from its records."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from verifier.metrics import Range, adversarial_frequency, adversarial_severity, execution_only_at
from verifier.runs.robustness_record import RobustnessRecord
from verifier.verdict import Outcome


@dataclass(frozen=True)
class EstimatorResult:
    """What one estimator says, taken at its word: frequency = share(radius <= epsilon), severity = mean of those.

    severity is None with a reason where no radius is. unresolved: share of inputs that it does not find and nothing
    proves safe. outcomes: how often it found, met an infeasible program, stopped, ...
    """

    frequency: float
    severity: float | None
    reason: str | None
    unresolved: float
    median_seconds: float
    outcomes: dict[str, int]


@dataclass(frozen=True, kw_only=True, eq=False)
class Measured:
    """The fields of `RobustnessResult` of the same names."""

    frequency: Range
    severity: Range
    unresolved: float
    execution_only: int
    estimators: dict[str, EstimatorResult]


def measured(records: Sequence[RobustnessRecord], epsilon: float, names: Sequence[str]) -> Measured:
    """Return the ranges and the named estimators' values over the inputs that the records are of."""
    brackets = [record.answer.bracket for record in records]
    certified = [bracket.at(epsilon) is Outcome.CERTIFIED for bracket in brackets]
    return Measured(
        frequency=adversarial_frequency(epsilon, brackets),
        severity=adversarial_severity(epsilon, brackets),
        unresolved=sum(b.at(epsilon) is Outcome.OPEN for b in brackets) / len(records),
        execution_only=execution_only_at(epsilon, brackets, [record.answer.execution_only for record in records]),
        estimators={name: _alone(name, records, epsilon, certified) for name in names},
    )


def radii_of(records: Sequence[RobustnessRecord], name: str) -> tuple[float, ...]:
    """Return the radius of each record by an estimator; infinite where it found none."""
    return tuple(record.estimators[name].radius for record in records)


def _alone(
    name: str, records: Sequence[RobustnessRecord], epsilon: float, certified: Sequence[bool]
) -> EstimatorResult:
    mine = [record.estimators[name] for record in records]
    radii = radii_of(records, name)
    within = [radius for radius in radii if radius <= epsilon]
    missed = sum(r > epsilon and not safe for r, safe in zip(radii, certified, strict=True))
    words = [estimate.outcome for estimate in mine]
    return EstimatorResult(
        frequency=len(within) / len(records),
        severity=statistics.fmean(within) if within else None,
        reason=None if within else f"{name} finds no radius of at most {epsilon:g}",
        unresolved=missed / len(records),
        median_seconds=statistics.median(estimate.seconds for estimate in mine),
        outcomes={word: words.count(word) for word in sorted(set(words))},
    )
