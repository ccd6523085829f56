"""What the records of `verify` come to: one verdict for each property, over all its boxes."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from verifier.runs.verify_record import VerifyRecord
from verifier.summaries.spending import StageTotal, totals
from verifier.verdict import Strength, Verdict


@dataclasses.dataclass(frozen=True, kw_only=True)
class PropertySummary:
    """What is known of one property, or of a file, which may ask about several boxes.

    property: its name. file: its full path; None of an object. verdict: about all its boxes together. seconds: for it
    alone. strength: with `unsat`, of the weakest proof. method: what proved a box or found the witness; empty where
    nothing had to be done. reason: why it is open, or what must be said of a proof. certificates: for each box that
    was asked about the file in the run's folder, None where there is none. spent: by the stages of several methods.
    """

    property: str
    file: str | None
    verdict: Verdict
    seconds: float
    boxes: int
    strength: Strength | None
    method: str
    reason: str | None
    certificates: tuple[str | None, ...]
    spent: tuple[StageTotal, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return what JSON holds of it; `certificate` is that of a single box."""
        strength = None if self.strength is None else self.strength.value
        return {
            "property": self.property, "file": self.file, "verdict": self.verdict.value, "seconds": self.seconds,
            "boxes": self.boxes, "strength": strength, "method": self.method,
            "reason": self.reason, "certificate": self.certificates[0] if self.boxes == 1 else None,
            "certificates": list(self.certificates), "spent": [dataclasses.asdict(total) for total in self.spent],
        }  # fmt: skip


def grouped(records: Sequence[VerifyRecord]) -> list[list[VerifyRecord]]:
    """Return the records of boxes by properties, in order; those of boxes that nothing depended on may be missing."""
    groups: dict[int, list[VerifyRecord]] = {}
    for record in records:
        groups.setdefault(record.first, []).append(record)
    return list(groups.values())


def verified(records: Sequence[VerifyRecord]) -> list[PropertySummary]:
    """Return what is known of each property that some record is about."""
    return [_summary(group) for group in grouped(records)]


def _summary(group: Sequence[VerifyRecord]) -> PropertySummary:
    worst = max(group, key=lambda record: list(Verdict).index(Verdict(record.verdict)))
    verdict, boxes = Verdict(worst.verdict), worst.boxes
    if verdict is Verdict.UNSAT and len(group) < boxes:
        # Boxes that nobody has looked at.
        verdict = Verdict.UNKNOWN
    reasons = [record.reason for record in group if record.verdict == verdict and record.reason is not None]
    strengths = [Strength(record.strength) for record in group if record.strength is not None]
    return PropertySummary(
        property=worst.name,
        file=worst.file,
        verdict=verdict,
        seconds=sum(record.head.seconds for record in group),
        boxes=boxes,
        strength=max(strengths, key=list(Strength).index) if verdict is Verdict.UNSAT else None,
        method=worst.method if verdict in (Verdict.SAT, Verdict.UNSAT) else "",
        reason=next(iter(reasons), None),
        certificates=tuple(None if record.certificate is None else record.certificate.file for record in group),
        spent=totals(record.spent for record in group),
    )
