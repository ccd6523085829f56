"""Executions of a network that an arithmetic allows: each op in an order of summation of its own, fused or not.

What `encoders.arithmetic` bounds, drawn at random: as torch computes; with sums kept in float64 and rounded once; term
by term in any order, with products rounded or not; batch normalisation folded into a factor and a shift.
"""

from __future__ import annotations

import random

import torch
from torch import Tensor

from encoders import Network
from encoders.network import INPUT
from encoders.ops import Affine, BatchNorm, Conv2d, Op

F64 = torch.float64


def execution(network: Network, x: Tensor, rng: random.Random) -> Tensor:
    """Return the outputs `(batch, *output_shape)` of one execution at points `(batch, *input_shape)` in its dtype."""
    values = {INPUT: x}
    with torch.no_grad():
        for node in network.nodes:
            values[node.name] = _executed(node.op, [values[name] for name in node.inputs], rng)
    return values[network.output.name]


def _executed(op: Op, inputs: list[Tensor], rng: random.Random) -> Tensor:
    draw = rng.random()
    if draw < 0.25:
        return op.evaluate(*inputs)
    if draw < 0.5:
        # Each result is rounded once.
        wide = op.cast(F64, inputs[0].device)
        return wide.evaluate(*(value.to(F64) for value in inputs)).to(inputs[0].dtype)
    if isinstance(op, Affine):
        return _summed(op, inputs[0], rng)
    if isinstance(op, Conv2d) and op.groups == 1:
        order = rng.sample(range(op.weight.shape[1]), op.weight.shape[1])
        turned = Conv2d(op.weight[:, order], op.bias, op.stride, op.padding, op.dilation, 1)
        return turned.evaluate(inputs[0][:, order])
    if isinstance(op, BatchNorm):
        factor = op.scale / torch.sqrt(op.variance + op.epsilon)
        axes = (-1, *[1] * (inputs[0].dim() - 2))
        return inputs[0] * factor.reshape(axes) + (op.shift - factor * op.mean).reshape(axes)
    return op.evaluate(*inputs)


def _summed(op: Affine, x: Tensor, rng: random.Random) -> Tensor:
    """Return the sums term by term in a drawn order, the bias first or last, products rounded or not."""
    fused, first = rng.random() < 0.5, rng.random() < 0.5
    shape = (*x.shape[:-1], op.weight.shape[0])
    bias = x.new_zeros(shape) if op.bias is None else op.bias.expand(shape)
    total = bias if first else x.new_zeros(shape)
    for column in rng.sample(range(x.shape[-1]), x.shape[-1]):
        value, weight = x[..., column, None], op.weight[:, column]
        # Of two float32 the product is exact in float64.
        exact = total.to(F64) + value.to(F64) * weight.to(F64)
        total = exact.to(x.dtype) if fused else total + value * weight
    return total if first else total + bias
