"""The exact value of every node of a network of hinges at a point, in rationals, from the definitions."""

import math
from fractions import Fraction

import numpy as np
import torch
from torch import Tensor

from encoders.network import INPUT, Network
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
    Op,
    Relu,
    Reshape,
    Slice,
    Sub,
    Transpose,
)

F64 = torch.float64
# Digits after the point of the square roots of the oracle: far beyond any rounding of a float64.
ROOT_DIGITS = 200

exact = np.vectorize(Fraction, otypes=[object])


def fractions(values: Tensor) -> np.ndarray:
    """Return the exact numbers of a tensor."""
    return exact(values.detach().to(F64).numpy()) if values.numel() else np.zeros(tuple(values.shape), dtype=object)


def root(value: Fraction) -> Fraction:
    """Return a square root, exact to ROOT_DIGITS digits."""
    scale = 10 ** (2 * ROOT_DIGITS)
    return Fraction(math.isqrt(value.numerator * scale // value.denominator), 10**ROOT_DIGITS)


def as_matrix(op: Conv2d | AveragePool2d, shape: tuple[int, ...]) -> np.ndarray:
    """Return the matrix of an op on maps from its values at the unit vectors; those of a mean are one over a count."""
    count = math.prod(shape)
    columns = op.cast(F64, torch.device("cpu")).apply(torch.eye(count, dtype=F64).reshape(count, *shape)).flatten(1)
    matrix = fractions(columns.T)
    if isinstance(op, AveragePool2d):
        matrix = np.vectorize(lambda v: Fraction(1, round(1 / v)) if v else v, otypes=[object])(matrix)
    return matrix


def pooled(op: MaxPool2d, x: np.ndarray) -> np.ndarray:
    """Return the greatest values over the cells of each window that are not in the padding."""
    found = np.empty(op.output_shape(x.shape), dtype=object)
    for place in np.ndindex(*found.shape):
        rows, columns = (
            [
                cell
                for cell in (
                    place[axis + 1] * op.stride[axis] - op.padding[axis] + k * op.dilation[axis]
                    for k in range(op.kernel[axis])
                )
                if 0 <= cell < x.shape[axis + 1]
            ]
            for axis in (0, 1)
        )
        found[place] = x[place[0]][np.ix_(rows, columns)].max()
    return found


def value_of(op: Op, x: list[np.ndarray]) -> np.ndarray:
    """Return the exact value of an op at exact inputs, from its definition."""
    first = x[0]
    match op:
        case Affine():
            found = first @ fractions(op.weight).T
            return found if op.bias is None else found + fractions(op.bias)
        case Conv2d() | AveragePool2d():
            shape = op.output_shape(first.shape)
            found = (as_matrix(op, first.shape) @ first.flatten()).reshape(shape)
            return found if op.bias is None else found + fractions(op.bias)[:, None, None]
        case MaxPool2d():
            return pooled(op, first)
        case GlobalAveragePool():
            axes = tuple(range(1, first.ndim))
            return first.sum(axis=axes, keepdims=op.keep_axes) / Fraction(op.size)
        case BatchNorm():
            axes = (-1, *[1] * (first.ndim - 1))
            mean, variance, scale, shift = (
                fractions(v).reshape(axes) for v in (op.mean, op.variance, op.scale, op.shift)
            )
            deviation = np.vectorize(root, otypes=[object])(variance + Fraction(op.epsilon))
            return (first - mean) / deviation * scale + shift
        case Add():
            return first + x[1]
        case Sub():
            return first - x[1]
        case AddConstant():
            return first + fractions(op.constant)
        case MultiplyConstant():
            return first * fractions(op.constant)
        case DivideConstant():
            return first / fractions(op.constant)
        case Concat():
            return np.concatenate(x, axis=op.axis)
        case Slice():
            return first[(*[slice(None)] * op.axis, slice(op.start, op.stop, op.step))]
        case Gather():
            fill = 0 if op.constant is None else fractions(op.constant.expand(op.index.shape))
            return np.where(op.index.numpy() >= 0, first.reshape(-1)[op.index.clamp(min=0).numpy()], fill)
        case AxisSum():
            return np.asarray(first.sum(axis=op.axes, keepdims=op.keep_axes), dtype=object)
        case Transpose():
            return first.transpose(op.permutation)
        case Reshape():
            return first.reshape(op.shape)
        case Relu() | LeakyRelu() | Abs():
            left = {Relu: Fraction(0), Abs: Fraction(-1)}.get(type(op)) or (
                Fraction(op.slope) if isinstance(op, LeakyRelu) else Fraction(-1 if isinstance(op, Abs) else 0)
            )
            return np.maximum(first, first * left)
    raise AssertionError(f"no exact value of {op.kind}")


def exact_values(network: Network, point: np.ndarray) -> dict[str, np.ndarray]:
    """Return every node's flattened value at a float64 point `(*input_shape,)`."""
    values = {INPUT: exact(point)}
    for node in network.nodes:
        values[node.name] = value_of(node.op, [values[name] for name in node.inputs])
    return {name: value.flatten() for name, value in values.items()}
