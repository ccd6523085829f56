"""What each stage of several methods took for an input or a box, as JSON holds it: a run tells it, nobody checks it."""

from __future__ import annotations

from typing import Any

from verifier.answers import Spent
from verifier.fields import Kind, RecordError, check_fields, is_object, kinds_of, read_object, write_fields


def _holds(value: Any) -> bool:
    if not isinstance(value, list) or not all(map(is_object, value)):
        return False
    try:
        for each in value:
            check_fields(kinds_of(Spent), each)
    except RecordError:
        return False
    return True


SPENDING = Kind(
    _holds,
    "a list of stages with seconds and outcomes",
    lambda value: tuple(read_object(Spent, each, "spent.") for each in value),
    lambda value: [write_fields(spent) for spent in value],
)
