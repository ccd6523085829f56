"""The record of `compare`: what each method alone says of an input, against its prediction."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, Self

from verifier.answers import Answer
from verifier.fields import (
    NUMBER,
    TEXT,
    Kind,
    RecordError,
    is_object,
    kinds_of,
    read_fields,
    shown,
    stated,
    unknown,
    write_fields,
)  # fmt: skip
from verifier.runs.records import Configuration, InputRecord
from verifier.runs.stored_answer import read_answer, write_answer, written_names
from verifier.verdict import Bracket

METHODS = Kind(lambda value: is_object(value) and bool(value), "an object that is not empty")


@dataclasses.dataclass(frozen=True, kw_only=True)
class MethodAnswer:
    """What a method says of an input, and the seconds it took; reason: why it has to be asked again, or None."""

    answer: Answer
    seconds: float = stated(NUMBER)
    reason: str | None = stated(TEXT, None)
    others: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, kw_only=True)
class CompareRecord(InputRecord):
    """What the methods say of an input, by name."""

    beside: ClassVar[tuple[str, ...]] = ("methods",)

    methods: Mapping[str, MethodAnswer]

    @property
    def brackets(self) -> tuple[Bracket, ...]:
        return tuple(method.answer.bracket for method in self.methods.values())

    def _weakened(self, before: Self) -> str | None:
        lost = [
            name
            for name, answer in before.methods.items()
            if answer.reason is None and self.methods.get(name) != answer
        ]
        return f"what it says of method {lost[0]!r} has changed" if lost else None

    @classmethod
    def _read(cls, values: Mapping[str, Any], configuration: Configuration) -> dict[str, Any]:
        objects = read_fields(_Methods, values)["methods"]
        return {"methods": {name: _method_answer(name, value) for name, value in objects.items()}}

    def _written(self) -> dict[str, Any]:
        return {"methods": {n: {**write_answer(m.answer), **write_fields(m)} for n, m in self.methods.items()}}


@dataclasses.dataclass(frozen=True)
class _Methods:
    methods: Mapping[str, Any] = stated(METHODS)


def _method_answer(name: str, value: Any) -> MethodAnswer:
    if not is_object(value):
        raise RecordError(f"malformed: field 'methods.{name}' is {shown(value)}; expected an object")
    where = f"methods.{name}."
    others = unknown(value, {*written_names(), *kinds_of(MethodAnswer)})
    return MethodAnswer(answer=read_answer(value, where), **read_fields(MethodAnswer, value, where), others=others)
