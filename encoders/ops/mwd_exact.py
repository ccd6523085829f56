"""A layer of MWD units as rows with binaries, by way of the distances z. OUTER with a declared gap.

With t_i = u_i (x_i - w_i) and z = max_i |t_i| in [near, far], a literal (i, s) is "s t_i is the maximum", s = +-1. Only
literals that reach `near` on the box can be true; with one binary b for each of them, and M >= far - min s t_i,

    z >= t_i,   z >= -t_i,   z <= s t_i + M (1 - b_is),   sum b_is = 1

hold exactly z = max_i |t_i|; with one literal left it needs no binary. The Gaussian link is a curve in z and enters as
strips (`piecewise`), whose height is the gap; the linear link is an equation. Constants are rounded outward.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from encoders.box import Box
from encoders.rounding import ELEMENTARY_FUNCTION_ULPS, add_down, add_up, unit_roundoff, widen
from encoders.views.distances import DistanceLayer
from encoders.views.envelope import ElementwiseEnvelope, offsets_at_ends, reach_of
from encoders.views.piecewise import piecewise
from encoders.views.relaxation import Relaxation, Rows, assembled

# Binaries of one layer that are worth handing to a solver.
MOST_LITERALS = 2000
# Weights of a (dense) layer beyond which literals are not even counted.
MOST_WEIGHTS = 1_000_000
# exp(-z^2) is concave below 1/sqrt(2) and convex above.
INFLECTION = 0.5**0.5
# As the float misses 1/sqrt(2) by at most 2^-53 and |f'''| < 4, f bends the wrong way by less than this between them.
BEND = 1e-40
# By how much the computed derivative may miss the exact one, in units of roundoff: the square and the exponential err
# by 20 of their own sizes, and z^2 f'(z) is at most 1.
DERIVATIVE_ROUNDINGS = 128.0
# Halvings that place a point whose tangent has the chord's slope.
TOUCHING_STEPS = 40


def exact_mwd(op: DistanceLayer, box: Box, segments: int) -> Relaxation:
    """Return the rows of a layer on one box (batch 1), at most `segments` parts for each curve.

    Auxiliary columns: the distances, then those of the strips. Binaries: of strips, then literals, in the order of
    units. Raises ValueError where the box is unbounded or the layer needs too many binaries.
    """
    check_size(*op.weight.shape)
    near, far = (end.detach().cpu().double().flatten() for end in op.distance_range(box))
    if not bool(far.isfinite().all()):
        raise ValueError("mwd has rows with binaries on bounded boxes only")
    units, inputs = op.weight.shape
    distances = Box.unchecked(near.unsqueeze(0), far.unsqueeze(0))
    if op.has_linear_link:
        link = _linear_link(op)
    else:
        curve = piecewise(gaussian_interval, gaussian_lines, gaussian_derivative, distances, segments)
        link = _flipped(curve, op.negated.cpu().numpy())
    ends = [end.flatten().cpu().double().numpy() for end in (box.lower, box.upper)]
    parts = 0 if link.auxiliary is None else len(link.auxiliary[0])
    before = inputs + 2 * units + parts + link.binaries
    blocks, literals, error = _maximum_rows(op, ends, (near.numpy(), far.numpy()), before)
    # The link's columns [z; y; auxiliary; binaries] among [x; y; z; auxiliary; binaries; literals].
    places = np.concatenate(
        [inputs + units + np.arange(units), inputs + np.arange(units), np.arange(inputs + 2 * units, before)]
    )
    coordinates = link.matrix.tocoo()
    entries = (coordinates.coords[0], places[coordinates.coords[1]], coordinates.data)
    blocks.append(Rows(len(link.lower), [entries], link.lower, link.upper))
    none = (np.zeros(0), np.zeros(0))
    auxiliary = tuple(
        np.append(end.numpy(), more) for end, more in zip((near, far), link.auxiliary or none, strict=True)
    )
    return Relaxation(
        *assembled(blocks, before + literals),
        binaries=link.binaries + literals,
        auxiliary=(auxiliary[0], auxiliary[1]),
        # |d exp(-z^2) / dz| < 1, so an error of z is one of y at most.
        gap=link.gap + error,
    )


def check_size(units: int, inputs: int) -> None:
    """Return nothing; raise ValueError with an estimate if a dense layer is too large to look at in float64."""
    if units * inputs > MOST_WEIGHTS:
        raise ValueError(_too_large(units, inputs, f"up to {2 * units * inputs:,}"))


def _too_large(units: int, inputs: int, binaries: str) -> str:
    return (
        f"a layer of {units:,} mwd units on {inputs:,} inputs needs {binaries} binaries, more than the "
        f"{MOST_LITERALS:,} that rows with binaries are meant for; method 'exact' decides such networks by contraction"
    )


def _maximum_rows(
    op: DistanceLayer, ends: list[np.ndarray], distances: tuple[np.ndarray, np.ndarray], before: int
) -> tuple[list[Rows], int, float]:
    """Return the rows of z = max |t|, how many binaries they have behind `before` columns, and how far z may err."""
    units, inputs = op.weight.shape
    weight, attractor = (part.detach().cpu().double().numpy() for part in (op.weight, op.attractor))
    near, far = distances
    # Axis 0: the sign s. Least and greatest s t, moved outward by more than the rounding of a difference and a product.
    terms = np.stack([weight * (ends[0] - attractor), weight * (ends[1] - attractor)])
    moved = 8.0 * unit_roundoff(torch.float64) * weight * (np.abs(ends).max(axis=0) + np.abs(attractor)) + 1e-300
    least, most = np.stack([terms[0], -terms[1]]) - moved, np.stack([terms[1], -terms[0]]) + moved
    may_win = (most >= near[:, None]) & (weight > 0)
    count = may_win.sum(axis=(0, 2))
    unit, sign, place = np.nonzero(may_win.transpose(1, 0, 2))
    is_open = count[unit] > 1
    literals = int(is_open.sum())
    if literals > MOST_LITERALS:
        raise ValueError(_too_large(units, inputs, f"{literals:,}"))
    # z - s u x >= -s u w, of every term that is not constant.
    j, i = np.nonzero(weight)
    product = weight[j, i] * attractor[j, i]
    slack = 4.0 * unit_roundoff(torch.float64) * np.abs(product) + 1e-300
    pairs, z = np.arange(len(j)), inputs + units + j
    above = [
        Rows(len(j), [(pairs, z, 1.0), (pairs, i, -s * weight[j, i])], -s * product - slack, np.inf)
        for s in (1.0, -1.0)
    ]
    s, pairs, z = 1.0 - 2.0 * sign, np.arange(len(unit)), inputs + units + unit
    product = weight[unit, place] * attractor[unit, place]
    big = np.where(is_open, (far[unit] - least[sign, unit, place]) * (1.0 + 1e-15) + 1e-300, 0.0)
    size = np.abs(product) + np.abs(big)
    slack = 8.0 * unit_roundoff(torch.float64) * size + 1e-300
    chosen = np.flatnonzero(is_open)
    b = before + np.arange(literals)
    entries = [(pairs, z, 1.0), (pairs, place, -s * weight[unit, place]), (chosen, b, big[chosen])]
    below = Rows(len(unit), entries, -np.inf, big - s * product + slack)
    # A unit without weights has z = 0, which its column's ends say.
    of_unit = np.flatnonzero(count > 1)
    one = Rows(len(of_unit), [(np.searchsorted(of_unit, unit[chosen]), b, 1.0)], 1.0, 1.0)
    return [*above, below, one], literals, float(2.0 * slack.max(initial=0.0)) + 1e-300


def _linear_link(op: DistanceLayer) -> Relaxation:
    """Return y -+ z = bias over the columns [z; y]."""
    units = len(op.negated)
    at = np.arange(units)
    bias = np.zeros(units) if op.bias is None else op.bias.detach().cpu().double().numpy()
    sign = np.where(op.negated.cpu().numpy(), -1.0, 1.0)
    rows = Rows(units, [(at, at, sign), (at, units + at, 1.0)], bias, bias)
    return Relaxation(*assembled([rows], 2 * units))


def _flipped(curve: Relaxation, negated: np.ndarray) -> Relaxation:
    """Return the rows of y = 1 - f(z) for negated units, from those of f over [z; y; ...]: a y becomes a - a y."""
    units = len(negated)
    matrix = curve.matrix.copy()
    rows = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    is_output = (matrix.indices >= units) & (matrix.indices < 2 * units)
    turned = np.flatnonzero(is_output)[negated[matrix.indices[is_output] - units]]
    shift = np.zeros(matrix.shape[0])
    np.add.at(shift, rows[turned], matrix.data[turned])
    matrix.data[turned] *= -1.0
    lower, upper = (
        add(torch.from_numpy(end), torch.from_numpy(-shift)).numpy()
        for add, end in ((_add_down, curve.lower), (_add_up, curve.upper))
    )
    return Relaxation(matrix, lower, upper, None, curve.binaries, curve.auxiliary, curve.gap)


def _add_down(end: Tensor, shift: Tensor) -> Tensor:
    return torch.where(end.isinf(), end, add_down(end, shift))


def _add_up(end: Tensor, shift: Tensor) -> Tensor:
    return torch.where(end.isinf(), end, add_up(end, shift))


def gaussian_interval(box: Box) -> Box:
    """Return the range of exp(-z^2), which falls, on boxes of z >= 0; rounded outward."""
    return Box.unchecked(_enclose(box.upper).lower, _enclose(box.lower).upper)


def gaussian_derivative(z: Tensor) -> Tensor:
    """Return the derivative -2 z exp(-z^2) of the Gaussian link."""
    return -2.0 * z * torch.exp(-z * z)


def gaussian_lines(box: Box) -> ElementwiseEnvelope:
    """Return parallel lines around exp(-z^2) on boxes of z >= 0, with the slope of the chord; rounded outward.

    Where the curve is concave, the ends of the box have the least difference from any line, and a tangent bounds the
    greatest; where it is convex, the other way round. A box with the inflection inside is taken in two parts.
    """
    low, high = _enclose(box.lower), _enclose(box.upper)
    slope = ((high.upper - low.upper) / (box.upper - box.lower)).nan_to_num(0.0, 0.0, 0.0).clamp(-1.0, 0.0)
    bend = torch.minimum(torch.maximum(torch.full_like(box.lower, INFLECTION), box.lower), box.upper)
    concave, convex = Box.unchecked(box.lower, bend), Box.unchecked(bend, box.upper)
    ends = [offsets_at_ends(_enclose(part.lower), _enclose(part.upper), part, slope) for part in (concave, convex)]
    least = torch.minimum(ends[0][0], _tangent_offset(convex, slope, -1.0)) - BEND
    greatest = torch.maximum(ends[1][1], _tangent_offset(concave, slope, 1.0)) + BEND
    return ElementwiseEnvelope(slope, least, slope, greatest, reach_of(box))


def _enclose(z: Tensor) -> Box:
    """Return enclosures of exp(-z^2): the square's rounding moves it by z^2 units of roundoff of its own size."""
    square = z * z
    lower, upper = torch.exp(-square * (1.0 + 2.0**-51)), torch.exp(-square * (1.0 - 2.0**-51))
    return Box.unchecked(*widen(lower, upper, ELEMENTARY_FUNCTION_ULPS))


def _tangent_offset(part: Box, slope: Tensor, sign: float) -> Tensor:
    """Return the greatest (sign 1: concave part) or least (-1: convex part) of a tangent minus slope z on the part.

    Any tangent point is sound; this one has nearly the given slope.
    """
    low, high = part.lower, part.upper
    for _ in range(TOUCHING_STEPS):
        middle = (low + high) * 0.5
        # The derivative falls on the concave part and rises on the convex one.
        later = (gaussian_derivative(middle) - slope) * sign > 0
        low, high = torch.where(later, middle, low), torch.where(later, high, middle)
    at = _enclose(low)
    least, greatest = offsets_at_ends(at, at, Box.unchecked(low, low), slope)
    difference = gaussian_derivative(low) - slope
    turns = torch.maximum(sign * difference * (part.lower - low), sign * difference * (part.upper - low))
    missed = DERIVATIVE_ROUNDINGS * unit_roundoff(low.dtype) * (part.upper - part.lower)
    away = (turns.clamp(min=0.0) + missed) * (1.0 + 2.0**-48)
    # The sum of the two is rounded once more.
    bound = greatest + away if sign > 0 else least - away
    return bound + sign * (bound.abs() * 2.0**-51 + 1e-300)
