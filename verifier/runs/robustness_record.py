"""The record of `robustness`: an answer about an input, against its prediction, and what each estimator says of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, Self

from verifier.answers import Answer
from verifier.fields import (
    DISTANCE,
    NUMBER,
    OBJECT,
    REASON,
    TEXT,
    RecordError,
    is_object,
    read_fields,
    read_object,
    shown,
    stated,
    write_fields,
)  # fmt: skip
from verifier.runs.records import Configuration, InputRecord
from verifier.runs.stored_answer import read_answer, widened, write_answer, written_names
from verifier.verdict import Bracket


@dataclasses.dataclass(frozen=True, kw_only=True)
class StoredEstimate:
    """What an estimator says: a radius, infinite where it found none, how it went, and the seconds it took."""

    radius: float = stated(DISTANCE)
    outcome: str = stated(TEXT)
    seconds: float = stated(NUMBER)
    others: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RobustnessRecord(InputRecord):
    """What is known of an input, and what the estimators say, by name.

    tried: the radius that was asked about; reason: why that ended early.
    """

    beside: ClassVar[tuple[str, ...]] = ("estimators", *written_names())

    answer: Answer
    estimators: Mapping[str, StoredEstimate]
    tried: float = stated(NUMBER)
    reason: str | None = stated(REASON)

    @property
    def brackets(self) -> tuple[Bracket, ...]:
        return (self.answer.bracket,)

    def _weakened(self, before: Self) -> str | None:
        wider = widened(before.answer.bracket, self.answer.bracket)
        return wider or ("radii that were tried are gone" if self.tried < before.tried else None)

    @classmethod
    def _read(cls, values: Mapping[str, Any], configuration: Configuration) -> dict[str, Any]:
        answer, fields = read_answer(values), read_fields(cls, values)
        objects = read_fields(_Estimators, values)["estimators"]
        names = list(configuration["estimators"])
        if sorted(objects) != sorted(names):
            raise RecordError(f"its estimators are not those of the run, {', '.join(names)}")
        estimators = {name: _estimate(name, value, answer.bracket.upper) for name, value in objects.items()}
        return {"answer": answer, "estimators": estimators, **fields}

    def _written(self) -> dict[str, Any]:
        estimators = {name: write_fields(estimate) for name, estimate in self.estimators.items()}
        return {**write_answer(self.answer), "estimators": estimators, **write_fields(self)}


@dataclasses.dataclass(frozen=True)
class _Estimators:
    estimators: Mapping[str, Any] = stated(OBJECT)


def _estimate(name: str, value: Any, upper: float) -> StoredEstimate:
    if not is_object(value):
        raise RecordError(f"malformed: field 'estimators.{name}' is {shown(value)}; expected an object")
    estimate = read_object(StoredEstimate, value, f"estimators.{name}.")
    if estimate.radius < upper:
        raise RecordError(f"the radius of estimator {name} is below the bracket's upper end {upper!r}")
    return estimate
