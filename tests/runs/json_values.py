"""The values inside a JSON value, with their places: what forgers alter one by one."""

from collections.abc import Iterator
from typing import Any


def leaves(value: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Yield (place, value) of every number, text, truth value and null of a JSON value."""
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(inner, (*place, key))
    else:
        yield place, value
