"""An answer as JSON holds it: the one place where brackets and what goes with them are read and written.

Witness and certificate lie in files of their own, and a reason belongs to the record as a whole. A new fact about an
answer that is kept is one line here.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from verifier.answers import Answer
from verifier.fields import (
    COUNT,
    DISTANCE,
    LOWER_END,
    NUMBER,
    PAIR,
    TEXT,
    RecordError,
    kinds_of,
    one_of,
    or_null,
    read_fields,
    stated,
    write_fields,
)  # fmt: skip
from verifier.verdict import Bracket, Strength


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Stored:
    """The fields of an answer in JSON. A record of before there were trusted ends has the one end that it names."""

    lower: float = stated(LOWER_END)
    upper: float = stated(DISTANCE)
    trusted: float = stated(LOWER_END, -1.0)
    lower_method: str = stated(TEXT)
    upper_method: str = stated(TEXT)
    trusted_method: str = stated(TEXT, "")
    strength: str = stated(one_of([str(strength) for strength in Strength]))
    execution_only: float | None = stated(or_null(NUMBER, DISTANCE.words), None)
    refuted: tuple[str, str] | None = stated(or_null(PAIR, "two names or null"), None)
    open_units: int | None = stated(or_null(COUNT), None)


# What is kept of an answer beside its bracket.
FACTS = ("execution_only", "refuted", "open_units")


def read_answer(values: Mapping[str, Any], where: str = "") -> Answer:
    """Return the answer that an object holds; RecordError if it is none, or contradicts itself."""
    stored = read_fields(_Stored, values, where)
    lower, upper, trusted = stored["lower"], stored["upper"], stored["strength"] == Strength.TRUSTED
    if lower >= upper and not lower == upper == math.inf:
        raise RecordError(f"the record claims that {lower!r} is safe and {upper!r} is not")
    ends = (lower, upper, stored["lower_method"], stored["upper_method"], Strength(stored["strength"]))
    vouched = (stored.get("trusted", -1.0), stored.get("trusted_method", ""))
    if trusted:
        ends, vouched = (-1.0, upper, "", ends[3], Strength.CHECKED), (lower, ends[2])
    try:
        bracket = Bracket(*ends, *vouched)
    except ValueError as error:
        raise RecordError(str(error)) from None
    return Answer(bracket, **{name: stored[name] for name in FACTS if name in stored})


def kept(answer: Answer) -> Answer:
    """Return what a record keeps of an answer as such."""
    return dataclasses.replace(answer, witness=None, certificate=None, reason=None, spent=())


def write_answer(answer: Answer) -> dict[str, Any]:
    """Return the object that holds an answer."""
    facts = {name: getattr(answer, name) for name in FACTS}
    ends = {**dataclasses.asdict(answer.bracket), "strength": str(answer.bracket.strength)}
    return write_fields(_Stored(**ends, **facts))


def written_names() -> tuple[str, ...]:
    """Return the names under which JSON holds an answer."""
    return tuple(kinds_of(_Stored))


def widened(before: Bracket, after: Bracket) -> str | None:
    """Return how a bracket is wider than an earlier one; None if it is not."""
    if after.lower >= before.lower and after.upper <= before.upper:
        return None
    ends = [(bracket.lower, bracket.upper) for bracket in (before, after)]
    return f"its bracket was {ends[0]} and is {ends[1]}"
