"""The value of every op of the table at one point, without rounding: an oracle written from the definitions.

On numpy object arrays of `Fraction` (ops without roots and exponentials) or of mpmath numbers with PRECISION bits,
independent of the code under test.
"""

import itertools
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import mpmath
import numpy as np
from torch import Tensor

from encoders.ops import (
    Abs,
    Add,
    AddConstant,
    Affine,
    ArgMax,
    AveragePool2d,
    AxisSum,
    BatchNorm,
    Concat,
    Conv2d,
    Curve,
    DivideConstant,
    Gather,
    GlobalAveragePool,
    KWinners,
    LeakyRelu,
    LogSoftmax,
    MatrixProduct,
    MaxPool2d,
    MultiplyConstant,
    Mwd,
    MwdConv2d,
    Op,
    Product,
    Relu,
    ReluDifference,
    Reshape,
    Sigmoid,
    Slice,
    Softmax,
    Sub,
    Tanh,
    Transpose,
)
from tests.oracles.class_values import first_greatest, k_winners_value, softmax_value
from tests.oracles.curve_values import curve_value

# Sums of floats between 2^-1074 and 2^1023 are exact within this many bits.
PRECISION = 2400
Exact = np.ndarray[Any, Any]
# The kinds whose values are no fractions.
IRRATIONAL = ("batch-norm", "sigmoid", "tanh", "curve", "softmax", "log-softmax", "mwd", "mwd-conv2d")


def exact_numbers(x: Tensor, number: Callable[[float], Any]) -> Exact:
    result = np.empty(x.numel(), dtype=object)
    result[:] = [number(value) for value in x.flatten().tolist()]
    return result.reshape(tuple(x.shape))


def exponential(v: Any) -> Any:
    """Return exp(v), v <= 0; below any float, where mpmath takes minutes, a number that lies below any float."""
    return mpmath.exp(v) if v > -(10**6) else mpmath.ldexp(1, -2000)


def one_minus_exponential(v: Any) -> Any:
    """Return 1 - exp(v), v <= 0, without cancellation."""
    return -mpmath.expm1(v) if v > -(10**6) else 1 - exponential(v)


def sigmoid(v: Any) -> Any:
    e = exponential(-abs(v))
    return e / (1 + e) if v < 0 else 1 / (1 + e)


def windows(
    shape: tuple[int, ...],
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, ...],
    dilation: tuple[int, int] = (1, 1),
) -> list[list[list[tuple[int, int, int, int]]]]:
    """Return for each output (row, column) the kernel and input places (a, b, i, j) that lie on the input."""
    height, width = shape[-2:]
    top, left, bottom, right = padding

    def starts(size: int, before: int, after: int, k: int, s: int, d: int) -> range:
        return range(-before, size + after - d * (k - 1), s)

    return [
        [
            [
                (a, b, row + a * dilation[0], column + b * dilation[1])
                for a, b in itertools.product(range(kernel[0]), range(kernel[1]))
                if 0 <= row + a * dilation[0] < height and 0 <= column + b * dilation[1] < width
            ]
            for column in starts(width, left, right, kernel[1], stride[1], dilation[1])
        ]
        for row in starts(height, top, bottom, kernel[0], stride[0], dilation[0])
    ]


