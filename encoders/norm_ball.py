"""A ball of the 2- or 1-norm whose membership is decided in rational numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property

import torch
from torch import Tensor

from encoders.box import Shape
from encoders.region import NORMS, Norm

# Balls of the norm inf are boxes, which need no more.
ROUND = tuple(norm for norm in NORMS if norm != "inf")


@dataclass(frozen=True, eq=False)
class NormBall:
    """The points x with ||x - centre|| <= radius over all coordinates.

    centre: in the shape of the network's input, float64, finite. radius: finite, not negative. norm: "2" or "1".

    Raises ValueError on anything else.
    """

    centre: Tensor
    radius: float
    norm: Norm

    def __post_init__(self) -> None:
        if self.norm not in ROUND:
            raise ValueError(f"a ball of the norm {self.norm!r}; supported: {', '.join(ROUND)} (of inf it is a box)")
        if self.centre.dtype != torch.float64 or not bool(self.centre.isfinite().all()):
            raise ValueError("the centre of a ball must hold finite numbers of float64")
        if not math.isfinite(self.radius) or self.radius < 0:
            raise ValueError(f"a radius must be a finite number that is not negative, got {self.radius}")

    def contains(self, x: Tensor) -> bool:
        """Return whether a point of any floating dtype and shape lies in the closed ball, without tolerance."""
        away = [abs(Fraction(value) - centre) for value, centre in zip(x.flatten().tolist(), self._centre, strict=True)]
        if self.norm == "1":
            return sum(away, Fraction(0)) <= Fraction(self.radius)
        return sum((value * value for value in away), Fraction(0)) <= Fraction(self.radius) ** 2

    def shaped(self, shape: Shape) -> NormBall:
        """Return the ball around the same centre in another shape."""
        return replace(self, centre=self.centre.reshape(shape))

    @cached_property
    def _centre(self) -> list[Fraction]:
        return [Fraction(value) for value in self.centre.flatten().tolist()]
