"""Floats as the integers that they are, times a power of two."""

from __future__ import annotations

from collections.abc import Iterable


def whole(values: Iterable[float], scale: int = 0) -> tuple[list[int], int]:
    """Return integers and a scale of at least the given one: the values are integers / 2^scale, exactly."""
    ratios = [value.as_integer_ratio() for value in values]
    scale = max([scale, *(bottom.bit_length() - 1 for _, bottom in ratios)])
    return [top << (scale - bottom.bit_length() + 1) for top, bottom in ratios], scale


def fixed(value: float, bits: int) -> int:
    """Return a float in units of 2^-bits, rounded down."""
    (top,), scale = whole([value])
    return (top << bits) >> scale
