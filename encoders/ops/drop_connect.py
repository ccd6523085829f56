"""Layers that drop weights: each weight is zero with probability `rate`, else 1 / (1 - rate) times its mean.

Wan, Zeiler, Zhang, LeCun, Fergus 2013, with the scale in the draw rather than at test time, so that the mean of every
weight is the stored one, and every view is that of the mean. Biases are not dropped.
"""

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor

from encoders.ops.affine import Affine
from encoders.ops.convolution import Conv2d
from encoders.ops.linear import WeightedSum
from encoders.ops.random_layer import RandomLayer
from encoders.ops.weight_box import WeightBox, box_around
from encoders.rounding import tiny, unit_roundoff


@dataclass(frozen=True, eq=False, kw_only=True)
class DroppedWeights(RandomLayer):
    """The weight of the ordinary layer is the mean; rate: in [0, 1)."""

    rate: float

    def __post_init__(self) -> None:
        super().__post_init__()
        check_rate(self.kind, self.rate)

    def draw(self, generator: torch.Generator) -> WeightedSum:
        drawn = {"weight": dropped(self.mean.parameters()["weight"], self.rate, generator)}
        return dataclasses.replace(self.mean, **drawn)

    def over_draws(self, deviations: float) -> WeightBox:
        half = half_of_kept(self.mean.parameters()["weight"], self.rate)
        return box_around(self.mean, {"weight": half}, {"weight": half.abs()})


@dataclass(frozen=True, eq=False, kw_only=True)
class DropConnect(DroppedWeights, Affine):
    """A fully connected layer."""

    kind = "drop-connect"
    ordinary = Affine


@dataclass(frozen=True, eq=False, kw_only=True)
class DropConnect2d(DroppedWeights, Conv2d):
    """A convolution, one mask for all places of a draw."""

    kind = "drop-connect2d"
    ordinary = Conv2d


def dropped(weight: Tensor, rate: float, generator: torch.Generator) -> Tensor:
    """Return the weights, each zero with probability `rate`, else divided by 1 - rate (rounded once)."""
    kept = torch.rand(weight.shape, generator=generator) >= rate
    return torch.where(kept, weight / (1.0 - rate), torch.zeros((), dtype=weight.dtype))


def half_of_kept(weight: Tensor, rate: float) -> Tensor:
    """Return h, float64, such that kept and dropped weights, as `dropped` rounds them, lie between 0 and 2 h.

    So does the mean. Beyond the division that of a draw errs by its own and that of 1 - rate, in the stored dtype.
    """
    half = weight.to(torch.float64) / (2.0 * (1.0 - rate)) * (1.0 + 8.0 * unit_roundoff(weight.dtype))
    # Of weights that are subnormal in the stored dtype that error is absolute.
    return half + half.sign() * 2.0 * tiny(weight.dtype)


def check_rate(kind: str, rate: float) -> None:
    """Raise ValueError unless a rate lies in [0, 1)."""
    if not 0.0 <= rate < 1.0:
        raise ValueError(f"{kind}: the rate must lie in [0, 1), got {rate}")
