"""Fields of JSON objects as fields of frozen values: what each may hold, in words, and how it is read and written.

A class declares its fields with `stated(kind)`; `read_fields` checks an object field by field and returns what the
class takes, `write_fields` is the way back.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Collection, Hashable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

T = TypeVar("T")

# Of integers: what a float64 holds exactly.
LARGEST_INTEGER = 1 << 53


class RecordError(ValueError):
    """A record is not one, or contradicts itself or the run it stands in."""


def as_it_is(value: Any) -> Any:
    """Return the value."""
    return value


@dataclass(frozen=True)
class Kind:
    """What a value of JSON may be: a rule, the rule in words, and how the value is read and written."""

    holds: Callable[[Any], bool]
    words: str
    read: Callable[[Any], Any] = as_it_is
    write: Callable[[Any], Any] = as_it_is


# By field: what it may hold, and whether an object must have it.
Kinds = Mapping[str, tuple[Kind, bool]]


def stated(kind: Kind, default: Any = dataclasses.MISSING, *, required: bool = False) -> Any:
    """Return a field of a class that JSON holds under the same name; required: it has a default, but not in JSON."""
    required = required or default is dataclasses.MISSING
    return dataclasses.field(default=default, metadata={"kind": kind, "required": required})


def kinds_of(cls: type) -> Kinds:
    """Return of each stated field of a class its kind, and whether an object must have it."""
    # A run of 10,000 inputs asks 100,000 times.
    return _kinds_of(cls)


@functools.cache
def _kinds_of(cls: Hashable) -> Kinds:
    assert isinstance(cls, type)
    return {
        field.name: (field.metadata["kind"], field.metadata["required"])
        for field in dataclasses.fields(cls)
        if "kind" in field.metadata
    }


@functools.cache
def _rules_of(cls: Hashable) -> tuple[tuple[str, Callable[[Any], bool], Callable[[Any], Any], bool], ...]:
    """Return of each stated field its name, what it may hold, how it is read, and whether an object must have it."""
    assert isinstance(cls, type)
    return tuple((name, kind.holds, kind.read, required) for name, (kind, required) in kinds_of(cls).items())


def check_fields(kinds: Kinds, values: Mapping[str, Any], where: str = "") -> None:
    """Raise RecordError naming the first field that is missing or not what it should be."""
    for name, (kind, required) in kinds.items():
        if name not in values:
            if required:
                raise RecordError(f"malformed: field {where + name!r} is missing")
        elif not kind.holds(values[name]):
            raise RecordError(f"malformed: field {where + name!r} is {shown(values[name])}; expected {kind.words}")


def read_object(cls: type[T], values: Mapping[str, Any], where: str) -> T:
    """Return the value that a nested object holds, with what nobody here knows in its `others`."""
    fields: dict[str, Any] = {**read_fields(cls, values, where), "others": unknown(values, kinds_of(cls))}
    return cls(**fields)


def read_fields(cls: type, values: Mapping[str, Any], where: str = "") -> dict[str, Any]:
    """Return the stated fields of a class as an object holds them; RecordError if one is not what it should be."""
    read: dict[str, Any] = {}
    # One walk over the fields, for a run has millions of them; who is at fault is found by another.
    for name, holds, reading, required in _rules_of(cls):
        if name in values:
            value = values[name]
            if not holds(value):
                break
            read[name] = value if reading is as_it_is else reading(value)
        elif required:
            break
    else:
        return read
    check_fields(kinds_of(cls), values, where)
    raise AssertionError("a fault is found twice")


def unknown(values: Mapping[str, Any], known: Collection[str]) -> dict[str, Any]:
    """Return what an object holds beside the names that are known: fields of versions to come, kept as they are."""
    if type(known) is frozenset and values.keys() <= known:
        return {}
    return {name: value for name, value in values.items() if name not in known}


def write_fields(value: Any) -> dict[str, Any]:
    """Return the stated fields of a value as JSON holds them, and its `others` if it keeps any.

    What is None and cannot be null is left out.
    """
    pairs = [(name, kind, getattr(value, name)) for name, (kind, _) in kinds_of(type(value)).items()]
    written = {name: kind.write(field) for name, kind, field in pairs if field is not None or kind.holds(None)}
    return {**written, **getattr(value, "others", {})}


def shown(value: Any) -> str:
    """Return a value in a few words, whatever it is."""
    if isinstance(value, list | dict):
        return f"a {'list' if isinstance(value, list) else 'nested object'} of {len(value)}"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


# ------------------------------------------------------------------------------------------------------------ the kinds


def is_whole(least: int) -> Callable[[Any], bool]:
    """Return the rule of whole numbers from a least one on."""
    return lambda value: type(value) is int and least <= value < LARGEST_INTEGER


def is_number(least: float) -> Callable[[Any], bool]:
    """Return the rule of finite numbers from a least one on."""

    def holds(value: Any) -> bool:
        if type(value) is float:
            return math.isfinite(value) and value >= least
        # An integer is compared as it is: it may be too large for a float.
        return type(value) is int and least <= value < LARGEST_INTEGER

    return holds


def or_null(kind: Kind, words: str = "") -> Kind:
    """Return a kind that null is, too."""
    read, write = kind.read, kind.write
    return Kind(
        lambda value: value is None or kind.holds(value),
        words or f"{kind.words}, or null",
        as_it_is if read is as_it_is else lambda value: None if value is None else read(value),
        as_it_is if write is as_it_is else lambda value: None if value is None else write(value),
    )


def one_of(names: Collection[str]) -> Kind:
    """Return the kind of some names."""
    return Kind(lambda value: type(value) is str and value in names, f"one of {', '.join(names)}")


def list_of(rule: Callable[[Any], bool], words: str, read: Callable[[Any], Any] = tuple) -> Kind:
    """Return the kind of lists, read as tuples."""
    return Kind(lambda value: isinstance(value, list) and all(map(rule, value)), words, read, list)


def is_text(value: Any) -> bool:
    """Return whether a value is text."""
    return type(value) is str


def is_object(value: Any) -> bool:
    """Return whether a value is a JSON object."""
    return isinstance(value, dict)


def _infinity_read(value: Any) -> float:
    return math.inf if value is None else float(value)


def _infinity_written(value: float) -> float | None:
    return None if value == math.inf else value


_FROM_0, _FROM_MINUS_1 = is_number(0.0), is_number(-1.0)
NUMBER = Kind(_FROM_0, "a finite number of at least 0", float)
# Ends of brackets: null is infinity, and a lower one is -1 where nothing is known.
DISTANCE = Kind(
    lambda value: value is None or _FROM_0(value), "a finite number of at least 0, or null",
    _infinity_read, _infinity_written,
)  # fmt: skip
LOWER_END = Kind(
    lambda value: value is None or _FROM_MINUS_1(value), "a finite number of at least -1, or null for infinity",
    _infinity_read, _infinity_written,
)  # fmt: skip
TEXT = Kind(is_text, "text")
FLAG = Kind(lambda value: type(value) is bool, "true or false")
COUNT = Kind(is_whole(0), "a whole number of at least 0")
RADII = list_of(_FROM_0, "a list of finite numbers of at least 0", lambda value: tuple(map(float, value)))
OBJECT = Kind(is_object, "an object")
REASON = or_null(TEXT, "text or null")
NAMES = list_of(is_text, "a list of names")
PAIR = Kind(
    lambda value: isinstance(value, list) and len(value) == 2 and all(map(is_text, value)), "two names", tuple, list
)
TEXTS = Kind(lambda value: is_object(value) and all(map(is_text, value.values())), "an object of texts", dict, dict)
