"""One line for each input of a run, whatever its command: a bracket around its radius, and where that comes from."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from verifier.runs.attack_record import AttackRecord
from verifier.runs.certify_record import CertifyRecord
from verifier.runs.compare_record import CompareRecord
from verifier.runs.records import InputRecord, Record
from verifier.runs.robustness_record import RobustnessRecord
from verifier.runs.verify_record import VerifyRecord
from verifier.verdict import Outcome, Verdict


@dataclass(frozen=True, kw_only=True)
class InputRow:
    """What a run says of an input, or of a box of a property, which has no label and the radius 0.

    lower, upper: of the bracket, -1 and infinity where nothing is known; of several methods the best ends. trusted: the
    radius for which a solver vouches, -1 without one. asked: False of an input that the model gets wrong, of which
    `certify` and `attack` ask nothing. proved_by, found_by: methods.
    """

    index: int
    label: int | None = None
    prediction: int | None = None
    asked: bool = True
    lower: float = -1.0
    upper: float = math.inf
    trusted: float = -1.0
    proved_by: str = ""
    found_by: str = ""
    reason: str | None = None
    seconds: float = 0.0

    def at(self, epsilon: float) -> str:
        """Return the word for the closed ball of a radius: wrong, certified, falsified or open."""
        if not self.asked:
            return "wrong"
        if self.lower >= epsilon:
            return str(Outcome.CERTIFIED)
        return str(Outcome.FALSIFIED if self.upper <= epsilon else Outcome.OPEN)


def rows_of(records: Mapping[int, Record]) -> list[InputRow]:
    """Return the rows of all records, in the order of the inputs."""
    return [_row(records[index]) for index in sorted(records)]


def _row(record: Record) -> InputRow:
    if isinstance(record, VerifyRecord):
        return _of_box(record)
    assert isinstance(record, InputRecord)
    head = record.head
    blank = InputRow(index=head.index, label=head.label, prediction=head.prediction, seconds=head.seconds)
    if not record.is_asked:
        return replace(blank, asked=False)
    if isinstance(record, AttackRecord):
        distance = math.inf if record.distance is None else record.distance
        return replace(blank, upper=distance, reason=record.reason)
    brackets = record.brackets
    lowest = max(brackets, key=lambda bracket: bracket.lower)
    nearest = min(brackets, key=lambda bracket: bracket.upper)
    proved_by, found_by = lowest.lower_method, nearest.upper_method
    if isinstance(record, CompareRecord):
        # What a method found by a stage of its own is the method's.
        methods = list(record.methods)
        proved_by, found_by = methods[brackets.index(lowest)], methods[brackets.index(nearest)]
    reason = record.reason if isinstance(record, CertifyRecord | RobustnessRecord) else None
    trusted = max(bracket.trusted for bracket in brackets)
    return replace(
        blank, lower=lowest.lower, upper=nearest.upper, trusted=trusted, proved_by=proved_by, found_by=found_by,
        reason=reason,
    )  # fmt: skip


def _of_box(record: VerifyRecord) -> InputRow:
    proved, found = record.verdict == Verdict.UNSAT, record.verdict == Verdict.SAT
    return InputRow(
        index=record.index, lower=math.inf if proved else -1.0, upper=0.0 if found else math.inf,
        proved_by=record.method if proved else "", found_by=record.method if found else "",
        reason=record.reason, seconds=record.head.seconds,
    )  # fmt: skip
