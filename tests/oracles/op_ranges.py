"""The exact range of every op of the table over a box, from its values (`tests.oracles.op_values`)."""

import itertools
import math
from dataclasses import dataclass
from typing import Any

import mpmath
import numpy as np
import torch

from encoders.box import Box
from encoders.ops import (
    Abs,
    ArgMax,
    BatchNorm,
    Curve,
    KWinners,
    LogSoftmax,
    MatrixProduct,
    Mwd,
    MwdConv2d,
    Product,
    ReluDifference,
    Softmax,
)
from tests.conformance.op_cases import Case
from tests.oracles.class_values import k_winners_range, product_range, range_of_first_greatest, softmax_range
from tests.oracles.curve_values import curve_range
from tests.oracles.op_values import (
    Exact,
    exact_numbers,
    exact_value,
    is_linear,
    number_for,
    unit_windows,
)

F64 = torch.float64


def exact_matrix(case: Case) -> tuple[Exact, Exact]:
    """Return (L, b) of a linear op on the joined flat inputs, read off the oracle at 0 and the unit vectors."""
    number = number_for(case.op)
    sizes = [math.prod(shape) for shape in case.shapes]

    def at(x: Exact) -> Exact:
        parts = np.split(x, np.cumsum(sizes)[:-1])
        inputs = tuple(part.reshape(shape) for part, shape in zip(parts, case.shapes, strict=True))
        return exact_value(case.op, inputs, number).reshape(-1)

    basis = exact_numbers(torch.eye(sum(sizes), dtype=F64), number)
    bias = at(exact_numbers(torch.zeros(sum(sizes), dtype=F64), number))
    return np.stack([at(row) - bias for row in basis], axis=1), bias


@dataclass(frozen=True)
class Range:
    """The exact range of every output over one box, flat, and the size of the operands that are summed."""

    lower: list[Any]
    upper: list[Any]
    size: list[Any]


def exact_ranges(case: Case, boxes: tuple[Box, ...]) -> list[Range]:
    """Return the exact ranges; every end is attained at a point of the box."""
    op, number = case.op, number_for(case.op)
    if is_linear(op):
        matrix, bias = exact_matrix(case)
    result = []
    for i in range(boxes[0].batch):
        low, high = (
            [exact_numbers(end[i], number) for end in ends]
            for ends in ([box.lower for box in boxes], [box.upper for box in boxes])
        )
        if is_linear(op):
            left, right = (np.concatenate([part.reshape(-1) for part in ends]) for ends in (low, high))
            products = matrix * left, matrix * right
            lower = np.minimum(*products).sum(axis=1) + bias
            upper = np.maximum(*products).sum(axis=1) + bias
            size = np.maximum(abs(products[0]), abs(products[1])).sum(axis=1) + abs(bias)
            if isinstance(op, BatchNorm):
                # The mean is subtracted first: (x - mean) and mean are operands too.
                axes = (-1, *[1] * (low[0].ndim - 1))
                part = exact_numbers(op.mean, number).reshape(axes) + 0 * low[0]
                size = size + 2 * abs(matrix @ part.reshape(-1))
            result.append(Range(list(lower), list(upper), list(size)))
            continue
        if isinstance(op, Abs):
            inner = np.where((low[0] <= 0) & (high[0] >= 0), number(0.0), np.minimum(abs(low[0]), abs(high[0])))
            lower, upper = inner, np.maximum(abs(low[0]), abs(high[0]))
        elif isinstance(op, Curve):
            ends = zip(*(end.reshape(-1).tolist() for end in (low[0], high[0])), strict=True)
            pairs = [curve_range(op.function, op.arguments, a, b) for a, b in ends]
            lower, upper = (np.array(part, dtype=object) for part in zip(*pairs, strict=True))
        elif isinstance(op, Product | MatrixProduct):
            lower, upper, size = product_range(low, high, isinstance(op, MatrixProduct))
            result.append(Range(list(lower), list(upper), list(size)))
            continue
        elif isinstance(op, ReluDifference):
            # It is monotone in d, and for every d in z.
            pairs = itertools.product((low[0], high[0]), (low[1], high[1]))
            corners = [exact_value(op, pair, number).reshape(-1) for pair in pairs]
            size = sum(np.maximum(abs(a), abs(b)).reshape(-1) for a, b in zip(low, high, strict=True))
            result.append(Range(list(np.minimum.reduce(corners)), list(np.maximum.reduce(corners)), list(size)))
            continue
        elif isinstance(op, Softmax | LogSoftmax):
            lower, upper = softmax_range(low[0], high[0], op.axis, isinstance(op, LogSoftmax))
        elif isinstance(op, ArgMax):
            lower, upper = range_of_first_greatest(low[0], high[0], op.axis, op.keep_axis, number)
        elif isinstance(op, KWinners):
            lower, upper = k_winners_range(low[0], high[0], op.count, number)
        elif isinstance(op, Mwd):
            lower, upper = brute_force_mwd(op, low[0], high[0])
            if op.bias is not None:
                # The bias and the distance are the operands.
                size = np.maximum(abs(lower), abs(upper)) + 2 * abs(exact_numbers(op.bias, number))
                result.append(Range(list(lower), list(upper), list(size)))
                continue
        elif isinstance(op, MwdConv2d):
            ends = [
                brute_force_mwd(one, low[0][c, i, j], high[0][c, i, j])
                for unit in range(len(op.negated))
                for row in unit_windows(op, unit, low[0].shape)
                for one, c, i, j in row
            ]
            lower, upper = (np.concatenate(part) for part in zip(*ends, strict=True))
        else:
            lower, upper = (exact_value(op, tuple(ends), number) for ends in (low, high))
        lower, upper = lower.reshape(-1), upper.reshape(-1)
        result.append(Range(list(lower), list(upper), list(np.maximum(abs(lower), abs(upper)))))
    return result


def brute_force_mwd(op: Mwd, low: Exact, high: Exact) -> tuple[Exact, Exact]:
    """Return the least and the greatest output over all choices of an end or the attractor for each input.

    |u (x - w)| is convex in x with its kink at w, so a maximum of them attains both extremes at such a choice.
    """
    values: list[list[Any]] = [[] for _ in range(len(op.negated))]
    for unit in range(len(op.negated)):
        attractor = exact_numbers(op.attractor[unit], mpmath.mpf)
        own = slice(unit, unit + 1)
        bias = None if op.bias is None else op.bias[own]
        one = Mwd(op.weight[own], op.attractor[own], op.negated[own], bias, op.link)
        options = [
            {left, right, min(max(w, left), right)}
            for left, right, w in zip(low.tolist(), high.tolist(), attractor.tolist(), strict=True)
        ]
        for choice in itertools.product(*options):
            values[unit].append(exact_value(one, (np.array(choice, dtype=object),), mpmath.mpf)[0])
    return (np.array([pick(v) for v in values], dtype=object) for pick in (min, max))  # type: ignore[return-value]
