"""Tensors of rational numbers: whole numbers over one common denominator.

Every float is a whole number times a power of two, so that sums, products and comparisons of floats have exact results
here: no rounding, no tolerance. Matrix products are made of products in float64 that are exact because every partial
sum is a whole number below 2^53: both factors are cut into limbs of so few bits. This module shares no code with
intervals, and is an oracle for them. Roots and exponentials are not covered.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

# Told of multiplications in float64 before they are made; raises NotEvaluated where they are too many.
Afford = Callable[[int], None]
# Multiplications in float64 that one operation on Python's numbers takes as long as.
PYTHON_COST = 100

# Arrays of Python's whole numbers.
Whole = NDArray[np.object_]
Floats = NDArray[np.float64]

# Bits of a whole number that float64 holds, and of a float's fraction.
MANTISSA_BITS = 53
# Products of limbs, of magnitude below 2^53, that are added in int64.
MOST_ADDED = 512
# Bits of a common denominator beyond which nothing is divided: numbers would fill the memory.
MOST_BITS = 8192


class NotEvaluated(ArithmeticError):
    """A value is not rational, or finding it would take too long; the message says which and why."""


@dataclass(frozen=True, eq=False)
class Rationals:
    """The numbers numerators / denominator; numerators: `(batch, *shape)` of Python ints; denominator: int > 0."""

    numerators: Whole
    denominator: int

    @staticmethod
    def of(values: Tensor) -> Rationals:
        """Return finite floats of any shape as they are. Raises ValueError for others."""
        array = values.detach().to(device="cpu", dtype=torch.float64).numpy()
        if not np.isfinite(array).all():
            raise ValueError("only finite numbers are rational")
        fraction, exponent = np.frexp(array)
        present = fraction != 0
        least = int(exponent[present].min()) if present.any() else 0
        shift = np.where(present, exponent - least, 0).astype(object)
        whole = np.ldexp(fraction, MANTISSA_BITS).astype(np.int64).astype(object) << shift
        least -= MANTISSA_BITS
        return Rationals(_whole(whole * 2 ** max(least, 0)), 2 ** max(-least, 0)).reduced()

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape, the batch included."""
        return tuple(self.numerators.shape)

    @cached_property
    def bits(self) -> int:
        """The bits of the largest numerator."""
        if not self.numerators.size:
            return 0
        return max(int(self.numerators.max()), -int(self.numerators.min())).bit_length()

    def reduced(self) -> Rationals:
        """Return the same numbers without the powers of two that all numerators and the denominator share."""
        together = self.denominator
        for value in self.numerators.flat:
            together |= int(value)
            if together & 1:
                return self
        zeros = (together & -together).bit_length() - 1
        return Rationals(_whole(self.numerators >> zeros), self.denominator >> zeros)

    def map(self, function: Callable[[Whole], Any]) -> Rationals:
        """Return the numbers whose numerators a function of all numerators gives; it must not need the denominator."""
        return Rationals(_whole(function(self.numerators)), self.denominator)

    def over(self, denominator: int) -> Whole:
        """Return the numerators over a multiple of the denominator."""
        factor, rest = divmod(denominator, self.denominator)
        assert rest == 0, "no multiple of the denominator"
        return self.numerators if factor == 1 else _whole(self.numerators * factor)

    def __add__(self, other: Rationals) -> Rationals:
        common = _checked(math.lcm(self.denominator, other.denominator))
        return Rationals(_whole(self.over(common) + other.over(common)), common)

    def __sub__(self, other: Rationals) -> Rationals:
        return self + other.map(lambda n: -n)

    def __mul__(self, other: Rationals) -> Rationals:
        denominator = _checked(self.denominator * other.denominator)
        return Rationals(_whole(self.numerators * other.numerators), denominator).reduced()

    def __truediv__(self, other: Rationals) -> Rationals:
        """Return quotients; the divisor holds no zero. Raises NotEvaluated where no small denominator serves all."""
        common = 1
        for value in {abs(int(value)) for value in other.numerators.flat}:
            common = _checked(math.lcm(common, value))
        inverse = other.map(lambda n: common // n)
        numerators = self.numerators * inverse.numerators * other.denominator
        return Rationals(_whole(numerators), _checked(self.denominator * common)).reduced()

    def values(self) -> list[Fraction]:
        """Return the numbers as fractions, flat, in C order."""
        return [Fraction(int(value), self.denominator) for value in self.numerators.flat]


def join(first: Rationals, second: Rationals, axis: int) -> Rationals:
    """Return two tensors side by side along an axis."""
    common = _checked(math.lcm(first.denominator, second.denominator))
    return Rationals(np.concatenate([first.over(common), second.over(common)], axis=axis), common)


def product(x: Rationals, weight: Tensor, afford: Afford) -> Rationals:
    """Return x W^T, x `(..., n)`, W `(m, n)`: finite floats.

    afford: is told of the multiplications in float64 before they are made, and may raise.
    """
    count = int(weight.shape[1])
    bits = (MANTISSA_BITS - max(count, 1).bit_length()) // 2
    exponent, of_weight = _weight_limbs(weight.detach().to(device="cpu", dtype=torch.float64).numpy(), bits)
    afford(math.ceil(x.bits / bits) * len(of_weight) * math.prod(x.shape[:-1]) * weight.numel())
    sums: dict[int, NDArray[np.int64]] = {}
    added: dict[int, int] = {}
    total = np.zeros((*x.shape[:-1], int(weight.shape[0])), dtype=object)
    for place, left in _limbs(x.numerators, bits):
        for other, right in of_weight:
            at = place + other
            if added.get(at, 0) == MOST_ADDED:
                total = total + (sums.pop(at).astype(object) << bits * at)
                added[at] = 0
            # Whole numbers below 2^53 in any order of summation, fused or not.
            part = np.asarray(left @ right.T).astype(np.int64)
            sums[at] = sums[at] + part if at in sums else part
            added[at] = added.get(at, 0) + 1
    for at, value in sums.items():
        total = total + (value.astype(object) << bits * at)
    scaled = _whole(total * 2 ** max(exponent, 0))
    return Rationals(scaled, _checked(x.denominator * 2 ** max(-exponent, 0))).reduced()


def _limbs(numerators: Whole, bits: int) -> Iterator[tuple[int, Floats]]:
    """Yield (place, limb): numerators = sum of limb 2^(bits place), limbs whole numbers below 2^bits in magnitude."""
    sign = np.where(numerators < 0, -1.0, 1.0)
    rest, place = _whole(np.abs(numerators)), 0
    # As many limbs at once as int64 holds: operations on Python's numbers are the slow ones.
    together = 62 // bits
    while rest.any():
        low = (rest & (2 ** (bits * together) - 1)).astype(np.int64)
        for i in range(together):
            limb = ((low >> (bits * i)) & (2**bits - 1)).astype(np.float64)
            if limb.any():
                yield place + i, limb * sign
        rest, place = _whole(rest >> (bits * together)), place + together


def _weight_limbs(weight: Floats, bits: int) -> tuple[int, list[tuple[int, Floats]]]:
    """Return (e, limbs): weight = 2^e times the sum of limb 2^(bits place), as in `_limbs`."""
    fraction, exponent = np.frexp(weight)
    present = fraction != 0
    if not present.any():
        return 0, []
    whole = np.abs(np.ldexp(fraction[present], MANTISSA_BITS)).astype(np.int64)
    zeros = np.frexp((whole & -whole).astype(np.float64))[1] - 1
    least = int((exponent[present] - MANTISSA_BITS + zeros).min())
    places = math.ceil((int(exponent[present].max()) - least) / bits)
    rest, sign, limbs = np.abs(weight), np.sign(weight), []
    for place in reversed(range(places)):
        # Powers of two shift exactly, what is below the limb stays in the rest.
        limb = np.floor(np.ldexp(rest, -(least + bits * place)))
        if limb.any():
            rest = rest - np.ldexp(limb, least + bits * place)
            limbs.append((place, limb * sign))
    assert not rest.any()
    return least, limbs


def _whole(array: Any) -> Whole:
    """Return an array of Python's numbers: numpy turns results without axes into bare numbers."""
    return np.asarray(array, dtype=object)


def _checked(denominator: int) -> int:
    if denominator.bit_length() > MOST_BITS:
        raise NotEvaluated(f"a common denominator has more than {MOST_BITS} bits")
    return denominator
