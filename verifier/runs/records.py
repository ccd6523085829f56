"""A record of an input: one JSON object a line, untrusted text until `verifier.runs.record_fields` has looked at it.

What a record claims (brackets, a witness at a distance), and whether a later one of the same input says less.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any

from verifier.verdict import Bracket, Strength

SCHEMA = 1

Record = Mapping[str, Any]


class RecordError(ValueError):
    """A record is not one, or contradicts itself or the run it stands in."""


def parse_record(line: bytes) -> dict[str, Any]:
    """Return the object that a line holds; RecordError if it is not exactly one JSON object."""
    try:
        text = line.decode("utf-8")
        record = json.loads(text, object_pairs_hook=_without_repetition, parse_constant=_refuse_constant)
        if "\\u" in text:
            # A lone surrogate is no character, and cannot be printed.
            json.dumps(record, ensure_ascii=False).encode("utf-8")
    except (ValueError, RecursionError) as error:
        raise RecordError(f"not a record: {str(error) or 'nested too deep'}") from None
    if not isinstance(record, dict):
        raise RecordError("not a record: it holds no object")
    return record


def configuration_digest(configuration: Mapping[str, Any]) -> str:
    """Return the digest of what identifies a run: all of its configuration but where model and data were found."""
    stated = {name: value for name, value in configuration.items() if name != "origin"}
    return hashlib.sha256(json.dumps(stated, sort_keys=True).encode()).hexdigest()


def bracket_of(record: Record) -> Bracket:
    """Return the bracket that a record of a correctly classified input holds (null is infinity)."""
    lower, upper, trusted = (
        math.inf if end is None else end for end in (record["lower"], record["upper"], record.get("trusted", -1.0))
    )
    strength, method = Strength(record["strength"]), record["lower_method"]
    if strength is Strength.TRUSTED:
        # Records of before there were trusted ends: the one end they have is only trusted.
        return Bracket(upper=upper, upper_method=record["upper_method"], trusted=lower, trusted_method=method)
    return Bracket(lower, upper, method, record["upper_method"], strength, trusted, record.get("trusted_method", ""))


def brackets_of(record: Record, command: str) -> list[Bracket]:
    """Return every bracket that a record holds: none where it claims nothing, several in a comparison."""
    if command == "compare":
        return [bracket_of(answer) for answer in record["methods"].values()]
    if command == "robustness" or (command == "certify" and record["correct"]):
        return [bracket_of(record)]
    return []


def claimed_distance(record: Record, command: str) -> float | None:
    """Return the distance at which a record claims a witness, or None where it claims none."""
    if command == "attack":
        distance = record["distance"] if record["correct"] else None
        return None if distance is None else float(distance)
    nearest = min((bracket.upper for bracket in brackets_of(record, command)), default=math.inf)
    return None if math.isinf(nearest) else nearest


def weakened(before: Record, after: Record, command: str) -> str | None:
    """Return in what a later record of an input says less than, or contradicts, an earlier one; None if in nothing."""
    for name in ("label", "prediction", "model", "data"):
        if before[name] != after[name]:
            return f"{name} was {shown(before[name])} and is {shown(after[name])}"
    if command == "compare":
        lost = [name for name, answer in before["methods"].items() if after["methods"].get(name) != answer]
        return f"what it says of method {lost[0]!r} has changed" if lost else None
    if command == "attack":
        first, second = (claimed_distance(record, command) for record in (before, after))
        grown = first is not None and (second is None or second > first)
        return f"its distance was {first!r} and is {second!r}" if grown else None
    for first_bracket, second_bracket in zip(brackets_of(before, command), brackets_of(after, command), strict=True):
        if second_bracket.lower < first_bracket.lower or second_bracket.upper > first_bracket.upper:
            ends = [(bracket.lower, bracket.upper) for bracket in (first_bracket, second_bracket)]
            return f"its bracket was {ends[0]} and is {ends[1]}"
    tried = [record.get("tried", []) for record in (before, after)]
    tried = [set(radii) if isinstance(radii, list) else {radii} for radii in tried]
    fewer = tried[0] - tried[1] if command == "certify" else max(tried[1]) < max(tried[0])
    return "radii that were tried are gone" if fewer else None


def shown(value: Any) -> str:
    """Return a value in a few words, whatever it is."""
    if isinstance(value, list | dict):
        return f"a {'list' if isinstance(value, list) else 'nested object'} of {len(value)}"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"field {shown(twice)} stands there twice")
    return found


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number of JSON")