def exact_value(op: Op, x: tuple[Exact, ...], number: Callable[[float], Any]) -> Exact:
    """Return the op's value at one point (no batch axis), without rounding (irrational ops: PRECISION bits)."""

    def weights(t: Tensor) -> Exact:
        return exact_numbers(t, number)

    match op:
        case Affine():
            y = x[0] @ weights(op.weight).T
            return y if op.bias is None else y + weights(op.bias)
        case Conv2d():
            weight, places = (
                weights(op.weight),
                windows(x[0].shape, tuple(op.weight.shape[2:]), op.stride, op.padding, op.dilation),
            )
            inputs, outputs = op.weight.shape[1], op.weight.shape[0] // op.groups
            return np.array(
                [
                    [
                        [
                            sum(
                                (
                                    weight[o, c, a, b] * x[0][o // outputs * inputs + c, i, j]
                                    for c in range(inputs)
                                    for a, b, i, j in window
                                ),
                                start=number(0.0 if op.bias is None else float(op.bias[o])),
                            )
                            for window in row
                        ]
                        for row in places
                    ]
                    for o in range(op.weight.shape[0])
                ],
                dtype=object,
            )
        case AveragePool2d():
            places = windows(x[0].shape, op.kernel, op.stride, op.padding)
            full = op.kernel[0] * op.kernel[1]
            return np.array(
                [
                    [
                        [
                            sum((channel[i, j] for _, _, i, j in window), start=number(0.0))
                            / (full if op.count_padding else len(window))
                            for window in row
                        ]
                        for row in places
                    ]
                    for channel in x[0]
                ],
                dtype=object,
            )
        case MaxPool2d():
            places = windows(x[0].shape, op.kernel, op.stride, op.padding, op.dilation)
            return np.array(
                [
                    [[max(channel[i, j] for _, _, i, j in window) for window in row] for row in places]
                    for channel in x[0]
                ],
                dtype=object,
            )
        case GlobalAveragePool():
            mean = x[0].reshape(x[0].shape[0], -1).sum(axis=1) / op.size
            return mean.reshape(mean.shape[0], *[1] * (x[0].ndim - 1)) if op.keep_axes else mean
        case Product():
            return x[0] * x[1]
        case MatrixProduct():
            return np.matmul(x[0], x[1])
        case ReluDifference():
            return np.maximum(x[1] + x[0], 0) - np.maximum(x[1], 0)
        case Add():
            return x[0] + x[1]
        case Sub():
            return x[0] - x[1]
        case AddConstant():
            return x[0] + weights(op.constant)
        case MultiplyConstant():
            return x[0] * weights(op.constant)
        case DivideConstant():
            return x[0] / weights(op.constant)
        case Reshape():
            return x[0].reshape(op.shape)
        case Transpose():
            return x[0].transpose(op.permutation)
        case Concat():
            return np.concatenate(x, axis=op.axis)
        case Slice():
            return np.take(x[0], range(op.start, op.stop, op.step), axis=op.axis)
        case Gather():
            flat = [*x[0].reshape(-1).tolist(), None]
            constants = op.index.new_zeros(()) if op.constant is None else op.constant
            constants = exact_numbers(constants.expand(op.index.shape), number).reshape(-1)
            values = [constants[i] if place < 0 else flat[place] for i, place in enumerate(op.index.flatten().tolist())]
            result = np.empty(len(values), dtype=object)
            result[:] = values
            return result.reshape(tuple(op.index.shape))
        case AxisSum():
            return np.asarray(x[0].sum(axis=op.axes, keepdims=op.keep_axes), dtype=object)
        case BatchNorm():
            axes = (-1, *[1] * (x[0].ndim - 1))
            mean, variance, scale, shift = (
                weights(t).reshape(axes) for t in (op.mean, op.variance, op.scale, op.shift)
            )
            deviation = np.vectorize(mpmath.sqrt, otypes=[object])(variance + number(op.epsilon))
            return (x[0] - mean) / deviation * scale + shift
        case Relu():
            return np.maximum(x[0], number(0.0))
        case LeakyRelu():
            return np.where(x[0] >= 0, x[0], x[0] * number(op.slope))
        case Abs():
            return abs(x[0])
        case Sigmoid():
            return np.vectorize(sigmoid, otypes=[object])(x[0])
        case Tanh():
            return np.vectorize(mpmath.tanh, otypes=[object])(x[0])
        case Curve():
            values = [curve_value(op.function, op.arguments, v) for v in x[0].reshape(-1).tolist()]
            return np.array([*values, None], dtype=object)[:-1].reshape(x[0].shape)
        case Softmax() | LogSoftmax():
            return softmax_value(x[0], op.axis, isinstance(op, LogSoftmax))
        case ArgMax():
            return first_greatest(x[0], op.axis, op.keep_axis, number)
        case KWinners():
            return k_winners_value(x[0], op.count, number)
        case MwdConv2d():
            return np.array(
                [
                    [
                        [exact_value(one, (x[0][c, i, j],), number)[0] for (one, c, i, j) in row]
                        for row in unit_windows(op, unit, x[0].shape)
                    ]
                    for unit in range(len(op.negated))
                ],
                dtype=object,
            )
        case Mwd(link="linear"):
            z = abs(weights(op.weight) * (x[0] - weights(op.attractor))).max(axis=1)
            bias = 0 * z if op.bias is None else weights(op.bias)
            return np.where(op.negated.numpy(), z, -z) + bias
        case Mwd():
            s = (abs(weights(op.weight) * (x[0] - weights(op.attractor))).max(axis=1)) ** 2
            links = [one_minus_exponential if negated else exponential for negated in op.negated.tolist()]
            return np.array([link(-v) for link, v in zip(links, s, strict=True)], dtype=object)
    raise AssertionError(f"no oracle for {op.kind}")


def unit_windows(op: MwdConv2d, unit: int, shape: tuple[int, ...]) -> list[list[tuple[Mwd, list[int], Any, Any]]]:
    """Return for each position the dense unit of the places on the image, and their (channels, rows, columns)."""
    result = []
    for row in windows(shape, op.kernel, op.stride, op.padding):
        result.append([])
        for window in row:
            places = [(c, *place) for c in range(op.weight.shape[1]) for place in window]
            c, a, b, i, j = (list(part) for part in zip(*places, strict=True))
            weight, attractor = op.weight[unit, c, a, b][None], op.attractor[unit, c, a, b][None]
            result[-1].append((Mwd(weight, attractor, op.negated[unit : unit + 1]), c, i, j))
    return result


def is_linear(op: Op) -> bool:
    curved = Relu | LeakyRelu | Abs | Sigmoid | Tanh | Curve | Softmax | LogSoftmax
    others = ArgMax | KWinners | Product | MatrixProduct | ReluDifference | Mwd | MwdConv2d
    return not isinstance(op, curved | MaxPool2d | others)


def number_for(op: Op) -> Callable[[float], Any]:
    return mpmath.mpf if op.kind in IRRATIONAL else Fraction
