"""What one MWD unit says about its inputs and its output, for `contraction`: compiled, and rounded outward.

A unit has z = max_i u_i |y_i - w_i| and a monotone link of it as output: exp(-z^2), or one minus that if negated;
with the linear link bias - z, or bias + z if negated. {z <= b} is a box of inputs, {z >= a} a clause over them
(DESIGN of this project). Every bound is moved outward by PAD and TINY, which cover all roundings here; literals are
numbered +(i+1) for y_i >= threshold and -(i+1) for y_i <= threshold. `kind` is NEGATED, LINEAR, both or 0.
"""

import math
from typing import Any

import numpy as np
from numba import njit

# Relative outward move after a few roundings and one elementary function: 16 ulps of float64, twice the trusted 8.
PAD = 16 * 2.0**-52
# Absolute outward move, far above every underflow error.
TINY = 1e-300

# Bits of a unit's kind.
NEGATED, LINEAR = 1, 2

Array = np.ndarray[Any, np.dtype[Any]]


@njit(cache=True)
def sum_down(a: float, b: float) -> float:
    """Return a lower bound of a + b; a may be infinite, b is finite."""
    return a if math.isinf(a) else a + b - (PAD * (abs(a) + abs(b)) + TINY)


@njit(cache=True)
def sum_up(a: float, b: float) -> float:
    """Return an upper bound of a + b; a may be infinite, b is finite."""
    return -sum_down(-a, -b)


@njit(cache=True)
def copy_into(target: Array, source: Array) -> None:
    """Write an array into another of its length; numba takes two seconds to compile `target[:] = source`."""
    for i in range(source.shape[0]):
        target[i] = source[i]


@njit(cache=True)
def link_lower(z_far: float, z_near: float, kind: int, bias: float) -> float:
    """Return a lower bound of the output over z in [z_near, z_far]."""
    if kind & LINEAR:
        return sum_down(z_near if kind & NEGATED else -z_far, bias)
    if kind & NEGATED:
        s = z_near * z_near * (1.0 - PAD)
        return max(0.0, -math.expm1(-s) * (1.0 - PAD) - TINY)
    s = z_far * z_far * (1.0 + PAD) + TINY
    return max(0.0, math.exp(-s) * (1.0 - PAD) - TINY)


@njit(cache=True)
def link_upper(z_far: float, z_near: float, kind: int, bias: float) -> float:
    """Return an upper bound of the output over z in [z_near, z_far]."""
    if kind & LINEAR:
        return sum_up(z_far if kind & NEGATED else -z_near, bias)
    if kind & NEGATED:
        s = z_far * z_far * (1.0 + PAD) + TINY
        return min(1.0, -math.expm1(-s) * (1.0 + PAD) + TINY)
    s = z_near * z_near * (1.0 - PAD)
    return min(1.0, math.exp(-s) * (1.0 + PAD) + TINY)


@njit(cache=True)
def link_value(z: float, kind: int, bias: float) -> float:
    """Return the output at z, rounded to nearest."""
    if kind & LINEAR:
        return bias + (z if kind & NEGATED else -z)
    return -math.expm1(-z * z) if kind & NEGATED else math.exp(-z * z)


@njit(cache=True)
def distance_at_most(low: float, high: float, kind: int, bias: float) -> float:
    """Return an upper bound of z given that the output lies in [low, high]."""
    if kind & LINEAR:
        return sum_up(high, -bias) if kind & NEGATED else sum_up(-low, bias)
    if kind & NEGATED:
        return math.inf if high >= 1.0 else math.sqrt(-math.log1p(-high)) * (1.0 + PAD) + TINY
    return math.inf if low <= 0.0 else math.sqrt(-math.log(low)) * (1.0 + PAD) + TINY


@njit(cache=True)
def distance_at_least(low: float, high: float, kind: int, bias: float) -> float:
    """Return a lower bound of z given that the output lies in [low, high]."""
    if kind & LINEAR:
        return max(0.0, sum_down(low, -bias) if kind & NEGATED else sum_down(-high, bias))
    if kind & NEGATED:
        return 0.0 if low <= 0.0 else max(0.0, math.sqrt(-math.log1p(-min(low, 1.0 - 2.0**-53))) * (1.0 - PAD) - TINY)
    return 0.0 if high >= 1.0 else max(0.0, math.sqrt(-math.log(max(high, TINY))) * (1.0 - PAD) - TINY)


