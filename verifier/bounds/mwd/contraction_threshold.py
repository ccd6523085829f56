"""The threshold between two classes of a last MWD layer, for `contraction`: compiled, and rounded outward.

A counterexample needs a threshold tau with d_low <= tau <= d_high, where d is a coordinate in which the two outputs
are compared. Units of one type are compared by their distances (d = z - shift; the shifts are the biases of the linear
link). Of a plain and a negated unit, d is the plain one's; the negated one, whose output falls with d, is *mirrored*:
with the Gaussian link it has the output of a plain unit at the distance sqrt(-ln(1 - exp(-z^2))), with the linear link
at the coordinate -z - shift. Both mirrors are their own inverses.
"""

import math

import numpy as np

from encoders.kept_loops import kept
from verifier.bounds.mwd.contraction_rules import LINEAR, NEGATED, PAD, TINY, Array, sum_down, sum_up

# How the coordinate of a unit follows from its distance.
DIRECT, GAUSSIAN_MIRROR, LINEAR_MIRROR = 0, 1, 2
# Above the mirror of every distance whose exponential underflows.
MIRROR_TINY = 1e-150


def compared_pair(kinds: Array, biases: Array, reference: int, other: int) -> tuple[Array, Array]:
    """Return (low unit, high unit, their modes) and their shifts: `other` wins or ties where d_low <= d_high.

    kinds, biases: of the last layer's units.
    """
    low, high = other, reference
    if kinds[reference] & NEGATED and kinds[other] & NEGATED:
        # A larger distance is a larger output: the other class must be far.
        low, high = reference, other
        return np.array([low, high, DIRECT, DIRECT]), np.array([-biases[low], -biases[high]])
    mirror = LINEAR_MIRROR if kinds[reference] & LINEAR else GAUSSIAN_MIRROR
    modes = [mirror if kinds[unit] & NEGATED else DIRECT for unit in (low, high)]
    return np.array([low, high, *modes]), np.array([biases[low], biases[high]])


@kept("contraction*.py")
def mirrored_down(z: float) -> float:
    """Return a lower bound of sqrt(-ln(1 - exp(-z^2))), which falls from infinity at 0 to 0."""
    s = max(z, 0.0) ** 2 * (1.0 + PAD) + TINY
    least: float = _mirror(s) * (1.0 - 4.0 * PAD) - MIRROR_TINY
    return max(0.0, least)


@kept("contraction*.py")
def mirrored_up(z: float) -> float:
    """Return an upper bound of sqrt(-ln(1 - exp(-z^2)))."""
    s = max(z, 0.0) ** 2 * (1.0 - PAD)
    return math.inf if s < TINY else _mirror(s) * (1.0 + 4.0 * PAD) + MIRROR_TINY


@kept("contraction*.py")
def _mirror(s: float) -> float:
    """Return sqrt(-ln(1 - exp(-s))) for s > 0, to a few units in the last place, or 0 where exp underflows."""
    return math.sqrt(-math.log1p(-math.exp(-s)) if s > 0.7 else -math.log(-math.expm1(-s)))


@kept("contraction*.py")
def coordinate_down(z: float, mode: int, shift: float) -> float:
    """Return a lower bound of the coordinate of a unit at the distance z, or for a mirrored one the inverse."""
    if mode == DIRECT:
        return sum_down(z, -shift)
    return mirrored_down(z) if mode == GAUSSIAN_MIRROR else sum_down(-z, -shift)


@kept("contraction*.py")
def coordinate_up(z: float, mode: int, shift: float) -> float:
    """Return an upper bound of the same."""
    if mode == DIRECT:
        return sum_up(z, -shift)
    return mirrored_up(z) if mode == GAUSSIAN_MIRROR else sum_up(-z, -shift)


@kept("contraction*.py")
def coordinate_range(near: float, far: float, mode: int, shift: float) -> tuple[float, float]:
    """Return the range of a unit's coordinate over distances [near, far]."""
    if mode == DIRECT:
        return coordinate_down(near, mode, shift), coordinate_up(far, mode, shift)
    return coordinate_down(far, mode, shift), coordinate_up(near, mode, shift)


@kept("contraction*.py")
def low_distances(tau: float, mode: int, shift: float) -> tuple[float, float]:
    """Return the range of z of a unit whose coordinate is at most tau."""
    if mode == DIRECT:
        return 0.0, sum_up(tau, shift)
    return max(0.0, coordinate_down(tau, mode, shift)), math.inf


@kept("contraction*.py")
def high_distances(tau: float, mode: int, shift: float) -> tuple[float, float]:
    """Return the range of z of a unit whose coordinate is at least tau."""
    if mode == DIRECT:
        return max(0.0, sum_down(tau, shift)), math.inf
    return 0.0, coordinate_up(tau, mode, shift)
