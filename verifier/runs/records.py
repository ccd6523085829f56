"""A record: what a run says about one input or one box, a typed value that one JSON object a line holds.

Here stands what the records of all commands share; each command's own stands in a file of its name beside this one, and
`verifier.runs.kinds` is the table. A line is untrusted text until `from_json` has looked at every field of it. Fields
that nobody here knows are kept as they are, so that later versions may add some.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Self

from verifier.fields import (
    COUNT,
    FLAG,
    NUMBER,
    TEXT,
    TEXTS,
    Kind,
    Kinds,
    RecordError,
    check_fields,
    is_whole,
    kinds_of,
    read_fields,
    shown,
    stated,
    unknown,
    write_fields,
)
from verifier.verdict import Bracket

SCHEMA = 1
SCHEMA_FIELD: Kinds = {"schema": (Kind(lambda value: type(value) is int and value == SCHEMA, f"{SCHEMA}"), True)}

# What run.json states, and what is asked of a record by it.
Configuration = Mapping[str, Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Head:
    """What every record says: the position in the data (of `verify` that of the box), and where it comes from.

    model: a digest. seconds: of work. run: the digest of the run's configuration; empty before the run has written it.
    """

    index: int = stated(COUNT)
    model: str = stated(TEXT)
    seconds: float = stated(NUMBER)
    versions: Mapping[str, str] = stated(TEXTS)
    run: str = stated(TEXT, "")

    @classmethod
    def read(cls, values: Mapping[str, Any], configuration: Configuration) -> Self:
        """Return what an object says; RecordError unless it is of this run and agrees with itself."""
        check_fields(SCHEMA_FIELD, values)
        head = cls(**read_fields(cls, values))
        for name in ("model", "data"):
            if getattr(head, name, None) != configuration.get(name):
                raise RecordError(f"its record is about another {name} than the run")
        if head.run not in ("", configuration_digest(configuration)):
            raise RecordError("its record was made under another configuration than run.json states")
        return head

    def to_json(self) -> dict[str, Any]:
        """Return what JSON holds of it."""
        return {"schema": SCHEMA, **write_fields(self)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class InputHead(Head):
    """What every record of an input says. prediction: of the user's model, -1 for none. data: a digest."""

    label: int = stated(COUNT)
    prediction: int = stated(Kind(is_whole(-1), "a class, or -1 for none"))
    data: str = stated(TEXT)

    @property
    def correct(self) -> bool:
        """Whether the model gives the input its label."""
        return self.label == self.prediction

    @classmethod
    def read(cls, values: Mapping[str, Any], configuration: Configuration) -> Self:
        check_fields({"correct": (FLAG, True)}, values)
        head = super().read(values, configuration)
        if values["correct"] is not head.correct:
            raise RecordError(
                f"label {head.label}, prediction {head.prediction}, correct {shown(values['correct'])} do not go "
                "together"
            )
        return head

    def to_json(self) -> dict[str, Any]:
        return {**super().to_json(), "correct": self.correct}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Record(ABC):
    """What a run says of one input or one box: the head, and what the command is about.

    others: fields of versions to come.
    """

    head_class: ClassVar[type[Head]] = Head
    # Names under which JSON holds what is no stated field of the record itself.
    beside: ClassVar[tuple[str, ...]] = ()

    head: Head
    others: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def index(self) -> int:
        """The position in the data."""
        return self.head.index

    @property
    def is_asked(self) -> bool:
        """Whether the record says something beyond its head."""
        return True

    @property
    @abstractmethod
    def proved(self) -> float:
        """The largest radius of a proof, infinite where all of a box is proved; -1 without one."""

    @property
    @abstractmethod
    def vouched(self) -> float:
        """The same of proofs and of the word of solvers."""

    @property
    @abstractmethod
    def claimed_distance(self) -> float | None:
        """The distance at which the record claims a witness, or None where it claims none."""

    def without_witness(self) -> Self | None:
        """Return what stands of the record once its witness is gone; None where nothing does."""
        return None

    def weakened(self, before: Self) -> str | None:
        """Return in what this later record says less than, or contradicts, an earlier one; None if in nothing."""
        for name in self.identity:
            first, second = before.identity.get(name), self.identity[name]
            if first != second:
                return f"{name} was {shown(first)} and is {shown(second)}"
        return self._weakened(before) if self.is_asked else None

    @property
    def identity(self) -> Mapping[str, Any]:
        """What every record of an input, or of a box, says alike."""
        return {"model": self.head.model}

    @abstractmethod
    def _weakened(self, before: Self) -> str | None:
        """Return the same of what the command is about."""

    @classmethod
    def from_json(cls, values: Mapping[str, Any], configuration: Configuration) -> Self:
        """Return the record that an object holds; RecordError unless it is of this run and agrees with itself."""
        head = cls.head_class.read(values, configuration)
        own = cls._read(values, configuration) if cls._asks(head) else {}
        record = cls(head=head, **own)
        others = unknown(values, names_of(cls, record.is_asked))
        return dataclasses.replace(record, others=others) if others else record

    @classmethod
    def _asks(cls, head: Any) -> bool:
        """Return whether a record with this head says something beyond it."""
        return True

    @classmethod
    @abstractmethod
    def _read(cls, values: Mapping[str, Any], configuration: Configuration) -> dict[str, Any]:
        """Return what an object says of the command, as the class takes it."""

    def to_json(self) -> dict[str, Any]:
        """Return the object that a line holds."""
        return {**self.head.to_json(), **(self._written() if self.is_asked else {}), **self.others}

    @abstractmethod
    def _written(self) -> dict[str, Any]:
        """Return what JSON holds of what the command is about."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class InputRecord(Record):
    """What a run says of one input of the data.

    about_label: the reference class is the label, so nothing is asked of an input that the model gets wrong.
    """

    head_class: ClassVar[type[Head]] = InputHead
    about_label: ClassVar[bool] = False

    head: InputHead

    @property
    def correct(self) -> bool:
        """Whether the model gives the input its label."""
        return self.head.correct

    @property
    def is_asked(self) -> bool:
        return self._asks(self.head)

    @classmethod
    def _asks(cls, head: InputHead) -> bool:
        return head.correct or not cls.about_label

    @property
    @abstractmethod
    def brackets(self) -> tuple[Bracket, ...]:
        """Every bracket that the record claims: none where it claims nothing, several in a comparison."""

    @property
    def proved(self) -> float:
        return max((bracket.lower for bracket in self.brackets), default=-1.0)

    @property
    def vouched(self) -> float:
        return max((max(bracket.lower, bracket.trusted) for bracket in self.brackets), default=-1.0)

    @property
    def claimed_distance(self) -> float | None:
        nearest = min((bracket.upper for bracket in self.brackets), default=math.inf)
        return None if math.isinf(nearest) else nearest

    @property
    def identity(self) -> Mapping[str, Any]:
        return {name: getattr(self.head, name) for name in ("label", "prediction", "model", "data")}


@functools.cache
def names_of(cls: type[Record], asked: bool) -> frozenset[str]:
    """Return the names of all fields that JSON holds of a record; asked: which says something beyond its head."""
    own = (*kinds_of(cls), *cls.beside) if asked else ()
    return frozenset(("schema", "correct", *kinds_of(cls.head_class), *own))


def parse_record(line: bytes) -> dict[str, Any]:
    """Return the object that a line holds; RecordError if it is not exactly one JSON object."""
    try:
        text = line.decode("utf-8")
        record = _DECODER.decode(text)
        if "\\u" in text:
            # A lone surrogate is no character, and cannot be printed.
            json.dumps(record, ensure_ascii=False).encode("utf-8")
    except (ValueError, RecursionError) as error:
        raise RecordError(f"not a record: {str(error) or 'nested too deep'}") from None
    if not isinstance(record, dict):
        raise RecordError("not a record: it holds no object")
    return record


def index_of(values: Mapping[str, Any]) -> int:
    """Return the position in the data that an object is about; RecordError if it names none."""
    index = values.get("index")
    if not COUNT.holds(index):
        raise RecordError(f"not a record: field 'index' is {shown(index)}; expected {COUNT.words}")
    return int(values["index"])


class Identified(dict[str, Any]):
    """A configuration that nobody changes any more, whose digest is computed once."""

    @functools.cached_property
    def digest(self) -> str:
        """The digest of what identifies the run."""
        return configuration_digest(dict(self))


def configuration_digest(configuration: Configuration) -> str:
    """Return the digest of what identifies a run: all of its configuration but where model and data were found."""
    if isinstance(configuration, Identified):
        return configuration.digest
    stated_alone = {name: value for name, value in configuration.items() if name != "origin"}
    return hashlib.sha256(json.dumps(stated_alone, sort_keys=True).encode()).hexdigest()


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"field {shown(twice)} stands there twice")
    return values


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number of JSON")


_DECODER = json.JSONDecoder(object_pairs_hook=_without_repetition, parse_constant=_refuse_constant)
