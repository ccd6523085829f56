"""Intervals through modules, differentiable by their weights: what certified training descends on.

One row of `INTERVALS` a kind of layer, of chains and residual blocks of them. In the dtype of the weights and not
rounded outward: it guides training and proves nothing. The sizes are those of interval propagation (Gowal et al. 2018):

    affine      centre W m + b, radius |W| r          for the middle m and half the width r of the box
    monotone    both ends
    normalised  scale and shift of batch statistics, in training those of the clean inputs (Shi et al. 2021)
    MWD         `pseudo_interval` of the layer
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional

from encoders.layers import Mwd, MwdConv2d
from verifier.training.layers import Residual


@dataclass(frozen=True)
class Boxes:
    """Values at the inputs and boxes around them, `(batch, *shape)`; hinges: the boxes before relus on the way."""

    clean: Tensor
    lower: Tensor
    upper: Tensor
    hinges: list[tuple[Tensor, Tensor]] = field(default_factory=list)

    def ends(self, clean: Tensor, lower: Tensor, upper: Tensor) -> Boxes:
        """Return the boxes behind a layer."""
        return Boxes(clean, lower, upper, self.hinges)


def propagate(module: nn.Module, boxes: Boxes) -> Boxes:
    """Return the boxes behind a module; TypeError names a layer that intervals do not support in training."""
    rule = INTERVALS.get(type(module))
    if rule is None:
        known = ", ".join(kind.__name__ for kind in INTERVALS)
        raise TypeError(f"certified training does not support the layer {type(module).__name__}; supported: {known}")
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
    rows = layer.weight[None] - layer.weight[y][:, None]
    margins = torch.einsum("bkn,bn->bk", rows, middle) + torch.einsum("bkn,bn->bk", rows.abs(), half)
    return margins if layer.bias is None else margins + layer.bias[None] - layer.bias[y][:, None]


def _chain(module: nn.Module, boxes: Boxes) -> Boxes:
    assert isinstance(module, nn.Sequential)
    # Not `children`, which leaves out a layer that stands in two places.
    for layer in module:
        boxes = propagate(layer, boxes)
    return boxes


def _residual(module: nn.Module, boxes: Boxes) -> Boxes:
    assert isinstance(module, Residual)
    body, shortcut = propagate(module.body, boxes), propagate(module.shortcut, boxes)
    total = boxes.ends(body.clean + shortcut.clean, body.lower + shortcut.lower, body.upper + shortcut.upper)
    return _hinge(nn.ReLU(), total)


def _affine(module: nn.Module, boxes: Boxes) -> Boxes:
    assert isinstance(module, nn.Linear | nn.Conv2d)
    middle, half = (boxes.lower + boxes.upper) / 2, (boxes.upper - boxes.lower) / 2
    if isinstance(module, nn.Linear):
        radius = functional.linear(half, module.weight.abs())
    else:
        # As the module does it, whatever its padding.
        radius = module._conv_forward(half, module.weight.abs(), None)
    centre = module(middle)
    return boxes.ends(module(boxes.clean), centre - radius, centre + radius)


def _hinge(module: nn.Module, boxes: Boxes) -> Boxes:
    boxes.hinges.append((boxes.lower, boxes.upper))
    return _monotone(module, boxes)


def _monotone(module: nn.Module, boxes: Boxes) -> Boxes:
    return boxes.ends(module(boxes.clean), module(boxes.lower), module(boxes.upper))


def _normalised(module: nn.Module, boxes: Boxes) -> Boxes:
    assert isinstance(module, nn.BatchNorm2d) and module.running_mean is not None and module.running_var is not None
    mean, variance = module.running_mean, module.running_var
    if module.training:
        mean = boxes.clean.mean(dim=(0, 2, 3))
        variance = boxes.clean.var(dim=(0, 2, 3), unbiased=False)
    scale = module.weight / (variance + module.eps).sqrt()
    shift = (module.bias - mean * scale)[:, None, None]
    factor = scale[:, None, None]
    low, high = (torch.where(factor >= 0, *pair) for pair in _both_ways(boxes.lower * factor, boxes.upper * factor))
    return boxes.ends(module(boxes.clean), low + shift, high + shift)


def _both_ways(a: Tensor, b: Tensor) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    return (a, b), (b, a)


def _random(module: nn.Module, boxes: Boxes) -> Boxes:
    if module.training:
        raise TypeError("certified training does not support dropout: clean values and both ends would differ by it")
    return boxes


def _mwd(module: nn.Module, boxes: Boxes) -> Boxes:
    assert isinstance(module, Mwd | MwdConv2d)
    return boxes.ends(module(boxes.clean), *module.pseudo_interval(boxes.lower, boxes.upper))


INTERVALS: dict[type[nn.Module], Callable[[nn.Module, Boxes], Boxes]] = {
    nn.Sequential: _chain,
    Residual: _residual,
    nn.Linear: _affine,
    nn.Conv2d: _affine,
    nn.BatchNorm2d: _normalised,
    nn.ReLU: _hinge,
    nn.Sigmoid: _monotone,
    nn.Tanh: _monotone,
    nn.MaxPool2d: _monotone,
    nn.AvgPool2d: _monotone,
    nn.AdaptiveAvgPool2d: _monotone,
    nn.Flatten: _monotone,
    nn.Unflatten: _monotone,
    nn.Dropout: _random,
    Mwd: _mwd,
    MwdConv2d: _mwd,
}
