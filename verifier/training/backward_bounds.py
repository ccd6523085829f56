"""Linear upper bounds of class margins, backwards through modules: the last step of CROWN-IBP (Zhang et al. 2020).

From rows A of z_k - z_y, layer by layer back to the input, with the boxes of interval propagation before every relu:

    affine   A <- A W, the constant grows by A b
    relu     for l < 0 < u: above by u / (u - l) (x - l) where A > 0, below by 0 or x, whichever is nearer (u > -l: x)
                where A < 0 (Zhang et al. 2018); x or 0 elsewhere

and at the end sum_i max(A_i lower_i, A_i upper_i). Differentiable by the weights, in their dtype, not rounded outward:
for training only. Supports what the table has, in chains and residual blocks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.grad import conv2d_input

from verifier.training.intervals import Boxes, batch_scale, merged_rows
from verifier.training.layers import Residual

Tape = list[tuple[nn.Module, Boxes]]


@dataclass(frozen=True)
class Rows:
    """Linear functions of a layer's values: `(batch, classes, *shape)` and constants `(batch, classes)`."""

    slopes: Tensor
    constants: Tensor


def backward_scores(module: nn.Module, start: Boxes, y: Tensor) -> Tensor:
    """Return upper bounds of z_k - z_y over boxes of the inputs, `(batch, classes)`; 0 for y itself.

    start: the boxes that `worst_scores` went out from, whose tape is read backwards. TypeError names a layer that is
    not supported, or a network that does not end in a linear layer.
    """
    if not isinstance(module, nn.Sequential) or not len(module) or not isinstance(module[-1], nn.Linear):
        raise TypeError("backward bounds take a chain that ends in a linear layer")
    tape = list(start.tape)
    last, _ = tape.pop()
    assert last is module[-1]
    rows = _back(module[:-1], Rows(*merged_rows(module[-1], y)), tape)
    assert not tape
    ends = torch.where(rows.slopes > 0, start.upper[:, None], start.lower[:, None])
    return (rows.slopes * ends).flatten(2).sum(dim=2) + rows.constants


def _back(module: nn.Module, rows: Rows, tape: Tape) -> Rows:
    """Return the rows before a module, whose boxes are the last of the tape, which loses them."""
    if isinstance(module, nn.Sequential):
        return _chain(module, rows, tape)
    if isinstance(module, Residual):
        return _residual(module, rows, tape)
    rule = BACKWARD.get(type(module))
    if rule is None:
        known = ", ".join(kind.__name__ for kind in BACKWARD)
        raise TypeError(f"backward bounds do not support the layer {type(module).__name__}; supported: {known}")
    passed, boxes = tape.pop()
    assert passed is module
    return rule(module, boxes, rows)


def _chain(module: nn.Sequential, rows: Rows, tape: Tape) -> Rows:
    for layer in reversed([*module]):
        rows = _back(layer, rows, tape)
    return rows


def _residual(module: Residual, rows: Rows, tape: Tape) -> Rows:
    _, boxes = tape.pop()
    rows = _relu(module, boxes, rows)
    # The body was passed first.
    shortcut = _chain(module.shortcut, rows, tape)
    body = _chain(module.body, Rows(rows.slopes, torch.zeros_like(rows.constants)), tape)
    return Rows(body.slopes + shortcut.slopes, body.constants + shortcut.constants)


def _linear(module: nn.Module, boxes: Boxes, rows: Rows) -> Rows:
    assert isinstance(module, nn.Linear)
    constants = rows.constants if module.bias is None else rows.constants + rows.slopes @ module.bias
    return Rows(rows.slopes @ module.weight, constants)


def _convolution(module: nn.Module, boxes: Boxes, rows: Rows) -> Rows:
    assert isinstance(module, nn.Conv2d)
    shape, inside = rows.slopes.shape, boxes.lower.shape[1:]
    flat = rows.slopes.flatten(0, 1)
    # The gradient of <A, conv(x)> by x, which is the adjoint whatever stride and padding.
    padding = module.padding
    if isinstance(padding, str) or module.padding_mode != "zeros":
        raise TypeError("backward bounds take convolutions with zeros as padding, by number")
    moved = conv2d_input(
        (len(flat), *inside), module.weight, flat, module.stride, padding, module.dilation, module.groups
    )
    constants = rows.constants
    if module.bias is not None:
        constants = constants + (rows.slopes.sum(dim=(3, 4)) * module.bias).sum(dim=2)
    return Rows(moved.reshape(*shape[:2], *inside), constants)


def _normalised(module: nn.Module, boxes: Boxes, rows: Rows) -> Rows:
    assert isinstance(module, nn.BatchNorm2d)
    scale, shift = batch_scale(module, boxes)
    constants = rows.constants + (rows.slopes.sum(dim=(3, 4)) * shift).sum(dim=2)
    return Rows(rows.slopes * scale[:, None, None], constants)


def _relu(module: nn.Module, boxes: Boxes, rows: Rows) -> Rows:
    lower, upper = boxes.lower[:, None], boxes.upper[:, None]
    open_units = (lower < 0) & (upper > 0)
    width = torch.where(open_units, upper - lower, 1.0)
    above = torch.where(open_units, upper / width, (lower >= 0).to(lower))
    below = torch.where(open_units, (upper > -lower).to(lower), (lower >= 0).to(lower))
    positive = rows.slopes.clamp(min=0)
    intercept = torch.where(open_units, -lower * above, 0.0)
    slopes = torch.where(rows.slopes > 0, rows.slopes * above, rows.slopes * below)
    return Rows(slopes, rows.constants + (positive * intercept).flatten(2).sum(dim=2))


def _reshaped(module: nn.Module, boxes: Boxes, rows: Rows) -> Rows:
    return Rows(rows.slopes.reshape(*rows.slopes.shape[:2], *boxes.lower.shape[1:]), rows.constants)


def _mean(module: nn.Module, boxes: Boxes, rows: Rows) -> Rows:
    assert isinstance(module, nn.AdaptiveAvgPool2d)
    if module.output_size not in (1, (1, 1)):
        raise TypeError("backward bounds take means over the whole image only")
    height, width = boxes.lower.shape[2:]
    return Rows(rows.slopes.expand(-1, -1, -1, height, width) / (height * width), rows.constants)


BACKWARD: dict[type[nn.Module], Callable[[nn.Module, Boxes, Rows], Rows]] = {
    nn.Linear: _linear,
    nn.Conv2d: _convolution,
    nn.BatchNorm2d: _normalised,
    nn.ReLU: _relu,
    nn.Flatten: _reshaped,
    nn.Unflatten: _reshaped,
    nn.AdaptiveAvgPool2d: _mean,
}
