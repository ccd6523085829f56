"""Planes above the bends of a network's first hinges, which see every input: tighter than the line above.

The line above y = max(z, left z) knows of z = w x + b its box alone. Over a box of the inputs any affine function p
with p >= z and p >= left z there lies above y, too, and the best of these touch y at every corner of the box
(Tjandraatmadja et al. 2020; Anderson et al. 2020). Here p = g x + d with g between left w and w, coordinate by
coordinate: g = w (left + (1 - left) s), and d is the least that both inequalities allow, bounded with every rounding.
Any shares s in [0, 1] give such a plane, equal shares the line. What is stored gives good ones: a point r of the box,
as shares of its sides, and for every unit a threshold t; an input counts in full where the point lies well below t, and
not at all where it lies well above. So one point names planes of all units that together are tight near it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from encoders.network import INPUT
from verifier.certificates.error import CertificateError
from verifier.certificates.plane_points import PlanePoints
from verifier.certificates.split_program import SplitProgram
from verifier.certificates.sweep import Planes, Sweep

# Of what is stored: steps of a coordinate of a point, and of a threshold.
POINT_STEPS, THRESHOLD_STEPS = 255, 8192
# By how much a share falls from where a coordinate lies a whole side further from the threshold.
SHARPNESS = 3.0
# Numbers of planes that are held side by side, 64 MiB, and that are made at once: what a core keeps close.
MOST_NUMBERS, CACHED = 1 << 23, 1 << 17


@dataclass(frozen=True, eq=False)
class UnitPlanes:
    """Ends of the boxes of units of one node that slopes and planes prove.

    name: of the node. places, ends: `(k,)`, a flattened unit, and 1 for its lower end, -1 for its upper. columns:
    `(c,)`, places among all hinge units before the node; slopes: `(k, c)` in steps of 1/255. planes: of each end.
    """

    name: str
    places: np.ndarray
    ends: np.ndarray
    columns: np.ndarray
    slopes: np.ndarray
    planes: PlanePoints


def tightened_by_planes(program: SplitProgram, given: UnitPlanes) -> None:
    """Meet the one box of the node just taken in with what planes prove; CertificateError if they are none."""
    size = program.boxes[given.name].lower.numel()
    _check(program, given, size)
    lower, upper = np.full((1, size), -np.inf), np.full((1, size), np.inf)
    found = np.empty(len(given.places))
    for part, planes in _parts(program, given.planes):
        rows = np.zeros((len(part), size))
        rows[np.arange(len(part)), given.places[part]] = given.ends[part]
        slopes = np.zeros((len(part), program.units))
        slopes[:, given.columns] = given.slopes[part] / POINT_STEPS
        found[part] = program.bounds(given.name, rows, None, slopes, None, planes=planes)
    for place, end, bound in zip(given.places.tolist(), given.ends.tolist(), found.tolist(), strict=True):
        if end > 0:
            lower[0, place] = max(lower[0, place], bound)
        else:
            upper[0, place] = min(upper[0, place], -bound)
    program.meet(given.name, lower, upper)


class EndPlanes:
    """The planes of some ends of boxes `(k,)`, made so many at a time: at most `most`."""

    def __init__(self, program: SplitProgram, given: UnitPlanes, places: np.ndarray, ends: np.ndarray) -> None:
        self._maker, self._points = PlaneMaker(program, given.planes.units), given.planes
        self.most = most_rows(len(given.planes.units), given.planes.points.shape[1])
        rows = {key: row for row, key in enumerate(zip(given.places.tolist(), given.ends.tolist(), strict=True))}
        asked = zip(places.tolist(), ends.tolist(), strict=True)
        self._rows = np.array([rows.get(key, -1) for key in asked], dtype=np.int64)

    def of(self, which: np.ndarray, groups: np.ndarray) -> Planes:
        """Return the planes of some of the ends; groups: `(batch,)`, which of these each row takes.

        An end without planes has the least that lies above, which is no better than its line.
        """
        return self._maker.planes(self._points, self._rows[which], groups)


def check_points(program: SplitProgram, points: PlanePoints, rows: int, what: str) -> None:
    """Raise CertificateError unless points name planes of a program for so many rows; what: these are."""
    values = program.boxes[program.hinges[0].name].lower[0].numel() if program.hinges else 0
    points.check(program.boxes[INPUT].lower[0].numel(), values, rows, what)


def made_planes(program: SplitProgram, points: PlanePoints) -> Planes:
    """Return the planes of all rows, about the one box of a program that holds the first hinge."""
    rows = np.arange(len(points))
    return PlaneMaker(program, points.units).planes(points, rows, rows)


def most_rows(units: int, inputs: int) -> int:
    """Return of how many rows planes are held side by side, at least one."""
    return max(1, MOST_NUMBERS // max(1, units * inputs))


def _parts(program: SplitProgram, points: PlanePoints) -> Iterator[tuple[np.ndarray, Planes]]:
    """Return (places of rows, their planes), so many as are held side by side."""
    maker, most = PlaneMaker(program, points.units), most_rows(len(points.units), points.points.shape[1])
    for start in range(0, len(points), most):
        part = np.arange(start, min(start + most, len(points)))
        yield part, maker.planes(points, part, np.arange(len(part)))


class PlaneMaker:
    """The first hinge's units as functions of the input, walked back once, and planes above them.

    program: with one box, that holds the first hinge. units: `(p,)`, places among its values.
    """

    def __init__(self, program: SplitProgram, units: np.ndarray) -> None:
        assert len(program.boxes[INPUT].lower) == 1
        self.units, self.hinge = units, program.hinges[0]
        lower, upper = program.ends(self.hinge.name)
        # What a unit's value is below anyway, where no plane can be stated in numbers.
        self.most = np.maximum(upper[0, units], 0.0)
        count = len(units)
        rows = np.zeros((count, lower.shape[1]))
        rows[np.arange(count), units] = -1.0
        # Of y >= z and y >= left z: what both leave of g x, from the rows -z and -left z.
        self.sides = [
            Sweep(program.rows(), self.hinge.source, rows * side, None, None, None) for side in (1.0, self.hinge.left)
        ]
        inputs = program.boxes[INPUT].lower.numel()
        self.weights = -self.sides[0].reduced.get(INPUT, np.zeros((count, inputs)))

    def planes(self, points: PlanePoints, rows: np.ndarray, groups: np.ndarray) -> Planes:
        """Return the planes of some rows `(k,)` of points, in their order; -1 for what lies above in any case.

        groups: `(batch,)`, which of these each row that is bounded takes.
        """
        units, inputs = self.weights.shape
        matrix, offset = np.zeros((len(rows), units, inputs)), np.tile(self.most, (len(rows), 1))
        named = np.flatnonzero(rows >= 0)
        most = max(1, CACHED // max(1, units * inputs))
        for part in (named[start : start + most] for start in range(0, len(named), most)):
            matrix[part], offset[part] = self._planes(points[rows[part]])
        return Planes(self.hinge.name, self.units, matrix, offset, groups)

    def _planes(self, points: PlanePoints) -> tuple[np.ndarray, np.ndarray]:
        """Return (g, d) of all units, `(k, p, inputs)` and `(k, p)`."""
        at, thresholds = points.points[:, None] / POINT_STEPS, points.thresholds / THRESHOLD_STEPS
        # The side of the box where z is least counts as 0.
        at = np.where(self.weights >= 0, at, 1.0 - at)
        shares = np.clip(0.5 + SHARPNESS * (thresholds[:, :, None] - at), 0.0, 1.0)
        slopes = self.weights * (self.hinge.left + (1.0 - self.hinge.left) * shares)
        count, units, inputs = slopes.shape
        flat = slopes.reshape(count * units, inputs)
        least = np.minimum(*(side.repeated(count).with_input(flat).bound() for side in self.sides))
        least = least.reshape(count, units)
        holds = np.isfinite(least) & np.isfinite(slopes).all(axis=2)
        return np.where(holds[:, :, None], slopes, 0.0), np.where(holds, -least, self.most)


def _check(program: SplitProgram, given: UnitPlanes, size: int) -> None:
    name = repr(given.name)
    for values in (given.places, given.ends, given.columns):
        if values.ndim != 1 or values.dtype.kind not in "iu":
            raise CertificateError(f"planes of {name}: places, ends and columns must be vectors of integers")
    places, columns = given.places, given.columns
    if len(places) and not 0 <= int(places.min()) <= int(places.max()) < size:
        raise CertificateError(f"planes of {name}: a unit does not exist")
    if len(given.ends) != len(places) or not np.isin(given.ends, (-1, 1)).all():
        raise CertificateError(f"planes of {name}: its ends must be -1 or 1, one for each unit")
    if len(np.unique(columns)) != len(columns) or (
        len(columns) and not 0 <= int(columns.min()) <= int(columns.max()) < program.units
    ):
        raise CertificateError(f"planes of {name}: a column is named twice, or does not exist")
    if given.slopes.dtype.kind != "u" or given.slopes.shape != (len(places), len(columns)):
        raise CertificateError(f"planes of {name}: slopes of type {given.slopes.dtype}, shape {given.slopes.shape}")
    check_points(program, given.planes, len(places), name)
