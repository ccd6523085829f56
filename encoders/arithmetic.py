"""Floating-point arithmetics in which a network is executed, and by how much they may err.

The standard model (Higham 2002, chapter 2 and Lemma 3.1): every sum, product, quotient and root is the real one times
1 + d, |d| <= u, or, where it is subnormal, errs by less than the smallest normal number. It holds for any order of
summation and any blocking, with or without fused multiply-add, and for sums that are kept in more digits on the way.
It does not hold where inputs of products are rounded first (TF32), nor for products by other sums than their own
(Winograd, FFT), nor where subnormal inputs are read as zero.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from encoders.rounding import gamma, tiny, unit_roundoff

# Roundings beyond an op's own: runtimes merge nodes (a batch normalisation into the layer before it) and multiply by
# stored reciprocals, which rounds weights a few times.
MERGED = 12
# More than what bounds of errors lose in float64, a few dozen roundings of numbers that are not negative.
INFLATION = 1.0 + 2.0**-44


@dataclass(frozen=True)
class Arithmetic:
    """An arithmetic by its dtype, whose name it has. merged: roundings of an op beyond its own."""

    name: str
    dtype: torch.dtype
    merged: int = MERGED

    @property
    def roundoff(self) -> float:
        """u, the relative error of one operation."""
        return unit_roundoff(self.dtype)

    def relative(self, roundings: int) -> float:
        """Return the relative error of so many roundings in a row; ValueError where no digit is left."""
        return gamma(roundings + self.merged, self.dtype) * INFLATION

    def after(self, summed: int) -> Arithmetic:
        """Return the arithmetic of an op that a runtime may merge into a sum of so many terms before it.

        What it adds may then be the first term of that sum, and be rounded with each further one.
        """
        return replace(self, merged=MERGED + summed)

    def absolute(self, operations: int) -> float:
        """Return the slack of so many operations against underflow."""
        return (2.0 * operations + 16.0) * tiny(self.dtype)

    def bounded(self, error: Tensor, size: Tensor) -> Tensor:
        """Return an error bound `(batch, *shape)`, float64, as it is sound: infinite where something may overflow.

        error: the bound as it was computed from numbers that are not negative. size: of the values, and of what is
        summed on the way.
        """
        fits = size < torch.finfo(self.dtype).max / 4.0
        return (error * INFLATION).where(fits & error.isfinite(), torch.inf)


ARITHMETICS = {
    name: Arithmetic(name, getattr(torch, name)) for name in ("float64", "float32", "float16", "bfloat16")
}  # fmt: skip
