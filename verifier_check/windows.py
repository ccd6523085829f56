"""Places of values in C order, and the cells of sliding windows."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any


def places_of(shape: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """Yield the indices of a shape in C order."""
    return itertools.product(*map(range, shape))


def place(index: Sequence[int], shape: Sequence[int]) -> int:
    """Return the place of an index in C order."""
    found = 0
    for i, size in zip(index, shape, strict=True):
        found = found * size + i
    return found


def window_cells(
    shape: Sequence[int], output: Sequence[int], kernel: Sequence[int], s: dict[str, Any]
) -> list[list[int]]:
    """Return for each output of one map the places of its window's cells, -1 in the padding, in C order."""
    found = []
    for row, column in places_of(output[1:]):
        top, left = row * s["stride"][0] - s["padding"][0], column * s["stride"][1] - s["padding"][1]
        cells = []
        for a, b in places_of(kernel):
            y, x = top + a * s.get("dilation", (1, 1))[0], left + b * s.get("dilation", (1, 1))[1]
            cells.append(y * shape[2] + x if 0 <= y < shape[1] and 0 <= x < shape[2] else -1)
        found.append(cells)
    return found
