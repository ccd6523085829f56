"""An oracle for networks of hinges with two inputs: the exact least margin over a box, in rationals.

The box is cut, unit by unit and layer by layer, into convex polygons on which the network is affine; an affine function
is least at a corner of one of them. Written from the definition and independent of every bound in the package.
"""

from collections.abc import Iterable, Sequence
from fractions import Fraction

from encoders.network import Network
from encoders.ops import Abs, Affine, LeakyRelu, Relu
from encoders.property import Halfspaces

Point = tuple[Fraction, Fraction]
# An affine function of the two inputs: (a, b, constant).
Plane = tuple[Fraction, Fraction, Fraction]


def value(plane: Plane, point: Point) -> Fraction:
    return plane[0] * point[0] + plane[1] * point[1] + plane[2]


def scaled(plane: Plane, factor: Fraction) -> Plane:
    return plane[0] * factor, plane[1] * factor, plane[2] * factor


def clipped(polygon: list[Point], plane: Plane) -> list[Point]:
    """Return the part of a convex polygon where the plane is >= 0 (Sutherland, Hodgman 1974)."""
    result: list[Point] = []
    for i, here in enumerate(polygon):
        before = polygon[i - 1]
        at, last = value(plane, here), value(plane, before)
        if (at > 0 > last) or (at < 0 < last):
            share = last / (last - at)
            result.append((before[0] + share * (here[0] - before[0]), before[1] + share * (here[1] - before[1])))
        if at >= 0:
            result.append(here)
    return result


def least_margin(network: Network, lower: list[float], upper: list[float], reference: int) -> Fraction:
    """Return the exact minimum over the box of y_reference - max of the other outputs."""
    return min(
        value(planes[reference], corner) - value(planes[k], corner)
        for polygon, planes in pieces_of(network, lower, upper)
        for corner in polygon
        for k in range(len(planes))
        if k != reference
    )


def unsafe_points(
    network: Network, lower: list[float], upper: list[float], unsafe: Sequence[Halfspaces]
) -> list[Point]:
    """Return points of the box whose outputs lie in one of the closed polyhedra: none exactly if there is none.

    They are the corners of what is left of each piece once it is cut by every row, in rationals.
    """
    return unsafe_corners(pieces_of(network, lower, upper), unsafe)


def unsafe_corners(pieces: Iterable[tuple[list[Point], Sequence[Plane]]], unsafe: Sequence[Halfspaces]) -> list[Point]:
    """Return the corners of the parts of pieces whose outputs lie in one of the closed polyhedra."""
    found: list[Point] = []
    for polygon, planes in pieces:
        for halfspaces in unsafe:
            part = polygon
            for row, offset in zip(halfspaces.coefficients.tolist(), halfspaces.offsets.tolist(), strict=True):
                part = clipped(part, _combined([-Fraction(c) for c in row], planes, Fraction(offset))) if part else part
            found += part
    return found


def pieces_of(network: Network, lower: list[float], upper: list[float]) -> list[tuple[list[Point], list[Plane]]]:
    """Return polygons that cover the box, with the outputs as affine functions on each."""
    (a, b), (c, d) = ([Fraction(x) for x in end] for end in (lower, upper))
    zero, one = Fraction(0), Fraction(1)
    pieces = [([(a, b), (c, b), (c, d), (a, d)], [(one, zero, zero), (zero, one, zero)])]
    for node in network.nodes:
        op = node.op
        if isinstance(op, Affine):
            weight = [[Fraction(w) for w in row] for row in op.weight.double().tolist()]
            bias = [Fraction(0)] * len(weight) if op.bias is None else [Fraction(v) for v in op.bias.double().tolist()]
            pieces = [(polygon, [_combined(row, planes, v) for row, v in zip(weight, bias, strict=True)])
                      for polygon, planes in pieces]  # fmt: skip
            continue
        left = {Relu: zero, Abs: -one}.get(type(op))
        if left is None:
            assert isinstance(op, LeakyRelu)
            left = Fraction(op.slope)
        for unit in range(network.shapes[node.name][0]):
            halves = []
            for polygon, planes in pieces:
                for sign, factor in ((one, one), (-one, left)):
                    part = clipped(polygon, scaled(planes[unit], sign))
                    if part:
                        halves.append((part, [*planes[:unit], scaled(planes[unit], factor), *planes[unit + 1 :]]))
            pieces = halves
    return pieces


def _combined(row: list[Fraction], planes: Sequence[Plane], constant: Fraction) -> Plane:
    parts = [scaled(plane, weight) for weight, plane in zip(row, planes, strict=True) if weight]
    return (
        sum((p[0] for p in parts), start=Fraction(0)),
        sum((p[1] for p in parts), start=Fraction(0)),
        sum((p[2] for p in parts), start=constant),
    )
