"""Intervals through modules, differentiable by their weights: what certified training descends on.

One row of `INTERVALS` a kind of layer, of chains and residual blocks of them. In the dtype of the weights and not
rounded outward: it guides training and proves nothing. The sizes are those of interval propagation (Gowal et al. 2018):

    affine      centre W m + b, radius |W| r          for the middle m and half the width r of the box
    monotone    both ends
    normalised  scale and shift of batch statistics, in training those of the clean inputs (Shi et al. 2021),
                or of middles where no inputs are run
    k-winners   the range of the op, whose ends are those of units
    MWD         `pseudo_interval` of the layer
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from encoders.box import Box
from encoders.layers import KWinners, Mwd, MwdConv2d
from verifier.training.layers import Residual


@dataclass(frozen=True)
class Boxes:
    """Values at the inputs and boxes around them, `(batch, *shape)`: middles, and halves of the widths.

    clean: None where nothing asks for these values, which are a third of the work.
    tape: the layers passed on the way, chains and blocks taken apart, each with the boxes before it.
    """

    clean: Tensor | None
    middle: Tensor
    half: Tensor
    tape: list[tuple[nn.Module, Boxes]] = field(default_factory=list, repr=False)

    @classmethod
    def between(
        cls, clean: Tensor | None, lower: Tensor, upper: Tensor, tape: list[tuple[nn.Module, Boxes]] | None = None
    ) -> Boxes:
        """Return the boxes of these ends."""
        return cls(clean, (lower + upper) / 2, (upper - lower) / 2, [] if tape is None else tape)

    @property
    def lower(self) -> Tensor:
        """Lower ends."""
        return self.middle - self.half

    @property
    def upper(self) -> Tensor:
        """Upper ends."""
        return self.middle + self.half

    def behind(self, layer: nn.Module, middle: Tensor, half: Tensor) -> Boxes:
        """Return the boxes behind a layer."""
        return Boxes(None if self.clean is None else layer(self.clean), middle, half, self.tape)

    def ending(self, layer: nn.Module, lower: Tensor, upper: Tensor) -> Boxes:
        """Return the boxes behind a layer, of these ends; TypeError where their dtype is too coarse for that."""
        if lower.dtype == torch.bfloat16:
            raise TypeError(
                f"bfloat16 does not hold boxes by their ends, as the layer {type(layer).__name__} needs them"
            )
        return self.behind(layer, (lower + upper) / 2, (upper - lower) / 2)

    @property
    def hinges(self) -> list[Boxes]:
        """The boxes before relus on the way."""
        return [before for layer, before in self.tape if isinstance(layer, nn.ReLU)]


def around(clean: Tensor, middle: Tensor, radius: float, domain: tuple[float, float] | None) -> Boxes:
    """Return boxes around points `(batch, *shape)`, cut to the domain, with the inputs to run beside them."""
    lower, upper = middle - radius, middle + radius
    if domain is not None:
        lower, upper = lower.clamp(min=domain[0]), upper.clamp(max=domain[1])
    return Boxes.between(clean, lower, upper)


def propagate(module: nn.Module, boxes: Boxes) -> Boxes:
    """Return the boxes behind a module; TypeError names a layer that intervals do not support in training."""
    rule = INTERVALS.get(type(module))
    if rule is None:
        known = ", ".join(kind.__name__ for kind in INTERVALS)
        raise TypeError(f"certified training does not support the layer {type(module).__name__}; supported: {known}")
    if not isinstance(module, nn.Sequential | Residual):
        boxes.tape.append((module, boxes))
    return rule(module, boxes)


def worst_scores(module: nn.Module, boxes: Boxes, y: Tensor) -> tuple[Boxes, Tensor]:
    """Return (boxes of the outputs, what hurts class y most `(batch, classes)`).

    Scores with the label at its lower and the others at their upper ends; a last linear layer is merged with the
    comparison of classes, which gives upper bounds of z_k - z_y, 0 for the own class: never looser.
    """
    last = module[-1] if isinstance(module, nn.Sequential) and len(module) else None
    if isinstance(module, nn.Sequential) and isinstance(last, nn.Linear):
        boxes = propagate(module[:-1], boxes)
        return propagate(last, boxes), _merged(last, boxes, y)
    boxes = propagate(module, boxes)
    own = functional.one_hot(y, boxes.middle.shape[1]).bool()
    return boxes, torch.where(own, boxes.lower, boxes.upper)


def _merged(layer: nn.Linear, boxes: Boxes, y: Tensor) -> Tensor:
    # In the dtype of the weights whatever the values have: scores of 8 bits are too coarse for a loss.
    with torch.autocast(boxes.half.device.type, enabled=False):
        rows, constants = merged_rows(layer, y)
        middle, half = boxes.middle.to(rows), boxes.half.to(rows)
        return torch.einsum("bkn,bn->bk", rows, middle) + torch.einsum("bkn,bn->bk", rows.abs(), half) + constants


def merged_rows(layer: nn.Linear, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return z_k - z_y as functions of what a last layer gets: rows `(batch, classes, n)` and constants."""
    rows = layer.weight[None] - layer.weight[y][:, None]
    bias = rows.new_zeros(len(layer.weight)) if layer.bias is None else layer.bias
    return rows, bias[None] - bias[y][:, None]


