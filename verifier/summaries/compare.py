"""The rows of `compare` and the contradictions between its methods, from its records."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from verifier.metrics import execution_only_at
from verifier.runs.compare_record import CompareRecord
from verifier.verdict import Bracket, Outcome


@dataclass(frozen=True)
class ComparedMethod:
    """One row. Means are of the ends cut to [0, epsilon]; gap_closed is the share of the gap between the lower ends of
    intervals and the least upper ends of all methods that the method's lower ends close, None where there is no gap.

    trusted: inputs that a solver says are safe; they are neither certified nor part of the means. median_open_units:
    of what the boxes left open of a ball (hinge units; for `milp` binaries), over the inputs where it was counted.
    execution_only: inputs of which the method saw a point of the ball that only the model's own rounding makes unsafe.
    """

    method: str
    direction: str
    certified: int
    trusted: int
    falsified: int
    mean_lower: float
    mean_upper: float
    gap_closed: float | None
    median_open_units: float | None
    median_seconds: float
    execution_only: int = 0


# By method, in the order of the records.
Brackets = Mapping[str, Sequence[Bracket]]


def brackets_by_method(records: Sequence[CompareRecord], names: Sequence[str]) -> dict[str, tuple[Bracket, ...]]:
    """Return the brackets that each method alone has."""
    return {name: tuple(record.methods[name].answer.bracket for record in records) for name in names}


def compared(
    records: Sequence[CompareRecord], epsilon: float, directions: Mapping[str, str]
) -> tuple[ComparedMethod, ...]:
    """Return one row for each method over the inputs that the records are of.

    directions: of the methods by name, in the order of the rows: "proves", "finds" or "both".
    """
    brackets = brackets_by_method(records, tuple(directions))
    least_upper = np.min([[_cut(b.upper, epsilon) for b in found] for found in brackets.values()], axis=0)
    # Without the interval method in the comparison the gap starts at zero.
    base = [_cut(b.lower, epsilon) for b in brackets["interval"]] if "interval" in brackets else [0.0] * len(records)
    gap = float(np.sum(least_upper - np.array(base)))
    rows = []
    for name, found in brackets.items():
        lower = np.array([_cut(b.lower, epsilon) for b in found])
        gained = float(np.sum(lower - np.array(base)))
        answers = [record.methods[name].answer for record in records]
        units = [answer.open_units for answer in answers if answer.open_units is not None]
        rows.append(
            ComparedMethod(
                method=name,
                direction=directions[name],
                certified=sum(b.at(epsilon) is Outcome.CERTIFIED for b in found),
                trusted=sum(b.only_trusted_at(epsilon) for b in found),
                falsified=sum(b.at(epsilon) is Outcome.FALSIFIED for b in found),
                mean_lower=float(lower.mean()),
                mean_upper=float(np.mean([_cut(b.upper, epsilon) for b in found])),
                gap_closed=max(0.0, gained / gap) if directions[name] != "finds" and gap > 0 else None,
                median_open_units=statistics.median(units) if units else None,
                median_seconds=statistics.median(record.methods[name].seconds for record in records),
                execution_only=execution_only_at(epsilon, found, [answer.execution_only for answer in answers]),
            )
        )
    return tuple(rows)


def violations(indices: Sequence[int], brackets: Brackets) -> tuple[tuple[int, str, str], ...]:
    """Return (index, prover, finder) wherever one method says safe what another breaks: lower or trusted >= upper."""
    return tuple(
        (index, prover, finder)
        for prover, proofs in brackets.items()
        for finder, finds in brackets.items()
        for index, proof, find in zip(indices, proofs, finds, strict=True)
        if max(proof.lower, proof.trusted) >= find.upper and not math.isinf(find.upper)
    )


def all_violations(records: Sequence[CompareRecord], names: Sequence[str]) -> tuple[tuple[int, str, str], ...]:
    """Return those between two methods, then those where a method broke itself what a solver had told it is safe."""
    indices = [record.index for record in records]
    pairs = [(record.index, record.methods[name].answer.refuted) for record in records for name in names]
    refuted = [(index, *pair) for index, pair in pairs if pair is not None]
    return tuple(dict.fromkeys((*violations(indices, brackets_by_method(records, names)), *refuted)))


def _cut(end: float, epsilon: float) -> float:
    """Return an end of a bracket cut to [0, epsilon]."""
    return min(max(end, 0.0), epsilon)
