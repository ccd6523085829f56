"""Planes above the bends of a network's first hinges, in integers, for `verifier_check`; the standard library alone.

It follows docs/certificate-format.md. A plane p(x) = g x + d lies above y = max(z, a z) on the whole box of the inputs
where it lies above z and above a z there. The coefficients follow from what a certificate names, in whatever way: d is
made the least that both need.
"""

from __future__ import annotations

from typing import Any

from verifier_check.bounds import Program
from verifier_check.network import INPUT
from verifier_check.ops import Hinge
from verifier_check.refusals import Refused

POINT_STEPS, THRESHOLD_STEPS, SHARPNESS = 255, 8192, 3
# A share is a whole number of these.
SHARES = 2 * POINT_STEPS * THRESHOLD_STEPS
# Rows whose planes are kept: neighbouring leaves have the same.
KEPT = 64
# By hinge unit: coefficients of the inputs in units of 2^-bits, and d in units of 2^-2bits.
Planes = dict[int, tuple[list[int], int]]


class PlanePoints:
    """The points and thresholds that a certificate keeps under a prefix, one of each for every row."""

    def __init__(self, program: Program, arrays: dict[str, Any], prefix: str, rows: int) -> None:
        hinge = next((step for step in program.steps if isinstance(step, Hinge)), None)
        if hinge is None:
            raise Refused("planes lie above the first hinge, and there is none")
        self.program, self.hinge = program, hinge
        units, points, thresholds = (arrays[prefix + name] for name in ("units", "points", "thresholds"))
        if any(each.kind[1] not in "ui" for each in (units, points, thresholds)) or len(units.shape) != 1:
            raise Refused("units, points and thresholds of planes must be whole numbers")
        self.units, self.inputs = list(units.values), len(program.boxes.ends[INPUT][0])
        values = len(program.boxes.ends[hinge.source][0])
        if len(set(self.units)) != len(self.units) or not all(0 <= i < values for i in self.units):
            raise Refused("a unit with planes is named twice, or does not exist")
        if points.shape != (rows, self.inputs) or thresholds.shape != (rows, len(self.units)):
            raise Refused(f"points {points.shape} and thresholds {thresholds.shape} of planes for {rows} rows")
        self._points, self._thresholds = points.values, thresholds.values
        self._sides = [self._walked(i) for i in self.units]
        self._made: dict[int, Planes] = {}

    def of(self, row: int) -> Planes:
        """Return the planes of a row."""
        if row not in self._made:
            if len(self._made) >= KEPT:
                self._made.pop(next(iter(self._made)))
            count = len(self.units)
            point = self._points[row * self.inputs : (row + 1) * self.inputs]
            thresholds = self._thresholds[row * count : (row + 1) * count]
            self._made[row] = {
                self.hinge.first + unit: self._plane(sides, point, threshold)
                for unit, sides, threshold in zip(self.units, self._sides, thresholds, strict=True)
            }
        return self._made[row]

    def _walked(self, i: int) -> list[tuple[list[int], int, int]]:
        """Return functions of the input below -z and below -a z 2^shift: coefficients, constant, shift."""
        (top, shift), one, program = self.hinge.left, 1 << self.program.bits, self.program
        return [
            (*program.below(self.hinge.source, {i: -factor * one}, program.boxes, {}, None, {}), by)
            for factor, by in ((1, 0), (top, shift))
        ]

    def _plane(self, sides: list[tuple[list[int], int, int]], point: Any, threshold: int) -> tuple[list[int], int]:
        (top, shift), (left, _, _) = self.hinge.left, sides[0]
        rest, divisor = (1 << shift) - top, SHARES << shift
        level = SHARES // 2 + SHARPNESS * threshold * (SHARES // THRESHOLD_STEPS)
        fall = SHARPNESS * (SHARES // POINT_STEPS)
        slopes = []
        for value, at in zip(left, point, strict=True):
            # z falls with the coefficients of -z; its least value lies where an input counts as 0.
            share = min(max(level - fall * (at if value <= 0 else POINT_STEPS - at), 0), SHARES)
            slopes.append(-value * (top * SHARES + rest * share) // divisor)
        least = []
        low, high = self.program.boxes.ends[INPUT]
        for coefficients, constant, by in sides:
            both = ((g << by) + c for g, c in zip(slopes, coefficients, strict=True))
            least.append(
                (constant + sum(c * (a if c > 0 else b) for c, a, b in zip(both, low, high, strict=True))) >> by
            )
        return slopes, -min(least)