def _chain(module: nn.Module, boxes: Boxes) -> Boxes:
    assert isinstance(module, nn.Sequential)
    # Not `children`, which leaves out a layer that stands in two places.
    for layer in module:
        boxes = propagate(layer, boxes)
    return boxes


def _residual(module: nn.Module, boxes: Boxes) -> Boxes:
    assert isinstance(module, Residual)
    body, shortcut = propagate(module.body, boxes), propagate(module.shortcut, boxes)
    clean = None if body.clean is None or shortcut.clean is None else body.clean + shortcut.clean
    total = Boxes(clean, body.middle + shortcut.middle, body.half + shortcut.half, boxes.tape)
    return propagate(nn.ReLU(), total)


def _affine(module: nn.Module, boxes: Boxes) -> Boxes:
    assert isinstance(module, nn.Linear | nn.Conv2d)
    middle, sizes = module(boxes.middle), module.weight.abs()
    if isinstance(module, nn.Linear):
        return boxes.behind(module, middle, functional.linear(boxes.half, sizes))
    if module.weight.stride(1) == 1:
        # Of a single channel `abs` takes either format, and the convolution the other one.
        sizes = sizes.to(memory_format=torch.channels_last)
    # As the module does it, whatever its padding.
    return boxes.behind(module, middle, module._conv_forward(boxes.half, sizes, None))


class _Relu(torch.autograd.Function):
    """Middle and half of relu over boxes m, h with upper end u: m and h where m >= h, u / 2 twice where u > 0 > m - h.

    Never by the difference of ends, which 8 bits do not hold where boxes are narrow. Masks are kept as numbers:
    comparisons of bfloat16 take as long as three additions.
    """

    @staticmethod
    def forward(ctx: Any, middle: Tensor, half: Tensor) -> tuple[Tensor, Tensor]:
        end = torch.lerp(middle, half, 0.5)
        middle, half = torch.maximum(middle, end).clamp_(min=0), torch.minimum(half, end).clamp_(min=0)
        ctx.save_for_backward(middle, half)
        return middle, half

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        # Behind the relu the lower end is middle - half, and the middle is positive where the upper end is.
        middle, half = ctx.saved_tensors
        upper = torch.ops.aten.threshold_backward(gradients[0] + gradients[1], middle, 0)
        lower = torch.ops.aten.threshold_backward(gradients[0] - gradients[1], middle - half, 0)
        total = torch.lerp(upper, lower, 0.5)
        return total, upper - total


def _relu(module: nn.Module, boxes: Boxes) -> Boxes:
    middle, half = _Relu.apply(boxes.middle, boxes.half)  # type: ignore[no-untyped-call]
    return boxes.behind(module, middle, half)


def _reshaped(module: nn.Module, boxes: Boxes) -> Boxes:
    """Layers that are linear with weights that are not negative and sum to 1, or only move values."""
    return boxes.behind(module, module(boxes.middle), module(boxes.half))


