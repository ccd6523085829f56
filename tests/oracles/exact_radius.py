"""The exact distance to the nearest unsafe point, in rationals, of networks with one or two inputs that stay rational.

The domain is cut into convex polygons on which every node is affine (`tests.oracles.polygons` cuts them); the unsafe
part of each, where another class is at least as large, is a convex polygon again, and the distance to one is found at
a corner, at a crossing with the lines on which a norm bends, or at the foot of a perpendicular. With one input the
polygons are segments of the second axis' zero.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache

import numpy as np

from encoders.network import INPUT, Network
from encoders.ops import LogSoftmax, Mwd, Sigmoid, Softmax, Tanh
from tests.oracles.definitions import FRACTIONS, Values, bent, finish, straight
from tests.oracles.polygons import Plane, Point, clipped, value

ZERO, ONE = Fraction(0), Fraction(1)
SHIFT = np.array([ZERO, ZERO, ONE], dtype=object)
# Last ops of vectors that keep the order of all outputs.
ORDERED = Sigmoid | Tanh | Softmax | LogSoftmax
# A network that is cut into more pieces takes too long.
MOST_PIECES = 400
# Far more than the rounding of distances in boxes of this size.
ROUGHLY = 1e-6


class TooManyPieces(Exception):
    """The network is for another oracle."""


@dataclass(frozen=True, eq=False)
class ExactOracle:
    """The pieces of a network on a box: polygons, and the scores of the classes there, whose order is the outputs'.

    A last sigmoid, tanh, softmax, its logarithm or Gaussian link of units of one type keeps the order, and is left out.
    """

    pieces: tuple[tuple[tuple[Point, ...], tuple[Plane, ...]], ...]

    @staticmethod
    def of(network: Network, least: float, greatest: float) -> ExactOracle:
        """Return the oracle over the box; raises TooManyPieces."""
        a, b = Fraction(least), Fraction(greatest)
        single = math.prod(network.input_shape) == 1
        corners = [(a, ZERO), (b, ZERO)] if single else [(a, a), (b, a), (b, b), (a, b)]
        x = np.full((3, math.prod(network.input_shape)), ZERO, dtype=object)
        for axis in range(x.shape[1]):
            x[axis, axis] = ONE
        states = [(list(dict.fromkeys(corners)), {INPUT: x.reshape(3, *network.input_shape)})]
        last_use = {name: i for i, node in enumerate(network.nodes) for name in node.inputs}
        for i, node in enumerate(network.nodes):
            found = []
            for polygon, values in states:
                inputs = [values[name] for name in node.inputs]
                kept = {name: v for name, v in values.items() if last_use.get(name, -1) > i}
                for part, output in _after(node.op, i == len(network.nodes) - 1, polygon, inputs):
                    found.append((part, {**kept, node.name: output}))
            states = found
            if len(states) > MOST_PIECES:
                raise TooManyPieces
        name = network.output.name
        return ExactOracle(tuple((tuple(p), tuple(map(tuple, v[name].reshape(3, -1).T))) for p, v in states))

    def __post_init__(self) -> None:
        # One cache an oracle: the unsafe polygons serve all inputs of a class and all norms.
        object.__setattr__(self, "unsafe", cache(self._unsafe))

    def _unsafe(self, reference: int) -> list[list[Point]]:
        found = []
        for polygon, scores in self.pieces:
            for k, score in enumerate(scores):
                if k != reference:
                    lead = tuple(s - own for s, own in zip(score, scores[reference], strict=True))
                    part = clipped(list(polygon), lead)  # type: ignore[arg-type]
                    if part:
                        found.append(list(dict.fromkeys(part)))
        return found

    def distance(self, centre: Sequence[float], reference: int, norm: str) -> Fraction | None:
        """Return the distance to the nearest unsafe point of the box, its square in the 2-norm; None: all is safe."""
        at = (*(Fraction(c) for c in centre), ZERO)[:2]
        polygons = self.unsafe(reference)  # type: ignore[attr-defined]
        # Distances in floats, of polygons with rounded corners, tell which are worth the fractions.
        rough = [_distance([(float(x), float(y)) for x, y in p], (float(at[0]), float(at[1])), norm) for p in polygons]
        nearest = min(rough, default=0.0) + ROUGHLY
        return min((_distance(p, at, norm) for p, r in zip(polygons, rough, strict=True) if r <= nearest), default=None)


def _after(op, last: bool, polygon: list[Point], inputs: list[Values]) -> list[tuple[list[Point], Values]]:
    """Return the parts of a polygon on which an op is affine, and its values there."""
    found = straight(FRACTIONS, op, inputs, SHIFT)
    if found is not None:
        return [(polygon, found)]
    (x,) = inputs
    if last and isinstance(op, ORDERED):
        return [(polygon, x)]
    if last and isinstance(op, Mwd) and op.link is None:
        assert len(set(op.negated.tolist())) == 1, "units of two types are not compared by their distances"
        op = Mwd(op.weight, op.attractor, op.negated, None, "linear")
    candidates = bent(FRACTIONS, op, x, SHIFT)
    assert candidates is not None, f"{op.kind} is not piecewise affine"
    parts: list[tuple[list[Point], list[Values]]] = [(polygon, [])]
    for of_unit in candidates:
        parts = [(p, [*w, winner]) for part, w in parts for p, winner in _split(part, of_unit)]
        if len(parts) > MOST_PIECES:
            raise TooManyPieces
    shape = op.output_shape(x.shape[1:])
    return [(p, finish(FRACTIONS, op, np.stack(winners, axis=1), shape, SHIFT)) for p, winners in parts]


def _split(polygon: list[Point], candidates: list[Values]) -> list[tuple[list[Point], Values]]:
    """Return the parts of a polygon on which one of the candidates is the greatest, and that candidate."""
    planes = list(dict.fromkeys(tuple(candidate) for candidate in candidates))
    heights = [[value(plane, corner) for corner in polygon] for plane in planes]
    greatest = [max(column) for column in zip(*heights, strict=True)]
    for plane, height in zip(planes, heights, strict=True):
        if height == greatest:
            return [(polygon, np.array(plane, dtype=object))]
    parts = []
    for plane in planes:
        part = polygon
        for other in planes:
            if other != plane and part:
                part = clipped(part, tuple(p - o for p, o in zip(plane, other, strict=True)))  # type: ignore[arg-type]
        part = list(dict.fromkeys(part))
        # What is thinner than the polygon lies on the border of another part.
        if part and _dimension(part) == _dimension(polygon):
            parts.append((part, np.array(plane, dtype=object)))
    return parts


def _dimension(polygon: list[Point]) -> int:
    (x, y), *others = polygon
    steps = [(a - x, b - y) for a, b in others if (a, b) != (x, y)]
    if not steps:
        return 0
    return 1 + any(steps[0][0] * b != steps[0][1] * a for a, b in steps)


def _distance(polygon: list[Point], centre: Point, norm: str) -> Fraction:
    """Return the distance of a convex polygon, its square in the 2-norm."""
    moved = [(x - centre[0], y - centre[1]) for x, y in polygon]
    if norm == "2":
        return _squared(moved)
    parts = [moved]
    for a, b in {"1": [(1, 0), (0, 1)], "inf": [(1, 1), (1, -1)]}[norm]:
        parts = [half for part in parts for sign in (1, -1) if (half := clipped(part, (sign * a, sign * b, 0)))]
    size = {"1": lambda x, y: abs(x) + abs(y), "inf": lambda x, y: max(abs(x), abs(y))}[norm]
    return min(size(x, y) for part in parts for x, y in part)


def _squared(polygon: list[Point]) -> Fraction:
    """Return the squared distance of the origin from a convex polygon."""
    if _dimension(polygon) == 2:
        turns = [a * d - b * c for (a, b), (c, d) in zip(polygon, [*polygon[1:], polygon[0]], strict=True)]
        if min(turns) >= 0 or max(turns) <= 0:
            return ZERO
    best = min(x * x + y * y for x, y in polygon)
    for (a, b), (c, d) in zip(polygon, [*polygon[1:], polygon[0]], strict=True):
        step = (c - a, d - b)
        length = step[0] ** 2 + step[1] ** 2
        share = -(a * step[0] + b * step[1])
        if 0 < share < length:
            best = min(best, a * a + b * b - share * share / length)
    return best
