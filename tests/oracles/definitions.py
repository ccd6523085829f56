"""What every op computes in real arithmetic, from its definition, on Python's numbers: fractions, or many digits.

Shares no code with the package: windows are loops, roots of fractions are exact or refused. A value is an array of
numbers `(k, *shape)` of k functions of the input, of which `shift` `(k,)` says which take an op's constants: a point is
one function that does (shift 1); an affine function of n inputs is n slopes that do not (0) and a constant that does.
Ops that bend are a maximum of such functions: `bent` lists the candidates, and whoever asks takes the maximum.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import mpmath
import numpy as np
from torch import Tensor

from encoders.network import INPUT, Network, Node
from encoders.ops import (
    Abs,
    Add,
    AddConstant,
    Affine,
    AveragePool2d,
    AxisSum,
    BatchNorm,
    Concat,
    Conv2d,
    DivideConstant,
    Gather,
    GlobalAveragePool,
    LeakyRelu,
    MaxPool2d,
    MultiplyConstant,
    Mwd,
    MwdConv2d,
    Op,
    Relu,
    Reshape,
    Slice,
    Sub,
    Transpose,
)
from tests.oracles.op_values import exact_value

Values = Any
DIGITS = 60


@dataclass(frozen=True)
class Numbers:
    """A kind of numbers: how floats become some of them, and their roots and exponentials."""

    of: Callable[[float], Any]
    root: Callable[[Any], Any]
    exp: Callable[[Any], Any]

    def array(self, values: Tensor) -> Values:
        flat = [self.of(value) for value in values.double().flatten().tolist()]
        result = np.empty(len(flat), dtype=object)
        result[:] = flat
        return result.reshape(tuple(values.shape))


def _rational_root(value: Fraction) -> Fraction:
    root = Fraction(math.isqrt(value.numerator), math.isqrt(value.denominator))
    assert root * root == value, "no rational root"
    return root


def _no_exponential(value: Fraction) -> Fraction:
    raise AssertionError("exponentials are not rational")


_context = mpmath.MPContext()
_context.dps = DIGITS
FRACTIONS = Numbers(Fraction, _rational_root, _no_exponential)
DECIMALS = Numbers(_context.mpf, _context.sqrt, _context.exp)


def straight(numbers: Numbers, op: Op, inputs: list[Values], shift: Values) -> Values | None:
    """Return the value of an op that is affine, None for others."""
    x = inputs[0]

    def constant(values: Tensor, axes: tuple[int, ...] = ()) -> Values:
        array = numbers.array(values).reshape(axes or tuple(values.shape))
        return shift.reshape(-1, *[1] * (x.ndim - 1)) * array

    match op:
        case Affine():
            product = np.stack([numbers.array(op.weight) @ row for row in x])
            return product if op.bias is None else product + shift[:, None] * numbers.array(op.bias)
        case Conv2d():
            result = _convolved(numbers, op, x)
            return result if op.bias is None else result + constant(op.bias, (-1, 1, 1))
        case Add():
            return x + inputs[1]
        case Sub():
            return x - inputs[1]
        case AddConstant():
            return x + constant(op.constant)
        case MultiplyConstant():
            return x * numbers.array(op.constant)
        case DivideConstant():
            return x / numbers.array(op.constant)
        case BatchNorm():
            axes = (-1, *[1] * (x.ndim - 2))
            variance = numbers.array(op.variance) + numbers.of(op.epsilon)
            roots = np.array([numbers.root(v) for v in variance], dtype=object).reshape(axes)
            return (x - constant(op.mean, axes)) / roots * numbers.array(op.scale).reshape(axes) + constant(
                op.shift, axes
            )
        case AveragePool2d():
            return _averaged(op, x)
        case GlobalAveragePool():
            means = x.reshape(*x.shape[:2], -1).sum(axis=2) / op.size
            return means.reshape(x.shape[0], *op.output_shape(x.shape[1:]))
        case Reshape():
            return x.reshape(x.shape[0], *op.shape)
        case Transpose():
            return x.transpose(0, *(axis + 1 for axis in op.permutation))
        case Concat():
            return np.concatenate(inputs, axis=op.axis + 1)
        case Slice():
            places = [slice(None)] * (op.axis + 1)
            return x[(*places, slice(op.start, op.stop, op.step))]
        case Gather():
            taken = x.reshape(len(x), -1)[:, op.index.clamp(min=0).numpy()] * (op.index >= 0).numpy()
            if op.constant is None:
                return taken
            return taken + constant(op.constant.expand(op.index.shape)) * (op.index < 0).numpy()
        case AxisSum():
            return x.sum(axis=tuple(axis + 1 for axis in op.axes), keepdims=op.keep_axes)
    return None


def bent(numbers: Numbers, op: Op, x: Values, shift: Values) -> list[list[Values]] | None:
    """Return for each output, in C order, the candidates `(k,)` whose maximum it is before `finish`; None for others.

    Of MWD layers that is the distance max_j u_j |x_j - w_j|.
    """
    flat = x.reshape(x.shape[0], -1)
    match op:
        case Relu():
            return [[column, column * 0] for column in flat.T]
        case Abs():
            return [[column, -column] for column in flat.T]
        case LeakyRelu():
            return [[column, column * numbers.of(op.slope)] for column in flat.T]
        case MaxPool2d():
            windows = _windows(op.output_shape(x.shape[1:]), op.kernel, op.stride, op.padding, op.dilation, x.shape[1:])
            return [[x[:, channel, i, j] for _, _, i, j in cells] for (channel, _, _), cells in windows]
        case Mwd():
            units = zip(numbers.array(op.weight), numbers.array(op.attractor), strict=True)
            return [_distances(u, flat.T, w, shift) for u, w in units]
        case MwdConv2d():
            weight, attractor = numbers.array(op.weight), numbers.array(op.attractor)
            windows = _windows(op.output_shape(x.shape[1:]), op.kernel, op.stride, op.padding, (1, 1), x.shape[1:])
            result = []
            for (unit, _, _), cells in windows:
                at = [(c, a, b, i, j) for c in range(x.shape[1]) for a, b, i, j in cells]
                u, w = ([array[unit, c, a, b] for c, a, b, _, _ in at] for array in (weight, attractor))
                result.append(_distances(u, [x[:, c, i, j] for c, _, _, i, j in at], w, shift))
            return result
    return None


def finish(numbers: Numbers, op: Op, maxima: Values, shape: tuple[int, ...], shift: Values) -> Values:
    """Return the output `(k, *shape)` from the maxima `(k, outputs)`."""
    if isinstance(op, Mwd | MwdConv2d):
        signs = np.where(op.negated.numpy(), 1, -1).repeat(maxima.shape[1] // len(op.negated))
        if isinstance(op, Mwd) and op.link == "linear":
            maxima = maxima * signs
            maxima = maxima if op.bias is None else maxima + shift[:, None] * numbers.array(op.bias)
        else:
            near = [[numbers.exp(-d * d) for d in row] for row in maxima]
            maxima = np.array([[n if s < 0 else 1 - n for n, s in zip(row, signs, strict=True)] for row in near])
    return maxima.reshape(-1, *shape)


def value_at(numbers: Numbers, network: Network, point: Tensor, target: str | None = None) -> Values:
    """Return the value of a node (default: the output) at one point `input_shape`, flat."""
    shift = np.array([numbers.of(1.0)], dtype=object)
    values = {INPUT: numbers.array(point)[None]}
    for node in network.nodes:
        if node.name not in values:
            values[node.name] = _at(numbers, node, [values[name] for name in node.inputs], shift)
        if node.name == target:
            break
    return values[target or network.output.name].reshape(-1)


def _at(numbers: Numbers, node: Node, inputs: list[Values], shift: Values) -> Values:
    found = straight(numbers, node.op, inputs, shift)
    if found is not None:
        return found
    x = inputs[0]
    candidates = bent(numbers, node.op, x, shift)
    if candidates is not None:
        maxima = np.array([[max(value[0] for value in of_unit) for of_unit in candidates]], dtype=object)
        return finish(numbers, node.op, maxima, node.op.output_shape(x.shape[1:]), shift)
    return _elsewhere(numbers, node.op, inputs)


def _elsewhere(numbers: Numbers, op: Op, inputs: list[Values]) -> Values:
    """Return the value at one point of an op that is neither affine nor a maximum of such functions."""
    with mpmath.workdps(DIGITS):
        digits = numbers is DECIMALS
        points = [np.vectorize(mpmath.mpf, otypes=[object])(x[0]) if digits else x[0] for x in inputs]
        found = exact_value(op, tuple(points), mpmath.mpf if digits else numbers.of)
    return (np.vectorize(_context.mpf, otypes=[object])(found) if digits else found)[None]


def _distances(weights: Values, columns: Values, attractors: Values, shift: Values) -> list[Values]:
    found = []
    for u, column, w in zip(weights, columns, attractors, strict=True):
        away = u * (column - shift * w)
        found += [away, -away]
    return found


def _windows(
    shape: tuple[int, ...],
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, ...],
    dilation: tuple[int, int],
    inner: tuple[int, ...],
) -> Iterator[tuple[tuple[int, int, int], list[tuple[int, int, int, int]]]]:
    """Yield (place of the output, its cells on the map as (row in the kernel, column in it, row, column))."""
    for place in np.ndindex(*shape):
        cells = []
        for a, b in np.ndindex(*kernel):
            i = place[1] * stride[0] - padding[0] + a * dilation[0]
            j = place[2] * stride[1] - padding[1] + b * dilation[1]
            if 0 <= i < inner[1] and 0 <= j < inner[2]:
                cells.append((a, b, i, j))
        yield place, cells


def _convolved(numbers: Numbers, op: Conv2d, x: Values) -> Values:
    weight, shape = numbers.array(op.weight), op.output_shape(x.shape[1:])
    kernel, inputs = weight.shape[2:], weight.shape[1]
    result = np.zeros((x.shape[0], *shape), dtype=object) + numbers.of(0.0)
    for (unit, row, column), cells in _windows(shape, kernel, op.stride, op.padding, op.dilation, x.shape[1:]):
        first = unit // (shape[0] // op.groups) * inputs
        for a, b, i, j in cells:
            for c in range(inputs):
                result[:, unit, row, column] += weight[unit, c, a, b] * x[:, first + c, i, j]
    return result


def _averaged(op: AveragePool2d, x: Values) -> Values:
    shape = op.output_shape(x.shape[1:])
    result = np.empty((x.shape[0], *shape), dtype=object)
    for (channel, row, column), cells in _windows(shape, op.kernel, op.stride, op.padding, (1, 1), x.shape[1:]):
        count = math.prod(op.kernel) if op.count_padding else len(cells)
        result[:, channel, row, column] = sum(x[:, channel, i, j] for _, _, i, j in cells) / count
    return result
