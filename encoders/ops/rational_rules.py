"""What each op does to rational numbers: one table. Ops that are not in it leave the rationals.

A rule gives the op's value in real arithmetic on the stored weights, from its definition and not from its interval.
Sigmoid, tanh and the Gaussian link have no rule; where they come last their order is that of their inputs
(`encoders.exact_order`). Batch normalisation has one where the root of each variance is rational, or its scale is 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from torch import Tensor

from encoders.ops.affine import Affine
from encoders.ops.base import Op
from encoders.ops.convolution import Conv2d
from encoders.ops.elementwise import Add, AddConstant, DivideConstant, MultiplyConstant, Sub
from encoders.ops.hinge import Abs, LeakyRelu, Relu
from encoders.ops.mwd import Mwd
from encoders.ops.mwd_convolution import MwdConv2d
from encoders.ops.normalization import BatchNorm
from encoders.ops.pooling import AveragePool2d, GlobalAveragePool, MaxPool2d
from encoders.ops.shape import Concat, Reshape, Slice, Transpose
from encoders.rationals import NotEvaluated, Rationals, join, product
from encoders.views.windows import over_channels, window_cells

# Told of multiplications before they are made; raises NotEvaluated where they are too many.
Afford = Callable[[int], None]
# (the op, its inputs `(batch, *shape)`, afford) -> its output
Rule = Callable[[Any, tuple[Rationals, ...], Afford], Rationals]
# Multiplications in float64 that one operation on Python's numbers takes as long as.
PYTHON_COST = 100


def distances(op: Mwd | MwdConv2d, x: Rationals, afford: Afford) -> Rationals:
    """Return max_i u_i |x_i - w_i| `(batch, units)` of an MWD layer, before its link."""
    dense = op if isinstance(op, Mwd) else op.as_dense(x.shape[1:])
    flat = x.map(lambda n: n.reshape(n.shape[0], 1, -1))
    afford(3 * PYTHON_COST * x.shape[0] * dense.weight.numel())
    away = (flat - Rationals.of(dense.attractor)).map(np.abs)
    return (Rationals.of(dense.weight) * away).map(lambda n: np.maximum.reduce(n, axis=2))


def _affine(op: Affine, x: tuple[Rationals, ...], afford: Afford) -> Rationals:
    result = product(x[0], op.weight, afford)
    return result if op.bias is None else result + Rationals.of(op.bias)


def _conv2d(op: Conv2d, x: tuple[Rationals, ...], afford: Afford) -> Rationals:
    (value,) = x
    kernel = (int(op.weight.shape[2]), int(op.weight.shape[3]))
    height, width = op.output_shape(value.shape[1:])[1:]
    cells = window_cells(value.shape[1:], kernel, op.stride, op.padding, op.dilation).numpy()
    # Axes: batch, channel, window, cell; the last place of a flattened map is the padding's.
    maps = value.numerators.reshape(*value.shape[:2], -1)
    padded = np.concatenate([maps, np.zeros_like(maps[:, :, :1])], axis=2)[:, :, cells]
    inputs, outputs = int(op.weight.shape[1]), int(op.weight.shape[0]) // op.groups
    parts = []
    for group in range(op.groups):
        windows = padded[:, group * inputs : (group + 1) * inputs].transpose(0, 2, 1, 3)
        windows = windows.reshape(*windows.shape[:2], -1)
        weight = op.weight[group * outputs : (group + 1) * outputs].flatten(1)
        parts.append(product(Rationals(windows, value.denominator), weight, afford))
    result = parts[0]
    for part in parts[1:]:
        result = join(result, part, axis=2)
    if op.bias is not None:
        result = result + Rationals.of(op.bias)
    return result.map(lambda n: n.transpose(0, 2, 1).reshape(n.shape[0], -1, height, width))


def _cells(op: MaxPool2d | AveragePool2d, x: Rationals) -> tuple[Any, Any]:
    """Return (values, mask of those on the map) of the windows, `(batch, windows, cells)`."""
    dilation = op.dilation if isinstance(op, MaxPool2d) else (1, 1)
    shape = x.shape[1:]
    cells = window_cells(shape, op.kernel, op.stride, op.padding, dilation)
    places = over_channels(cells, shape[0], shape[1] * shape[2]).numpy()
    return x.numerators.reshape(x.shape[0], -1)[:, places], places >= 0


def _max_pool(op: MaxPool2d, x: tuple[Rationals, ...], afford: Afford) -> Rationals:
    values, present = _cells(op, x[0])
    # Every window has a cell on the map; it stands in for those in the padding.
    chosen = present.argmax(axis=1)
    values = np.where(present, values, values[:, np.arange(len(chosen)), chosen][:, :, None])
    shape = op.output_shape(x[0].shape[1:])
    return Rationals(np.maximum.reduce(values, axis=2).reshape(-1, *shape), x[0].denominator)


def _average_pool(op: AveragePool2d, x: tuple[Rationals, ...], afford: Afford) -> Rationals:
    values, present = _cells(op, x[0])
    sums = np.add.reduce(np.where(present, values, 0), axis=2)
    counts = np.full(len(present), op.kernel[0] * op.kernel[1]) if op.count_padding else present.sum(axis=1)
    common = math.lcm(*counts.tolist())
    shares = np.array([common // count for count in counts.tolist()], dtype=object)
    shape = op.output_shape(x[0].shape[1:])
    return Rationals((sums * shares).reshape(-1, *shape), x[0].denominator * common)


def _global_average(op: GlobalAveragePool, x: tuple[Rationals, ...], afford: Afford) -> Rationals:
    (value,) = x
    sums = np.add.reduce(value.numerators.reshape(*value.shape[:2], -1), axis=2)
    return Rationals(sums.reshape(-1, *op.output_shape(value.shape[1:])), value.denominator * op.size)


def _moved(op: Op, x: tuple[Rationals, ...], afford: Afford) -> Rationals:
    """Rearrangements: which value goes where is read off the places' own numbers."""
    (value,) = x
    places = op.evaluate(torch.arange(math.prod(value.shape[1:])).reshape(1, *value.shape[1:]))[0].numpy()
    return value.map(lambda n: n.reshape(n.shape[0], -1)[:, places])


