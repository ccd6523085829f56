"""The leaves of trees of signs: their numbers, and what these prove."""

from __future__ import annotations

import math
from typing import Any

from verifier_check.bounds import Program
from verifier_check.boxes import Boxes, Cuts
from verifier_check.file import Array
from verifier_check.integers import fixed
from verifier_check.planes import Planes
from verifier_check.refusals import Refused

STEPS = 255


def leaf_bound(
    program: Program,
    row: dict[int, int],
    boxes: Boxes,
    signs: dict[int, int],
    numbers: Any,
    name: str | None = None,
    planes: Planes | None = None,
) -> int | None:
    """Return the bound of a row of a node, by default of the output, under signs; None where nothing lies there."""
    if any(signs.get(unit) != sign for unit, sign in boxes.signs.items()):
        raise Refused("a leaf takes boxes that hold under other signs than its own")
    cuts: Cuts = {}
    for unit, sign in signs.items():
        source, i = program.sources[unit]
        own = cuts.setdefault(source, {})
        low, high = own.get(i, (boxes.ends[source][0][i], boxes.ends[source][1][i]))
        own[i] = (max(low, 0), high) if sign > 0 else (low, min(high, 0))
        if own[i][0] > own[i][1]:
            return None
    slopes, multipliers = numbers
    if boxes.is_empty:
        return None
    of = program.names[-1] if name is None else name
    return program.least(of, row, boxes, cuts, slopes, by_node(program, multipliers), planes)


def by_node(program: Program, multipliers: dict[int, int]) -> dict[str, dict[int, int]]:
    """Return multipliers of units as those of the values that their hinges read."""
    found: dict[str, dict[int, int]] = {}
    for unit, value in multipliers.items():
        name, i = program.sources[unit]
        own = found.setdefault(name, {})
        own[i] = own.get(i, 0) + value
    return found


class LeafNumbers:
    """The numbers of leaves: slopes in steps of 1/255 and upper halves of float32, or floats."""

    def __init__(self, arrays: dict[str, Array], units: int, bits: int) -> None:
        self.arrays, self.bits, self.steps = arrays, bits, arrays["slopes"]
        planes = arrays["multipliers"]
        if self.steps.kind != "|u1" or planes.kind != "|u1" or len(self.steps.shape) != 2 or len(planes.shape) != 3:
            raise Refused("short numbers must be bytes, slopes (units, sets), multipliers (2, units, sets)")
        self.short = self.steps.shape[1]
        if self.steps.shape[0] != units or planes.shape != (2, units, self.short):
            raise Refused(f"slopes {self.steps.shape}, multipliers {planes.shape}, {units} open units")
        halves = zip(planes.values[: units * self.short], planes.values[units * self.short :], strict=True)
        if any(high & 127 == 127 and low & 128 for high, low in halves):
            raise Refused("a multiplier is no finite number")
        marks = arrays["long"].values if "long" in arrays else [0] * self.short
        long = ("long.slopes", "long.multipliers") if "long" in arrays else ()
        shape = (sum(map(bool, marks)), units)
        if len(marks) - shape[0] != self.short or any(arrays[n].shape != shape for n in long):
            raise Refused("long numbers and their marks do not go together")
        self.count, self.places, counts = len(marks), list[tuple[bool, int]](), [0, 0]
        for mark in map(bool, marks):
            self.places.append((mark, counts[mark]))
            counts[mark] += 1

    def of(self, number: int, units: list[int], signs: dict[int, int]) -> tuple[dict[int, int], dict[int, int]]:
        """Return (slopes, multipliers) by unit of a set, as they count under signs."""
        is_long, at = self.places[number]
        slopes, multipliers, one = {}, {}, 1 << self.bits
        for k, unit in enumerate(units):
            if is_long:
                slope, value = (
                    self.arrays[f"long.{name}"].values[at * len(units) + k] for name in ("slopes", "multipliers")
                )
                slopes[unit] = fixed(min(max(float(slope), 0.0), 1.0), self.bits)
            else:
                place, planes = k * self.short + at, self.arrays["multipliers"].values
                slopes[unit] = self.steps.values[place] * one // STEPS
                half = planes[place] << 8 | planes[len(units) * self.short + place]
                sign, exponent, digits = half >> 15, half >> 7 & 255, half & 127
                # 2^-133 is the unit of a bfloat16 without its exponent.
                value = math.ldexp((digits + 128 if exponent else digits) * (-1) ** sign, max(exponent, 1) - 134)
            if value:
                multipliers[unit] = fixed(float(value), self.bits) * signs.get(unit, 1)
        return slopes, multipliers