@njit(cache=True, fastmath={"nnan", "nsz"})
def distance_range(u: Array, w: Array, lower: Array, upper: Array) -> tuple[float, float]:
    """Return (near, far) of one unit, rounded outward."""
    near, far = 0.0, 0.0
    for i in range(u.shape[0]):
        above, below = u[i] * (lower[i] - w[i]), u[i] * (w[i] - upper[i])
        near = max(near, above, below)
        far = max(far, u[i] * (upper[i] - w[i]), u[i] * (w[i] - lower[i]))
    return max(0.0, near * (1.0 - PAD) - TINY), far * (1.0 + PAD) + TINY


@njit(cache=True)
def confine(u: Array, w: Array, lower: Array, upper: Array, bound: float) -> float:
    """Intersect the inputs with {z <= bound}; return the greatest move, or -1 if the result is empty."""
    moved = 0.0
    for i in range(u.shape[0]):
        if u[i] * max(upper[i] - w[i], w[i] - lower[i]) <= bound or u[i] == 0.0:
            continue
        reach = bound / u[i]
        reach += PAD * (reach + abs(w[i])) + TINY
        if w[i] + reach < upper[i]:
            moved = max(moved, upper[i] - (w[i] + reach))
            upper[i] = w[i] + reach
        if w[i] - reach > lower[i]:
            moved = max(moved, (w[i] - reach) - lower[i])
            lower[i] = w[i] - reach
        if lower[i] > upper[i]:
            return -1.0
    return moved


@njit(cache=True)
def literals(u: Array, w: Array, lower: Array, upper: Array, bound: float) -> tuple[int, int, float]:
    """Return (how many literals of {z >= bound} can be true, the signed number of the roomiest, its threshold).

    Literal +(i+1) is y_i >= threshold, -(i+1) is y_i <= threshold. Thresholds are on the safe side: a literal that
    the exact bound allows is never lost.
    """
    count, best, threshold, room = 0, 0, 0.0, -1.0
    for i in range(u.shape[0]):
        if u[i] == 0.0:
            continue
        reach = bound / u[i]
        reach -= PAD * (reach + abs(w[i])) + TINY
        if upper[i] >= w[i] + reach:
            count += 1
            if upper[i] - (w[i] + reach) > room:
                room, best, threshold = upper[i] - (w[i] + reach), i + 1, w[i] + reach
        if lower[i] <= w[i] - reach:
            count += 1
            if (w[i] - reach) - lower[i] > room:
                room, best, threshold = (w[i] - reach) - lower[i], -(i + 1), w[i] - reach
    return count, best, threshold


@njit(cache=True)
def satisfied(u: Array, w: Array, lower: Array, upper: Array, bound: float, slack: float) -> bool:
    """Return whether some literal of {z >= bound} is true on the whole box, its threshold v moved by slack (1 + |v|).

    In units of the inputs, as splits are: a child that makes a literal true then counts as satisfying its clause.
    """
    if bound <= 0.0:
        return True
    for i in range(u.shape[0]):
        if u[i] == 0.0:
            continue
        reach = bound / u[i]
        reach -= PAD * (reach + abs(w[i])) + TINY
        above, below = w[i] + reach, w[i] - reach
        if lower[i] >= above - slack * (1.0 + abs(above)) or upper[i] <= below + slack * (1.0 + abs(below)):
            return True
    return False


@njit(cache=True)
def force(lower: Array, upper: Array, literal: int, threshold: float) -> float:
    """Make a literal true; return the move, or -1 if that leaves nothing."""
    i = abs(literal) - 1
    before = upper[i] - lower[i]
    if literal > 0:
        lower[i] = max(lower[i], threshold)
    else:
        upper[i] = min(upper[i], threshold)
    return -1.0 if lower[i] > upper[i] else before - (upper[i] - lower[i])


@njit(cache=True)
def backward_unit(
    u: Array, w: Array, lower: Array, upper: Array, at_least: float, at_most: float, near: float, far: float
) -> float:
    """Contract the inputs of one unit by at_least <= z <= at_most; return the greatest move, -1 if empty.

    near, far: an outer range of z over these inputs or larger ones, as the inputs only shrink.
    """
    moved = 0.0
    if far > at_most:
        moved = confine(u, w, lower, upper, at_most)
        if moved < 0.0:
            return -1.0
    if near >= at_least:
        return moved
    count, literal, threshold = literals(u, w, lower, upper, at_least)
    if count == 0:
        return -1.0
    if count == 1:
        step = force(lower, upper, literal, threshold)
        return -1.0 if step < 0.0 else max(moved, step)
    return moved
