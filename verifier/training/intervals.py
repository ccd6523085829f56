"""Intervals through modules, differentiable by their weights: what certified training descends on.

One row of `INTERVALS` a kind of layer, of chains and residual blocks of them. In the dtype of the weights and not
rounded outward: it guides training and proves nothing. The sizes are those of interval propagation (Gowal et al. 2018):

    affine      centre W m + b, radius |W| r          for the middle m and half the width r of the box
    monotone    both ends
    normalised  scale and shift of batch statistics, in training those of the clean inputs (Shi et al. 2021)
    k-winners   the range of the op, whose ends are those of units
    MWD         `pseudo_interval` of the layer
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional

from encoders.box import Box
from encoders.layers import KWinners, Mwd, MwdConv2d
from verifier.training.layers import Residual


@dataclass(frozen=True)
class Boxes:
    """Values at the inputs and boxes around them, `(batch, *shape)`.

    clean: None where nothing asks for these values, which are a third of the work.
    tape: the layers passed on the way, chains and blocks taken apart, each with the boxes before it.
    """

    clean: Tensor | None
    lower: Tensor
    upper: Tensor
    tape: list[tuple[nn.Module, Boxes]] = field(default_factory=list, repr=False)

    def behind(self, layer: nn.Module, lower: Tensor, upper: Tensor) -> Boxes:
        """Return the boxes behind a layer, of these ends."""
        return Boxes(None if self.clean is None else layer(self.clean), lower, upper, self.tape)

    @property
    def hinges(self) -> list[Boxes]:
        """The boxes before relus on the way."""
        return [before for layer, before in self.tape if isinstance(layer, nn.ReLU)]


def around(clean: Tensor, middle: Tensor, radius: float, domain: tuple[float, float] | None) -> Boxes:
    """Return boxes around points `(batch, *shape)`, cut to the domain, with the inputs to run beside them."""
    lower, upper = middle - radius, middle + radius
    if domain is not None:
        lower, upper = lower.clamp(min=domain[0]), upper.clamp(max=domain[1])
    return Boxes(clean, lower, upper)


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
    own = functional.one_hot(y, boxes.lower.shape[1]).bool()
    return boxes, torch.where(own, boxes.lower, boxes.upper)


def _merged(layer: nn.Linear, boxes: Boxes, y: Tensor) -> Tensor:
    middle, half = (boxes.lower + boxes.upper) / 2, (boxes.upper - boxes.lower) / 2
    rows, constants = merged_rows(layer, y)
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
    total = Boxes(clean, body.lower + shortcut.lower, body.upper + shortcut.upper, boxes.tape)
    return propagate(nn.ReLU(), total)


def _affine(module: nn.Module, boxes: Boxes) -> Boxes:
    assert isinstance(module, nn.Linear | nn.Conv2d)
    # Halved once in the weights, which are fewer than the values.
    total, width, weight = boxes.lower + boxes.upper, boxes.upper - boxes.lower, module.weight / 2
    if isinstance(module, nn.Linear):
        centre = functional.linear(total, weight, module.bias)
        radius = functional.linear(width, weight.abs())
    else:
        # As the module does it, whatever its padding.
        centre = module._conv_forward(total, weight, module.bias)
        radius = module._conv_forward(width, weight.abs(), None)
    return boxes.behind(module, centre - radius, centre + radius)


def _monotone(module: nn.Module, boxes: Boxes) -> Boxes:
    return boxes.behind(module, module(boxes.lower), module(boxes.upper))


def _normalised(module: nn.Module, boxes: Boxes) -> Boxes:
    assert isinstance(module, nn.BatchNorm2d)
    scale, shift = (values[:, None, None] for values in batch_scale(module, boxes.clean))
    low, high = (torch.where(scale >= 0, *pair) for pair in _both_ways(boxes.lower * scale, boxes.upper * scale))
    return boxes.behind(module, low + shift, high + shift)


def batch_scale(module: nn.BatchNorm2d, clean: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return scale and shift of the channels, in training by the statistics of the clean values."""
    mean, variance = module.running_mean, module.running_var
    assert mean is not None and variance is not None
    if module.training:
        assert clean is not None
        mean = clean.mean(dim=(0, 2, 3))
        variance = clean.var(dim=(0, 2, 3), unbiased=False)
    scale = module.weight / (variance + module.eps).sqrt()
    return scale, module.bias - mean * scale


def _both_ways(a: Tensor, b: Tensor) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    return (a, b), (b, a)


def _random(module: nn.Module, boxes: Boxes) -> Boxes:
    if module.training:
        raise TypeError("certified training does not support dropout: clean values and both ends would differ by it")
    return boxes


def _winners(module: nn.Module, boxes: Boxes) -> Boxes:
    assert isinstance(module, KWinners)
    found = module.op(boxes.lower).interval(Box.unchecked(boxes.lower, boxes.upper))
    return boxes.behind(module, found.lower, found.upper)


def _mwd(module: nn.Module, boxes: Boxes) -> Boxes:
    assert isinstance(module, Mwd | MwdConv2d)
    return boxes.behind(module, *module.pseudo_interval(boxes.lower, boxes.upper))


INTERVALS: dict[type[nn.Module], Callable[[nn.Module, Boxes], Boxes]] = {
    nn.Sequential: _chain,
    Residual: _residual,
    nn.Linear: _affine,
    nn.Conv2d: _affine,
    nn.BatchNorm2d: _normalised,
    nn.ReLU: _monotone,
    nn.Sigmoid: _monotone,
    nn.Tanh: _monotone,
    nn.MaxPool2d: _monotone,
    nn.AvgPool2d: _monotone,
    nn.AdaptiveAvgPool2d: _monotone,
    nn.Flatten: _monotone,
    nn.Unflatten: _monotone,
    nn.Dropout: _random,
    KWinners: _winners,
    Mwd: _mwd,
    MwdConv2d: _mwd,
}
