"""Decoupled direction and norm (DDN; Rony et al. 2019): the gradient sets a direction, success the distance.

    epsilon <- epsilon (1 - gamma) where x is unsafe, else epsilon (1 + gamma), from the width of the domain on
    x <- x_o + clip(epsilon d / ||d||_2),  d = x - x_o - alpha_k g / ||g||_2

g is the gradient of the log odds of the class, alpha_k falls from 1 to 0.01 as a cosine (Algorithm 1, whose rounding to
256 levels is left out). Unlike FMN's, the next point lies on the sphere and not within it. What ends the search is that
of `FastMinimumNorm`, and not the authors'.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from verifier.attacks.fast_minimum_norm import FastMinimumNorm, Walk
from verifier.attacks.nearest import Nearest


@dataclass(frozen=True)
class DecoupledNorm(FastMinimumNorm):
    """Settings of DDN, beside those of the base class: first: the radius of the first sphere, in units of `Walk`."""

    norms: ClassVar[tuple[str, ...]] = ("2",)

    loss: str = "cross-entropy"
    first: float = 1.0

    def resize(self, walk: Walk, away: Tensor, unsafe: Tensor, boundary: Tensor, share: float, norm: str) -> None:
        assert walk.unit is not None
        before = torch.where(walk.epsilon.isfinite(), walk.epsilon, self.first * walk.unit)
        walk.epsilon = before * torch.where(unsafe, 1.0 - self.growth, 1.0 + self.growth)

    def place(self, nearest: Nearest, centre: Tensor, away: Tensor, epsilon: Tensor) -> Tensor:
        size = torch.linalg.vector_norm(away, dim=1).clamp(min=torch.finfo(away.dtype).tiny)
        moved: Tensor = away * (epsilon / size)[:, None]
        return moved
