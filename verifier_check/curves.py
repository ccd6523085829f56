"""Sigmoid and tanh in integers, for `verifier_check`: their range, and lines around them; the standard library alone.

It follows docs/certificate-format.md. Both are values at 0 plus an odd g that is convex left of 0 and concave right of
it. Whatever its slope s, a line s x + o lies below g on [l, u] if o is at most g(x) - s x at every x: on the concave
side that is least at an end, and on the convex side it lies above its tangent at any place. So places and slopes come
from floats, offsets from enclosures.
"""

from __future__ import annotations

import math

from verifier_check.exponential import Range, exp_minus

HALVINGS = 40
# Beyond this the float of a slope is 0.
FAR = 350.0


def curve_value(kind: str, x: int, bits: int) -> Range:
    """Return integers around the value at x / 2^bits, times 2^bits."""
    if kind == "sigmoid":
        return _sigmoid(x, bits)
    low, high = _sigmoid(2 * x, bits)
    return 2 * low - (1 << bits), 2 * high - (1 << bits)


def curve_slope(kind: str, x: int, bits: int) -> Range:
    """Return integers around the derivative at x / 2^bits, times 2^bits."""
    low, high = _sigmoid(x if kind == "sigmoid" else 2 * x, bits)
    one, times = 1 << bits, 1 if kind == "sigmoid" else 4
    return times * low * (one - high) >> bits, -(-times * high * (one - low) >> bits)


def curve_lines(kind: str, low: int, high: int, bits: int) -> tuple[int, int, int, int]:
    """Return slopes, in units of 2^-bits, and offsets, of 2^-2bits, of lines below and above on [low, high]."""
    slope, offset = _below(kind, low, high, bits)
    # g is odd: what lies above it on a box lies below it on the box's mirror image.
    other, mirrored = _below(kind, -high, -low, bits)
    zero = 1 << (2 * bits - 1) if kind == "sigmoid" else 0
    return slope, zero + offset, other, zero - mirrored


def _below(kind: str, low: int, high: int, bits: int) -> Range:
    """Return (slope, offset) of a line below g on [low, high]."""
    touching = _touching(kind, low, high, bits)
    if touching is None:
        rise = _odd(kind, high, bits)[0] - _odd(kind, low, bits)[0]
        slope, touching = max(0, (rise << bits) // (high - low)) if high > low else 0, low
    else:
        slope = curve_slope(kind, touching, bits)[0]
    # On the concave side the ends, of which 0 is one of the convex side, too.
    ends = ([low] if low >= 0 else []) + ([high] if high > 0 else [])
    found = [(_odd(kind, x, bits)[0] << bits) - slope * x for x in ends]
    if low < 0:
        away = (low - touching, min(high, 0) - touching)
        falls = [(steep - slope) * x for steep in curve_slope(kind, touching, bits) for x in away]
        found.append((_odd(kind, touching, bits)[0] << bits) - slope * touching + min(falls))
    return slope, min(found)


def _odd(kind: str, x: int, bits: int) -> Range:
    low, high = curve_value(kind, x, bits)
    half = 1 << (bits - 1) if kind == "sigmoid" else 0
    return low - half, high - half


def _touching(kind: str, low: int, high: int, bits: int) -> int | None:
    """Return where a line below touches the convex side; None where the chord serves."""
    if low >= 0 or low == high:
        return None
    least, greatest = low / (1 << bits), high / (1 << bits)
    if greatest <= 0:
        return (low + high) >> 1
    chord = (_float(kind, greatest) - _float(kind, least)) / (greatest - least)
    if chord <= _float_slope(kind, least):
        return None
    # The greatest place whose tangent passes below the right end.
    clear, over = least, 0.0
    for _ in range(HALVINGS):
        trial = 0.5 * (clear + over)
        if _float(kind, trial) + _float_slope(kind, trial) * (greatest - trial) <= _float(kind, greatest):
            clear = trial
        else:
            over = trial
    top, bottom = clear.as_integer_ratio()
    return min(max((top << bits) // bottom, low), 0)


def _float(kind: str, x: float) -> float:
    return 0.5 * math.tanh(0.5 * x) if kind == "sigmoid" else math.tanh(x)


def _float_slope(kind: str, x: float) -> float:
    if abs(x) > FAR:
        return 0.0
    return 0.25 / math.cosh(0.5 * x) ** 2 if kind == "sigmoid" else 1.0 / math.cosh(x) ** 2


def _sigmoid(x: int, bits: int) -> Range:
    """Return integers around 1 / (1 + exp(-x / 2^bits)), times 2^bits."""
    one = 1 << bits
    low, high = exp_minus(abs(x), bits)
    least, greatest = (one << bits) // (one + high), -((-one << bits) // (one + low))
    return (least, greatest) if x >= 0 else (one - greatest, one - least)
