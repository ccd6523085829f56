"""Outward rounding on top of round-to-nearest floats.

Torch offers no directed rounding, so every function here bounds the error of the nearest result and moves the
result past it. Error-free transformation: Knuth, TAOCP 2, 4.2.2 (TwoSum). gamma_n: Higham (2002), Lemma 3.1.
Gradual underflow is assumed, torch's default: where subnormal numbers are flushed, a subnormal weight reads as 0,
which no slack covers once a large number multiplies it; `check_gradual_underflow` refuses to go on there. Overflow
is covered by `widen` only: other callers test for non-finite values.
"""

import math
from fractions import Fraction

import torch
from torch import Tensor

# Units in the last place by which torch's exp, expm1, log, log1p, sqrt, tanh and sigmoid are trusted to err at
# most, in float32 and float64, on CPU (Sleef and the C library: 1; sigmoid composed of three roundings: 3) and
# CUDA (at most 2, stated in its programming guide). Doubled for safety; a test compares against exact decimals.
ELEMENTARY_FUNCTION_ULPS = 8


def unit_roundoff(dtype: torch.dtype) -> float:
    """Return u, half the distance from 1 to the next float: 2^-53 in float64."""
    return torch.finfo(dtype).eps / 2


def tiny(dtype: torch.dtype) -> float:
    """Return the smallest normal float, an upper bound of any single underflow error."""
    return float(torch.finfo(dtype).tiny)


def check_gradual_underflow() -> None:
    """Return nothing; raise RuntimeError if this thread flushes subnormal numbers to zero.

    torch.set_flush_denormal(True) does so, and so does loading some libraries that were built with fast maths.
    """
    if float(torch.tensor(tiny(torch.float64), dtype=torch.float64) * 0.5) == 0.0:
        raise RuntimeError(
            "subnormal numbers are flushed to zero in this process, so no bound can be proved; "
            "call torch.set_flush_denormal(False) first"
        )


def gamma(count: int, dtype: torch.dtype) -> float:
    """Return gamma_n = n u / (1 - n u), the relative error of n chained roundings."""
    product = count * unit_roundoff(dtype)
    if product >= 0.5:
        raise ValueError(f"{count} roundings in {dtype} leave no significant digit; use float64")
    return product / (1.0 - product)


def next_down(x: Tensor) -> Tensor:
    """Return the next float towards minus infinity."""
    return torch.nextafter(x, torch.full_like(x, -torch.inf))


def next_up(x: Tensor) -> Tensor:
    """Return the next float towards plus infinity."""
    return torch.nextafter(x, torch.full_like(x, torch.inf))


def add_with_error(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Return (s, e) with s = fl(a + b) and a + b = s + e exactly (TwoSum), barring overflow."""
    total = a + b
    part = total - a
    return total, (a - (total - part)) + (b - part)


def add_down(a: Tensor, b: Tensor) -> Tensor:
    """Return the largest float that is at most the real a + b."""
    total, error = add_with_error(a, b)
    return torch.where(error < 0, next_down(total), total)


def add_up(a: Tensor, b: Tensor) -> Tensor:
    """Return the smallest float that is at least the real a + b."""
    total, error = add_with_error(a, b)
    return torch.where(error > 0, next_up(total), total)


def widen(lower: Tensor, upper: Tensor, ulps: int) -> tuple[Tensor, Tensor]:
    """Return ends moved outward by `ulps` units in the last place and one smallest normal number.

    Sound for ends that were computed with a relative error of at most `ulps` times 2u, subnormal results and
    flushed ones included. Ends that are infinite outward stay; those that overflowed inward (lower +inf, upper
    -inf) become the largest float, moved outward. NaN stays NaN.
    """
    greatest = torch.finfo(lower.dtype).max
    lower, upper = lower.clamp(max=greatest), upper.clamp(min=-greatest)
    relative = 2.0 * (ulps + 1) * unit_roundoff(lower.dtype)
    absolute = 2.0 * tiny(lower.dtype)
    return lower - lower.abs() * relative - absolute, upper + upper.abs() * relative + absolute


def float_enclosure(value: Fraction) -> tuple[float, float]:
    """Return the largest float64 that is at most a rational number, and the smallest that is at least it.

    Both are the number itself where float64 holds it. OverflowError beyond the largest float64.
    """
    nearest = float(value)
    numerator, denominator = nearest.as_integer_ratio()
    excess = numerator * value.denominator - value.numerator * denominator
    below = math.nextafter(nearest, -math.inf) if excess > 0 else nearest
    above = math.nextafter(nearest, math.inf) if excess < 0 else nearest
    if math.isinf(below) or math.isinf(above):
        raise OverflowError("a number beyond the largest float64")
    return below, above
