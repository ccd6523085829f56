"""The record of `verify`: a verdict about one box of a property, and what identifies the numbers it is about."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Self

from verifier.answers import Spent
from verifier.fields import (
    COUNT,
    DISTANCE,
    REASON,
    TEXT,
    RecordError,
    one_of,
    or_null,
    read_fields,
    shown,
    stated,
    write_fields,
)
from verifier.runs.kept_certificate import KeptCertificate
from verifier.runs.records import Configuration
from verifier.runs.stored_spending import SPENDING
from verifier.verdict import Strength, Verdict

PROOFS = [str(Strength.CHECKED), str(Strength.COMPUTED)]
# The distance of every witness in the files of a run: one lies in the box, or is none.
INSIDE = 0.0


def looks_like_a_file(name: str) -> bool:
    """Return whether a reader would take a name for that of a file of properties; that of an object is no such name."""
    return name.strip().lower().endswith((".vnnlib", ".vnnlib.gz"))


@dataclasses.dataclass(frozen=True, kw_only=True)
class VerifyRecord(KeptCertificate):
    """What is known of a box, as a number of a property's boxes; the properties of a run follow one another.

    name: of the property. file: the full path of its file; None where it was an object, whose numbers the run keeps.
    digest: of the exact numbers that this box asks about. strength: of the proof, with `unsat`. method: what proved it
    or found the witness, empty where nothing had to be done. reason: why it is open, or what must be said of a proof.
    tried: the seconds after which it may be left open. spent: by the stages of several methods, over all tries.
    """

    name: str = stated(TEXT)
    file: str | None = stated(REASON)
    digest: str = stated(TEXT)
    box: int = stated(COUNT)
    boxes: int = stated(COUNT)
    verdict: str = stated(one_of([str(verdict) for verdict in Verdict]))
    strength: str | None = stated(or_null(one_of(PROOFS)))
    method: str = stated(TEXT)
    reason: str | None = stated(REASON)
    tried: float = stated(DISTANCE)
    spent: tuple[Spent, ...] = stated(SPENDING, ())

    @property
    def first(self) -> int:
        """The position of the property's first box."""
        return self.index - self.box

    @property
    def is_decided(self) -> bool:
        """Whether the box is proved or has a witness."""
        return self.verdict in (Verdict.SAT, Verdict.UNSAT)

    @property
    def proved(self) -> float:
        return math.inf if self.verdict == Verdict.UNSAT else -1.0

    @property
    def vouched(self) -> float:
        return self.proved

    @property
    def claimed_distance(self) -> float | None:
        return INSIDE if self.verdict == Verdict.SAT else None

    @property
    def identity(self) -> Mapping[str, Any]:
        return {**super().identity, **{name: getattr(self, name) for name in ("digest", "box", "boxes")}}

    def _weakened(self, before: Self) -> str | None:
        if before.is_decided and self.verdict != before.verdict:
            return f"its verdict was {before.verdict} and is {self.verdict}"
        return f"it was tried for {before.tried!r} seconds" if self.tried < before.tried else None

    @classmethod
    def _read(cls, values: Mapping[str, Any], configuration: Configuration) -> dict[str, Any]:
        fields = read_fields(cls, values)
        if fields["file"] is None and looks_like_a_file(fields["name"]):
            raise RecordError(f"its property is called {shown(fields['name'])}, which is a file, and it names none")
        if fields["box"] >= fields["boxes"] or fields["box"] > values["index"]:
            raise RecordError(f"box {fields['box']} of {fields['boxes']} cannot be record {values['index']} of the run")
        proved = fields["verdict"] == Verdict.UNSAT
        if proved is not (fields["strength"] is not None) or (fields.get("certificate") is not None and not proved):
            raise RecordError(f"verdict {fields['verdict']}, its strength and its certificate do not go together")
        return fields

    def _written(self) -> dict[str, Any]:
        return write_fields(self)
