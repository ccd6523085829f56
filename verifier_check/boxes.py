"""Boxes of the values of nodes, and balls of inputs, in integers rounded outward."""

from __future__ import annotations

import math
from typing import Any

from verifier_check.distances import Unit

Ends = tuple[list[int], list[int]]
# By node, by place: ends that replace those of the boxes in one part of a ball.
Cuts = dict[str, dict[int, tuple[int, int]]]


# By how little a box has one sign only: its nearer end over the other one is at most 2^-JUST.
JUST = 30


def only_just(low: int, high: int) -> bool:
    """Return whether a box has one sign, and only just so: rounded outward it may have both."""
    return 0 <= low <= high >> JUST or 0 <= -high <= -low >> JUST


class Boxes:
    """Ends of the values of nodes, in units of 2^-bits, and the lines around bends and curves that follow from them."""

    def __init__(self, ends: dict[str, Ends], signs: dict[int, int]) -> None:
        self.ends, self.signs, self.lines, self.is_empty = ends, signs, dict[tuple[Any, int], Any](), False

    def under(self, signs: dict[int, int], sources: dict[int, tuple[str, int]]) -> Boxes:
        """Return the boxes cut to where units have signs, beside those that they had."""
        made = Boxes({name: (low[:], high[:]) for name, (low, high) in self.ends.items()}, signs)
        made.is_empty = self.is_empty
        for unit, sign in signs.items():
            name, i = sources[unit]
            low, high = made.ends[name]
            if sign > 0:
                low[i] = max(low[i], 0)
            else:
                high[i] = min(high[i], 0)
            made.is_empty |= low[i] > high[i]
        return made


class Distances:
    """A layer of distances, of which no more than its range is used."""

    def __init__(self, source: str, units: list[Unit]) -> None:
        self.source, self.units = source, units


class Ball:
    """The points within a radius of a centre in the 2- or the 1-norm; all in units of 2^-bits, rounded outward.

    There c x is at least c centre - radius times the dual norm of c.
    """

    def __init__(self, norm: str, low: list[int], high: list[int], radius: int) -> None:
        self.norm, self.low, self.high, self.radius = norm, low, high, radius

    def least(self, slopes: list[int]) -> int:
        """Return a lower bound of a function with slopes in units of 2^-bits, in units of 2^-2bits."""
        length = max(map(abs, slopes), default=0) if self.norm == "1" else math.isqrt(sum(s * s for s in slopes)) + 1
        at_centre = sum(min(s * a, s * b) for s, a, b in zip(slopes, self.low, self.high, strict=True))
        return at_centre - self.radius * length

    def misses(self, low: list[int], high: list[int]) -> bool:
        """Return whether a box lies outside."""
        gaps = [max(a - c, d - b, 0) for a, b, c, d in zip(low, high, self.high, self.low, strict=True)]
        return sum(gaps) > self.radius if self.norm == "1" else sum(gap * gap for gap in gaps) > self.radius**2
