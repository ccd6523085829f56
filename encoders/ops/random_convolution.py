"""The convolution whose weights and biases are drawn, one kernel for all places and inputs of a draw.

As `random_affine`, with the same caveat: every view is that of the mean.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from encoders.ops.convolution import Conv2d
from encoders.ops.random_affine import check_deviations, count_normal, normal, radii
from encoders.ops.weight_box import WeightBox, box_around


@dataclass(frozen=True, eq=False, kw_only=True)
class RandomConv2d(Conv2d):
    """`weight` and `bias` are the means; the deviations have their shapes and are not negative.

    bias_deviation: None where there is no bias, or where the bias is the same in all draws.
    """

    kind = "random-conv2d"
    randomised = True

    deviation: Tensor
    bias_deviation: Tensor | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_deviations(self.kind, self.weight, self.bias, self.deviation, self.bias_deviation)

    def draw(self, generator: torch.Generator) -> Conv2d:
        weight = normal(self.weight, self.deviation, generator)
        bias = self.bias
        if bias is not None and self.bias_deviation is not None:
            bias = normal(bias, self.bias_deviation, generator)
        return Conv2d(weight, bias, self.stride, self.padding, self.dilation, self.groups)

    def over_draws(self, deviations: float) -> WeightBox:
        mean = Conv2d(self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)
        return box_around(mean, {}, radii(deviations, self.deviation, self.bias_deviation))

    @property
    def normal_weights(self) -> int:
        return count_normal(self.deviation, self.bias_deviation)
