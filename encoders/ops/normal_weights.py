"""Layers whose weights and biases are drawn: W_ij ~ N(mean_ij, deviation_ij^2), independently.

The layers of a network trained by the stochastic delta rule (Hanson 1990; Frazier-Logue, Hanson 2018).
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
from encoders.rounding import next_up


@dataclass(frozen=True, eq=False, kw_only=True)
class NormalWeights(RandomLayer):
    """The weight and bias of the ordinary layer are the means; deviations have their shapes and are not negative.

    bias_deviation: None where there is no bias, or where the bias is the same in all draws.
    """

    deviation: Tensor
    bias_deviation: Tensor | None = None

    def __post_init__(self) -> None:
        """Raise ValueError unless deviations have the shapes of what they belong to and none is negative."""
        super().__post_init__()
        means = self.mean.parameters()
        for of, name in (("weight", "deviation"), ("bias", "bias_deviation")):
            mean, spread = means.get(of), getattr(self, name)
            if spread is None:
                continue
            if mean is None or mean.shape != spread.shape:
                fits = "there is no bias" if mean is None else f"it must be {tuple(mean.shape)}"
                raise ValueError(f"{self.kind}: {name} has shape {tuple(spread.shape)}; {fits}")
            if bool((spread < 0).any()):
                raise ValueError(f"{self.kind}: {name} holds {float(spread.min())}; deviations are not negative")

    @property
    def deviations(self) -> dict[str, Tensor]:
        """The deviations by the names of what they belong to; nothing of a bias that is not random."""
        both = {"weight": self.deviation, "bias": self.bias_deviation}
        return {name: deviation for name, deviation in both.items() if deviation is not None}

    def draw(self, generator: torch.Generator) -> WeightedSum:
        means = self.mean.parameters()
        drawn = {name: normal(means[name], deviation, generator) for name, deviation in self.deviations.items()}
        return dataclasses.replace(self.mean, **drawn)

    def over_draws(self, deviations: float) -> WeightBox:
        exact = {name: size.to(torch.float64) for name, size in self.deviations.items()}
        radii = {name: torch.where(size == 0, size, next_up(size * deviations)) for name, size in exact.items()}
        return box_around(self.mean, {}, radii)

    @property
    def normal_weights(self) -> int:
        return sum(int((each > 0).sum()) for each in self.deviations.values())


@dataclass(frozen=True, eq=False, kw_only=True)
class RandomAffine(NormalWeights, Affine):
    """A fully connected layer."""

    kind = "random-affine"
    ordinary = Affine


@dataclass(frozen=True, eq=False, kw_only=True)
class RandomConv2d(NormalWeights, Conv2d):
    """A convolution, one kernel for all places and inputs of a draw."""

    kind = "random-conv2d"
    ordinary = Conv2d


def normal(mean: Tensor, deviation: Tensor, generator: torch.Generator) -> Tensor:
    """Return mean + deviation z with z ~ N(0, 1) of its own for every entry, in the dtype of the mean."""
    noise = torch.randn(mean.shape, generator=generator, dtype=mean.dtype)
    return mean + deviation.to(mean.dtype) * noise
