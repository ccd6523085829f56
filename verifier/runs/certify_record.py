"""The record of `certify`: an answer about a correctly classified input, and the radii at which it was tried."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, ClassVar, Self

from verifier.answers import Answer, Spent
from verifier.fields import FLAG, RADII, REASON, read_fields, stated, write_fields
from verifier.runs.kept_certificate import KeptCertificate
from verifier.runs.records import Configuration, InputRecord
from verifier.runs.stored_answer import read_answer, widened, write_answer, written_names
from verifier.runs.stored_spending import SPENDING
from verifier.verdict import Bracket


@dataclasses.dataclass(frozen=True, kw_only=True)
class CertifyRecord(InputRecord, KeptCertificate):
    """What is known of an input, against its label.

    tried: radii at which the method has done what it can; reason: why one of them is open. tie: the witness only ties
    with the label. The certificate is that of the lower end. spent: by the stages of several methods, over all tries.
    errors: what an execution may move the score of each class by, where the answer is about executions.
    """

    beside: ClassVar[tuple[str, ...]] = written_names()

    about_label: ClassVar[bool] = True

    answer: Answer = dataclasses.field(default_factory=Answer)
    tried: tuple[float, ...] = stated(RADII, (), required=True)
    reason: str | None = stated(REASON, None, required=True)
    tie: bool = stated(FLAG, False)
    spent: tuple[Spent, ...] = stated(SPENDING, ())
    errors: tuple[float, ...] = stated(RADII, ())

    @property
    def brackets(self) -> tuple[Bracket, ...]:
        return (self.answer.bracket,) if self.correct else ()

    def without_witness(self) -> Self:
        """Return the record without its witness: what was proved stands, the search begins again."""
        bracket = dataclasses.replace(self.answer.bracket, upper=math.inf, upper_method="")
        answer = dataclasses.replace(self.answer, bracket=bracket)
        return dataclasses.replace(self, answer=answer, tie=False, tried=(), reason=None)

    def _weakened(self, before: Self) -> str | None:
        wider = widened(before.answer.bracket, self.answer.bracket)
        fewer = set(before.tried) - set(self.tried)
        return wider or ("radii that were tried are gone" if fewer else None)

    @classmethod
    def _read(cls, values: Mapping[str, Any], configuration: Configuration) -> dict[str, Any]:
        return {"answer": read_answer(values), **read_fields(cls, values)}

    def _written(self) -> dict[str, Any]:
        return {**write_answer(self.answer), **write_fields(self)}
