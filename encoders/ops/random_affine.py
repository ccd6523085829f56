"""The fully connected layer whose weights and biases are drawn: W_ij ~ N(mean_ij, deviation_ij^2), independently.

The layer of a network trained by the stochastic delta rule (Hanson 1990; Frazier-Logue, Hanson 2018). Every view is
that of the mean, y = E[W] x + E[b]: of this layer the expected value, of a network of several layers not.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from encoders.ops.affine import Affine
from encoders.ops.weight_box import WeightBox, box_around
from encoders.rounding import next_up


@dataclass(frozen=True, eq=False, kw_only=True)
class RandomAffine(Affine):
    """`weight` and `bias` are the means; the deviations have their shapes and are not negative.

    bias_deviation: None where there is no bias, or where the bias is the same in all draws.
    """

    kind = "random-affine"
    randomised = True

    deviation: Tensor
    bias_deviation: Tensor | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_deviations(self.kind, self.weight, self.bias, self.deviation, self.bias_deviation)

    def draw(self, generator: torch.Generator) -> Affine:
        weight = normal(self.weight, self.deviation, generator)
        bias = self.bias
        if bias is not None and self.bias_deviation is not None:
            bias = normal(bias, self.bias_deviation, generator)
        return Affine(weight, bias)

    def over_draws(self, deviations: float) -> WeightBox:
        return box_around(Affine(self.weight, self.bias), {}, radii(deviations, self.deviation, self.bias_deviation))

    @property
    def normal_weights(self) -> int:
        return count_normal(self.deviation, self.bias_deviation)


def normal(mean: Tensor, deviation: Tensor, generator: torch.Generator) -> Tensor:
    """Return mean + deviation z with z ~ N(0, 1) of its own for every entry, in the dtype of the mean."""
    noise = torch.randn(mean.shape, generator=generator, dtype=mean.dtype)
    return mean + deviation.to(mean.dtype) * noise


def check_deviations(
    kind: str, weight: Tensor, bias: Tensor | None, deviation: Tensor, bias_deviation: Tensor | None
) -> None:
    """Raise ValueError unless deviations have the shapes of what they belong to and none is negative."""
    for name, mean, spread in (("deviation", weight, deviation), ("bias_deviation", bias, bias_deviation)):
        if spread is None:
            continue
        if mean is None or mean.shape != spread.shape:
            fits = "there is no bias" if mean is None else f"it must be {tuple(mean.shape)}"
            raise ValueError(f"{kind}: {name} has shape {tuple(spread.shape)}; {fits}")
        if bool((spread < 0).any()):
            raise ValueError(f"{kind}: {name} holds {float(spread.min())}; deviations are not negative")


def radii(deviations: float, weight: Tensor, bias: Tensor | None) -> dict[str, Tensor]:
    """Return so many deviations of weights and biases, float64, rounded up; nothing of biases that are not random."""
    sizes = {"weight": weight, "bias": bias}
    exact = {name: size.to(torch.float64) for name, size in sizes.items() if size is not None}
    return {name: torch.where(size == 0, size, next_up(size * deviations)) for name, size in exact.items()}


def count_normal(*deviations: Tensor | None) -> int:
    """Return how many deviations are not zero."""
    return sum(int((each > 0).sum()) for each in deviations if each is not None)