def _monotone(module: nn.Module, boxes: Boxes) -> Boxes:
    return boxes.ending(module, module(boxes.lower), module(boxes.upper))


class _Statistics(torch.autograd.Function):
    """Means and inverse deviations of channels that are known already, with their gradients by the values."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, mean: Tensor, inverse: Tensor) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(values, mean, inverse)
        return mean.clone(), inverse.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        values, mean, inverse = ctx.saved_tensors
        count = values.numel() // len(mean)
        slope = -gradients[1] * inverse**3 / count
        constant = gradients[0] / count - slope * mean
        slope, constant = (each.to(values.dtype)[:, None, None] for each in (slope, constant))
        return torch.addcmul(constant, values, slope), None, None


def _normalised(module: nn.Module, boxes: Boxes) -> Boxes:
    assert isinstance(module, nn.BatchNorm2d)
    if not module.training:
        scale, shift = (values.to(boxes.half)[:, None, None] for values in batch_scale(module, boxes))
        return boxes.behind(module, boxes.middle * scale + shift, boxes.half * scale.abs())
    source = boxes.middle if boxes.clean is None else boxes.clean
    means, variances, counts = module.running_mean, module.running_var, module.num_batches_tracked
    assert module.momentum is not None and counts is not None
    counts.add_(1)
    normal, mean, inverse = torch.native_batch_norm(
        source, module.weight, module.bias, means, variances, True, module.momentum, module.eps
    )
    mean, inverse = _Statistics.apply(source, mean.detach(), inverse.detach())  # type: ignore[no-untyped-call]
    scale = module.weight * inverse
    half = boxes.half * scale.abs().to(boxes.half)[:, None, None]
    if boxes.clean is None:
        return Boxes(None, normal, half, boxes.tape)
    scale, shift = (values.to(boxes.half)[:, None, None] for values in (scale, module.bias - mean * scale))
    return Boxes(normal, torch.addcmul(shift, boxes.middle, scale), half, boxes.tape)


def batch_scale(module: nn.BatchNorm2d, boxes: Boxes) -> tuple[Tensor, Tensor]:
    """Return scale and shift of the channels; in training by the statistics of the clean values, else the middles."""
    mean, variance = module.running_mean, module.running_var
    assert mean is not None and variance is not None
    if module.training:
        source = boxes.middle if boxes.clean is None else boxes.clean
        mean = source.mean(dim=(0, 2, 3))
        variance = source.var(dim=(0, 2, 3), unbiased=False)
    scale = module.weight / (variance + module.eps).sqrt()
    return scale, module.bias - mean * scale


def _random(module: nn.Module, boxes: Boxes) -> Boxes:
    if module.training:
        raise TypeError("certified training does not support dropout: clean values and both ends would differ by it")
    return boxes


def _winners(module: nn.Module, boxes: Boxes) -> Boxes:
    assert isinstance(module, KWinners)
    found = module.op(boxes.lower).interval(Box.unchecked(boxes.lower, boxes.upper))
    return boxes.ending(module, found.lower, found.upper)


def _mwd(module: nn.Module, boxes: Boxes) -> Boxes:
    assert isinstance(module, Mwd | MwdConv2d)
    return boxes.ending(module, *module.pseudo_interval(boxes.lower, boxes.upper))


INTERVALS: dict[type[nn.Module], Callable[[nn.Module, Boxes], Boxes]] = {
    nn.Sequential: _chain,
    Residual: _residual,
    nn.Linear: _affine,
    nn.Conv2d: _affine,
    nn.BatchNorm2d: _normalised,
    nn.ReLU: _relu,
    nn.Sigmoid: _monotone,
    nn.Tanh: _monotone,
    nn.MaxPool2d: _monotone,
    nn.AvgPool2d: _reshaped,
    nn.AdaptiveAvgPool2d: _reshaped,
    nn.Flatten: _reshaped,
    nn.Unflatten: _reshaped,
    nn.Dropout: _random,
    KWinners: _winners,
    Mwd: _mwd,
    MwdConv2d: _mwd,
}