def _concat(op: Concat, x: tuple[Rationals, ...], afford: Afford) -> Rationals:
    return join(x[0], x[1], op.axis + 1)


def _leaky_relu(op: LeakyRelu, x: tuple[Rationals, ...], afford: Afford) -> Rationals:
    slope = Fraction(op.slope)
    numerators = x[0].numerators
    bent = np.where(numerators < 0, numerators * slope.numerator, numerators * slope.denominator)
    return Rationals(bent, x[0].denominator * slope.denominator).reduced()


def _batch_norm(op: BatchNorm, x: tuple[Rationals, ...], afford: Afford) -> Rationals:
    axes = (-1, *[1] * (len(x[0].shape) - 2))
    factors, divisors = [], []
    for variance, scale in zip(Rationals.of(op.variance).values(), Rationals.of(op.scale).values(), strict=True):
        root = Fraction(1) if scale == 0 else _root(variance + Fraction(op.epsilon))
        if root is None:
            raise NotEvaluated("batch-norm divides by the root of a number that is no square")
        factors.append(scale.numerator * root.denominator)
        divisors.append(scale.denominator * root.numerator)
    common = math.lcm(*divisors)
    whole = np.array([f * (common // d) for f, d in zip(factors, divisors, strict=True)], dtype=object)
    mean, shift = (Rationals.of(part.reshape(axes)) for part in (op.mean, op.shift))
    return (x[0] - mean) * Rationals(whole.reshape(axes), common) + shift


def _root(value: Fraction) -> Fraction | None:
    """Return the square root of a positive number if it is rational."""
    root = Fraction(math.isqrt(value.numerator), math.isqrt(value.denominator))
    return root if root * root == value else None


def _mwd(op: Mwd, x: tuple[Rationals, ...], afford: Afford) -> Rationals:
    if not op.has_linear_link:
        raise NotEvaluated("the Gaussian link of mwd leaves the rational numbers")
    result = distances(op, x[0], afford).map(lambda n: np.where(op.negated.cpu().numpy(), n, -n))
    return result if op.bias is None else result + Rationals.of(op.bias)


def _constant(value: Tensor, x: Rationals) -> Rationals:
    """Return a constant with an axis for the batch, so that it broadcasts to x."""
    return Rationals.of(value.reshape([1] * (len(x.shape) - value.dim()) + list(value.shape)))


RATIONAL_RULES: dict[type[Op], Rule] = {
    Affine: _affine,
    Conv2d: _conv2d,
    Add: lambda op, x, afford: x[0] + x[1],
    Sub: lambda op, x, afford: x[0] - x[1],
    AddConstant: lambda op, x, afford: x[0] + _constant(op.constant, x[0]),
    MultiplyConstant: lambda op, x, afford: x[0] * _constant(op.constant, x[0]),
    DivideConstant: lambda op, x, afford: x[0] / _constant(op.constant, x[0]),
    Reshape: _moved,
    Transpose: _moved,
    Slice: _moved,
    Concat: _concat,
    BatchNorm: _batch_norm,
    AveragePool2d: _average_pool,
    GlobalAveragePool: _global_average,
    MaxPool2d: _max_pool,
    Relu: lambda op, x, afford: x[0].map(lambda n: np.maximum(n, 0)),
    LeakyRelu: _leaky_relu,
    Abs: lambda op, x, afford: x[0].map(np.abs),
    Mwd: _mwd,
}
