"""The record of `attack`: the nearest counterexample of a correctly classified input, and what the search cost."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, Self

from verifier.fields import (
    COUNT,
    FLAG,
    NUMBER,
    REASON,
    RecordError,
    or_null,
    read_fields,
    stated,
    write_fields,
)  # fmt: skip
from verifier.runs.records import Configuration, InputRecord
from verifier.verdict import Bracket


@dataclasses.dataclass(frozen=True, kw_only=True)
class AttackRecord(InputRecord):
    """What an attack found of an input.

    distance: of the nearest confirmed counterexample, None without one; adversarial: the class that it gets. robust:
    whether none lies within the radius. execution_only: distance of a point that is unsafe by rounding alone. queries,
    gradients: evaluations without and with a gradient; vanishing: whether the gradient was zero, None where nobody
    looked. reason: why the search ended early.
    """

    about_label: ClassVar[bool] = True

    distance: float | None = stated(or_null(NUMBER), None, required=True)
    adversarial: int | None = stated(or_null(COUNT, "a class or null"), None, required=True)
    robust: bool = stated(FLAG, True, required=True)
    tie: bool = stated(FLAG, False, required=True)
    execution_only: float | None = stated(or_null(NUMBER), None, required=True)
    queries: int = stated(COUNT, 0, required=True)
    gradients: int = stated(COUNT, 0, required=True)
    vanishing: bool | None = stated(or_null(FLAG, "true, false or null"), None, required=True)
    reason: str | None = stated(REASON, None, required=True)

    @property
    def brackets(self) -> tuple[Bracket, ...]:
        return ()

    @property
    def claimed_distance(self) -> float | None:
        return self.distance

    def _weakened(self, before: Self) -> str | None:
        first, second = before.distance, self.distance
        grown = first is not None and (second is None or second > first)
        return f"its distance was {first!r} and is {second!r}" if grown else None

    @classmethod
    def _read(cls, values: Mapping[str, Any], configuration: Configuration) -> dict[str, Any]:
        fields = read_fields(cls, values)
        distance, adversarial, robust = fields["distance"], fields["adversarial"], fields["robust"]
        if robust is not (distance is None or distance > configuration["epsilon"]):
            raise RecordError(f"robust {robust} and distance {distance!r} do not go together")
        if (distance is None) is not (adversarial is None):
            raise RecordError(f"adversarial {adversarial} and distance {distance!r} do not go together")
        return fields

    def _written(self) -> dict[str, Any]:
        return write_fields(self)
