"""The laws that every op of the table obeys, checked against exact arithmetic.

The oracle evaluates each op on numpy object arrays of `Fraction` (ops without roots and exponentials) or of mpmath
numbers with PRECISION bits, written from the definitions and not from the code under test.
"""

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import mpmath
import numpy as np
import pytest
import torch
from torch import Tensor

from encoders.box import Box
from encoders.ops import (
    OPS,
    VIEWS,
    Abs,
    Add,
    AddConstant,
    Affine,
    AveragePool2d,
    BatchNorm,
    Concat,
    Conv2d,
    DivideConstant,
    GlobalAveragePool,
    LeakyRelu,
    LinearOp,
    MaxPool2d,
    MultiplyConstant,
    Mwd,
    MwdConv2d,
    Op,
    Relu,
    Reshape,
    Sigmoid,
    Slice,
    Sub,
    Tanh,
    Transpose,
    UnsupportedView,
)

F64 = torch.float64
INF = math.inf
MAX = torch.finfo(F64).max
# Sums of floats between 2^-1074 and 2^1023 are exact within this many bits.
PRECISION = 2400
# Wider than the exact range by this share of the operands' size at most: the bounds are a few dozen roundings.
TIGHTNESS = 1e-12
# Below this, underflow slack (a few dozen smallest normal numbers, times a weight) is all of a width.
UNDERFLOW = 1e-290
# float32 keeps 24 bits; the ops sum up to a few dozen terms of size 1 to 10.
FLOAT32_TOLERANCE = 1e-4
BOXES = 6


@pytest.fixture(autouse=True)
def _precision() -> Iterator[None]:
    with mpmath.workprec(PRECISION):
        yield


def random(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def with_zeros(weight: Tensor) -> Tensor:
    """Return the weights with every third one zero."""
    weight = weight.clone()
    weight.view(-1)[::3] = 0.0
    return weight


def mwd(units: int, inputs: int, negated: list[bool], seed: int) -> Mwd:
    weight, attractor = random(units, inputs, seed=seed).abs(), random(units, inputs, seed=seed + 1)
    return Mwd(with_zeros(weight), attractor, torch.tensor(negated))


def linear_mwd(units: int, inputs: int, negated: list[bool], seed: int) -> Mwd:
    op = mwd(units, inputs, negated, seed)
    return Mwd(op.weight, op.attractor, op.negated, random(units, seed=seed + 2), "linear")


def mwd_conv2d(
    shape: tuple[int, ...],
    negated: list[bool],
    seed: int,
    stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int, int, int] = (0, 0, 0, 0),
) -> MwdConv2d:
    weight, attractor = random(*shape, seed=seed).abs(), random(*shape, seed=seed + 1)
    return MwdConv2d(with_zeros(weight), attractor, torch.tensor(negated), stride, padding)


@dataclass(frozen=True)
class Case:
    op: Op
    shapes: tuple[tuple[int, ...], ...]


CASES: dict[str, list[Case]] = {
    "affine": [
        Case(Affine(random(4, 3, seed=1), random(4, seed=2)), ((3,),)),
        Case(Affine(random(2, 9, seed=3)), ((9,),)),
        Case(Affine(with_zeros(random(3, 4, seed=4)), random(3, seed=5)), ((2, 4),)),
        Case(Affine(torch.zeros(2, 3, dtype=F64), random(2, seed=6)), ((3,),)),
        # Rows that cancel: (1e8 + 1) x - 1e8 x on neighbours.
        Case(Affine(torch.tensor([[1e8 + 1, -1e8, 1.0], [0.1, 0.2, -0.3]], dtype=F64)), ((3,),)),
        Case(Affine(random(5, 4, seed=7), random(5, seed=8)).class_differences(2), ((4,),)),
        Case(Affine(random(3, 3, seed=9).float().double(), random(3, seed=10).float().double()), ((3,),)),
    ],
    "conv2d": [
        Case(Conv2d(random(3, 2, 2, 2, seed=11), random(3, seed=12)), ((2, 4, 3),)),
        Case(Conv2d(random(2, 1, 3, 2, seed=13), None, (2, 1), (1, 0, 2, 1)), ((1, 4, 3),)),
        Case(
            Conv2d(with_zeros(random(4, 1, 2, 2, seed=14)), random(4, seed=15), (1, 2), (1, 1, 1, 1), (2, 1), 2),
            ((2, 3, 3),),
        ),
    ],
    "add": [Case(Add(), ((3,), (3,))), Case(Add(), ((2, 2, 1), (2, 2, 1)))],
    "sub": [Case(Sub(), ((3,), (3,))), Case(Sub(), ((2, 2), (2, 2)))],
    "add-constant": [
        Case(AddConstant(random(3, seed=16)), ((3,),)),
        Case(AddConstant(random(2, 1, seed=17)), ((2, 3),)),
        Case(AddConstant(torch.tensor(0.1, dtype=F64)), ((2,),)),
    ],
    "multiply-constant": [
        Case(MultiplyConstant(with_zeros(random(4, seed=18))), ((4,),)),
        Case(MultiplyConstant(torch.tensor(-0.1, dtype=F64)), ((2, 2),)),
    ],
    "divide-constant": [
        Case(DivideConstant(random(3, seed=19)), ((3,),)),
        Case(DivideConstant(torch.tensor(-3.0, dtype=F64)), ((2, 2),)),
    ],
    "reshape": [Case(Reshape((6,)), ((2, 3),)), Case(Reshape((3, 1, 2)), ((6,),)), Case(Reshape(()), ((1,),))],
    "transpose": [Case(Transpose((2, 0, 1)), ((2, 3, 1),))],
    "concat": [Case(Concat(0), ((2,), (3,))), Case(Concat(1), ((2, 1), (2, 2)))],
    "slice": [Case(Slice(0, 1, 4, 2), ((5,),)), Case(Slice(1, 0, 1), ((2, 3),))],
    "batch-norm": [
        Case(
            BatchNorm(random(3, seed=20), random(3, seed=21).square(), random(3, seed=22), random(3, seed=23)), ((3,),)
        ),
        Case(
            BatchNorm(
                random(2, seed=24),
                torch.tensor([0.0, 2.0], dtype=F64),
                torch.tensor([0.0, -1.5], dtype=F64),
                random(2, seed=25),
                1e-3,
            ),
            ((2, 2, 2),),
        ),
    ],
    "average-pool2d": [
        Case(AveragePool2d((2, 3), (1, 1)), ((2, 3, 3),)),
        Case(AveragePool2d((3, 2), (2, 1), (1, 1, 1, 1)), ((1, 4, 3),)),
        Case(AveragePool2d((3, 2), (2, 1), (1, 1, 1, 1), count_padding=True), ((1, 4, 3),)),
    ],
    "global-average-pool": [
        Case(GlobalAveragePool(6), ((2, 2, 3),)),
        Case(GlobalAveragePool(3, keep_axes=False), ((2, 3),)),
    ],
    "max-pool2d": [
        Case(MaxPool2d((2, 2), (1, 1)), ((2, 3, 3),)),
        Case(MaxPool2d((2, 2), (2, 1), (1, 0, 0, 1), (1, 2)), ((1, 4, 3),)),
    ],
    "relu": [Case(Relu(), ((3,),)), Case(Relu(), ((2, 2),))],
    "leaky-relu": [Case(LeakyRelu(slope), ((3,),)) for slope in (0.0, 0.01, 0.3, 1.0)],
    "abs": [Case(Abs(), ((4,),))],
    "sigmoid": [Case(Sigmoid(), ((4,),))],
    "tanh": [Case(Tanh(), ((4,),))],
    "mwd": [
        Case(mwd(4, 3, [False] * 4, seed=30), ((3,),)),
        Case(mwd(3, 3, [True] * 3, seed=32), ((3,),)),
        Case(mwd(4, 2, [True, False, True, False], seed=34), ((2,),)),
        Case(Mwd(torch.zeros(1, 2, dtype=F64), torch.zeros(1, 2, dtype=F64), torch.tensor([False])), ((2,),)),
        Case(linear_mwd(4, 3, [True, False, True, False], seed=36), ((3,),)),
        Case(Mwd(*random(2, 2, 3, seed=38).abs(), torch.tensor([False] * 2), None, "linear"), ((3,),)),
    ],
    "mwd-conv2d": [
        Case(mwd_conv2d((2, 2, 2, 2), [True, False], 40), ((2, 3, 3),)),
        Case(mwd_conv2d((2, 1, 3, 2), [False, True], 42, (2, 1), (1, 0, 2, 1)), ((1, 4, 3),)),
        Case(mwd_conv2d((1, 1, 3, 3), [False], 44, (2, 2), (2, 2, 1, 1)), ((1, 2, 2),)),
    ],
}
ROWS = [pytest.param(case, id=f"{kind}-{i}") for kind, cases in CASES.items() for i, case in enumerate(cases)]


def weight_size(op: Op) -> float:
    """Return the largest weight or 1, for absolute tolerances."""
    return max([1.0, *(float(t.abs().max()) for t in op.parameters().values() if t.is_floating_point())])


# Where the ends of a box lie: the size of its centre and of its radius, as exponents of ten.
MAGNITUDES: dict[str, tuple[float, float]] = {
    "ordinary": (0.0, 0.0),
    "narrow": (0.0, -14.0),
    "subnormal": (-318.0, -318.0),
    "huge": (300.0, 300.0),
    "mixed": (math.nan, math.nan),
}


def boxes_of(case: Case, magnitude: str, seed: int) -> tuple[Box, ...]:
    """Return BOXES random boxes for each input; the first is a point, and so is every fifth coordinate."""
    generator = torch.Generator().manual_seed(seed)
    made = []
    for shape in case.shapes:
        size = (BOXES, *shape)
        centre = torch.randn(size, generator=generator, dtype=F64)
        radius = torch.rand(size, generator=generator, dtype=F64)
        exponents = MAGNITUDES[magnitude]
        if math.isnan(exponents[0]):
            spread = torch.rand((2, *size), generator=generator, dtype=F64) * 60.0 - 30.0
        else:
            spread = torch.tensor(exponents, dtype=F64).reshape(2, *[1] * len(size)).expand(2, *size)
        centre, radius = centre * 10.0 ** spread[0], radius * 10.0 ** spread[1]
        radius[0] = 0.0
        radius.view(-1)[::5] = 0.0
        made.append(Box(centre - radius, centre + radius))
    return tuple(made)


def points_of(boxes: tuple[Box, ...], count: int, seed: int) -> Iterator[tuple[Tensor, ...]]:
    """Yield points inside, half of them corners."""
    generator = torch.Generator().manual_seed(seed)
    for i in range(count):
        x = []
        for box in boxes:
            share = torch.rand(box.lower.shape, generator=generator, dtype=F64)
            if i % 2:
                share = share.round()
            middle = box.lower * (1.0 - share) + box.upper * share
            x.append(torch.minimum(torch.maximum(middle, box.lower), box.upper))
        yield tuple(x)


# ------------------------------------------------------------------------------------------------- the oracle

Exact = np.ndarray[Any, Any]
IRRATIONAL = ("batch-norm", "sigmoid", "tanh", "mwd", "mwd-conv2d")


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
    return not isinstance(op, Relu | LeakyRelu | Abs | Sigmoid | Tanh | MaxPool2d | Mwd | MwdConv2d)


def number_for(op: Op) -> Callable[[float], Any]:
    return mpmath.mpf if op.kind in IRRATIONAL else Fraction


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


def contains(box: Box, row: int, lower: list[Any], upper: list[Any]) -> bool:
    """Python compares a float (infinite ones too) with a Fraction or an mpmath number exactly."""
    ends = zip(box.lower[row].flatten().tolist(), lower, upper, box.upper[row].flatten().tolist(), strict=True)
    return all(a <= b and c <= d for a, b, c, d in ends)


# --------------------------------------------------------------------------------------------------- the laws


def test_the_table_covers_every_op() -> None:
    assert list(CASES) == list(OPS)
    for kind, cases in CASES.items():
        assert cases
        assert all(type(case.op) is OPS[kind] and case.op.kind == kind for case in cases)


@pytest.mark.parametrize("case", ROWS)
@pytest.mark.parametrize("magnitude", MAGNITUDES)
def test_interval_contains_evaluate_at_points_and_corners(case: Case, magnitude: str) -> None:
    boxes = boxes_of(case, magnitude, seed=101)
    result = case.op.interval(*boxes)
    assert bool((result.lower <= result.upper).all())
    for x in points_of(boxes, 20, seed=102):
        value = case.op.evaluate(*x)
        # Overflow of the float evaluation is its own error, not the interval's: exact laws follow below.
        value = value.where(value.isfinite(), result.lower)
        assert bool(result.contains(value).all())


@pytest.mark.parametrize("case", ROWS)
@pytest.mark.parametrize("magnitude", MAGNITUDES)
def test_interval_contains_the_exact_range_and_is_tight(case: Case, magnitude: str) -> None:
    boxes = boxes_of(case, magnitude, seed=103)
    result = case.op.interval(*boxes)
    for row, exact in enumerate(exact_ranges(case, boxes)):
        assert contains(result, row, exact.lower, exact.upper)
        low, high = result.lower[row].flatten().tolist(), result.upper[row].flatten().tolist()
        for a, b, c, d, size in zip(low, exact.lower, exact.upper, high, exact.size, strict=True):
            if size > MAX / 4:
                continue
            slack = size * Fraction(TIGHTNESS) if isinstance(size, Fraction) else size * TIGHTNESS
            assert b - a <= slack + type(slack)(UNDERFLOW)
            assert d - c <= slack + type(slack)(UNDERFLOW)


def test_plain_float64_intervals_miss_the_exact_range_where_ours_do_not() -> None:
    missed = 0
    for case in CASES["affine"]:
        op = case.op
        assert isinstance(op, Affine)
        boxes = boxes_of(case, "ordinary", seed=104)
        positive, negative = op.weight.clamp(min=0), op.weight.clamp(max=0)
        bias = 0.0 if op.bias is None else op.bias
        low, high = boxes[0].lower, boxes[0].upper
        plain = Box.unchecked(low @ positive.T + high @ negative.T + bias, high @ positive.T + low @ negative.T + bias)
        ours = op.interval(*boxes)
        for row, exact in enumerate(exact_ranges(case, boxes)):
            missed += not contains(plain, row, exact.lower, exact.upper)
            assert contains(ours, row, exact.lower, exact.upper)
    assert missed > 5


@pytest.mark.parametrize("case", ROWS)
def test_the_interval_of_a_smaller_box_lies_inside_up_to_rounding(case: Case) -> None:
    boxes = boxes_of(case, "ordinary", seed=105)
    inner = tuple(
        Box(a, torch.maximum(a, b))
        for box in boxes
        for a, b in [(box.lower * 0.75 + box.upper * 0.25, box.lower * 0.25 + box.upper * 0.75)]
    )
    outside, inside = case.op.interval(*boxes), case.op.interval(*inner)
    # Operands are weights times values up to 10.
    slack = TIGHTNESS * 10.0 * weight_size(case.op)
    assert bool((inside.lower >= outside.lower - slack).all())
    assert bool((inside.upper <= outside.upper + slack).all())


@pytest.mark.parametrize("case", ROWS)
def test_evaluate_is_differentiable(case: Case) -> None:
    # Random points are no ties: two equal values in a maximum have probability 0.
    x = tuple(random(2, *shape, seed=106 + i).requires_grad_() for i, shape in enumerate(case.shapes))
    assert torch.autograd.gradcheck(case.op.evaluate, x, eps=1e-6, atol=1e-6 * weight_size(case.op), rtol=1e-4)


@pytest.mark.parametrize("case", ROWS)
def test_rows_of_a_batch_are_independent(case: Case) -> None:
    x = tuple(random(4, *shape, seed=107 + i) for i, shape in enumerate(case.shapes))
    together = case.op.evaluate(*x)
    for row in range(4):
        alone = case.op.evaluate(*(value[row : row + 1] for value in x))
        # Libraries sum in another order for another batch size.
        tolerance = TIGHTNESS * weight_size(case.op)
        torch.testing.assert_close(together[row : row + 1], alone, rtol=TIGHTNESS, atol=tolerance)
        changed = tuple(value.clone() for value in x)
        for value in changed:
            value[(row + 1) % 4] = torch.nan
        assert torch.equal(case.op.evaluate(*changed)[row], together[row])


@pytest.mark.parametrize("case", ROWS)
def test_an_infinite_box_does_not_widen_the_other_rows_of_its_batch(case: Case) -> None:
    boxes = boxes_of(case, "ordinary", seed=108)
    before = case.op.interval(*boxes)
    for box in boxes:
        box.lower[2], box.upper[2] = -INF, INF
    after = case.op.interval(*boxes)
    others = torch.arange(BOXES) != 2
    assert torch.equal(before[others].lower, after[others].lower)
    assert torch.equal(before[others].upper, after[others].upper)


@pytest.mark.parametrize("case", ROWS)
def test_float32_is_close_to_float64(case: Case) -> None:
    x = tuple(random(5, *shape, seed=109 + i).float() for i, shape in enumerate(case.shapes))
    single = case.op.cast(torch.float32, torch.device("cpu"))
    result = single.evaluate(*x)
    assert result.dtype == torch.float32
    wide = case.op.evaluate(*(value.double() for value in x))
    tolerance = FLOAT32_TOLERANCE * weight_size(case.op)
    torch.testing.assert_close(result.double(), wide, rtol=FLOAT32_TOLERANCE, atol=tolerance)


@pytest.mark.parametrize("case", ROWS)
def test_a_degenerate_box_contains_the_value(case: Case) -> None:
    x = tuple(random(5, *shape, seed=110 + i) for i, shape in enumerate(case.shapes))
    box = case.op.interval(*(Box.point(value) for value in x))
    assert bool(box.contains(case.op.evaluate(*x)).all())


# Ends that overflow or are undefined in some formula: differences, centres, squares, products with 0.
EXTREME_BOXES = [
    (-INF, INF),
    (-INF, 1.0),
    (0.5, INF),
    (-INF, -MAX),
    (-MAX, MAX),
    (MAX, MAX),
    (-MAX, -MAX),
    (1e200, 2e200),
    (-1e160, 1e160),
    (-1e-322, 1.0),
    (-1e-322, -5e-324),
    (5e-324, 1e-308),
    (0.0, 0.0),
    (-0.0, MAX),
    (-800.0, -700.0),
]


@pytest.mark.parametrize("case", ROWS)
def test_infinite_and_huge_ends_give_neither_nan_nor_a_box_that_is_too_small(case: Case) -> None:
    generator = torch.Generator().manual_seed(111)
    number = number_for(case.op)
    ends = torch.tensor(EXTREME_BOXES, dtype=F64)
    for trial in range(4):
        boxes = []
        for shape in case.shapes:
            # First the same kind of box in all places, then mixtures.
            kinds = torch.arange(len(ends)).reshape(-1, *[1] * len(shape)).expand(-1, *shape)
            if trial:
                kinds = torch.randint(len(ends), (len(ends), *shape), generator=generator)
            boxes.append(Box(ends[kinds][..., 0], ends[kinds][..., 1]))
        result = case.op.interval(*boxes)
        assert bool((result.lower <= result.upper).all()), "NaN or wrong order"
        finite = tuple(Box(b.lower.clamp(-MAX, MAX), b.upper.clamp(-MAX, MAX)) for b in boxes)
        for x in points_of(finite, 4, seed=112 + trial):
            for row in range(len(ends)):
                point = tuple(exact_numbers(value[row], number) for value in x)
                value = exact_value(case.op, point, number).reshape(-1).tolist()
                assert contains(result, row, value, value)


# Weights that overflow, underflow or vanish, for the ops that have some.
STRESS_SCALES = (1e-320, 1e-300, 1e-160, 1e160, 1e300)


@pytest.mark.parametrize("kind", [kind for kind, cases in CASES.items() if cases[0].op.parameters()])
@pytest.mark.parametrize("scale", STRESS_SCALES)
def test_extreme_weights_keep_the_exact_range_inside(kind: str, scale: float) -> None:
    for case in CASES[kind][:3]:
        scaled = {
            name: value * scale if value.is_floating_point() else value for name, value in case.op.parameters().items()
        }
        if "variance" in scaled:
            scaled["variance"] = scaled["variance"].clamp(min=1e-310)
        if any(not bool(value.isfinite().all()) for value in scaled.values()):
            continue
        extreme = type(case.op)(**scaled, **case.op.settings())
        for magnitude in MAGNITUDES:
            boxes = boxes_of(case, magnitude, seed=113)
            boxes = tuple(box[:3] for box in boxes)
            result = extreme.interval(*boxes)
            for row, exact in enumerate(exact_ranges(Case(extreme, case.shapes), boxes)):
                assert contains(result, row, exact.lower, exact.upper), magnitude


def test_a_width_that_overflows_times_a_zero_weight_is_no_nan() -> None:
    # 0 * (MAX - (-MAX)) in the radius; the value 0 * 0 + 1 * 0.5 is finite.
    op = Affine(torch.tensor([[0.0, 1.0]], dtype=F64))
    box = op.interval(Box(torch.tensor([[-MAX, 0.0]], dtype=F64), torch.tensor([[MAX, 1.0]], dtype=F64)))
    assert float(box.lower) <= 0.0 and float(box.upper) >= 1.0


def test_batch_norm_covers_the_cancellation_of_its_shift() -> None:
    # y = 0 up to rounding: the error is that of the product and the shift, not of y.
    op = BatchNorm(random(500, seed=117), random(500, seed=118).square(), random(500, seed=119), random(500, seed=120))
    x = (op.mean - op.shift * torch.sqrt(op.variance + op.epsilon) / op.scale)[None]
    box = op.interval(Box.point(x))
    value = exact_value(op, (exact_numbers(x[0], mpmath.mpf),), mpmath.mpf).tolist()
    assert contains(box, 0, value, value)
    assert bool((box.upper - box.lower <= TIGHTNESS * (1.0 + op.shift.abs())).all())


@pytest.mark.parametrize(("op", "least"), [(Sigmoid(), 0.0), (Tanh(), -1.0), (mwd(1, 1, [True], seed=121), 0.0)])
def test_bounded_ops_keep_their_bounds(op: Op, least: float) -> None:
    ends = torch.tensor([[-INF], [-1e4], [0.0]], dtype=F64)
    box = op.interval(Box(ends, -ends))
    assert float(box.lower.min()) >= least and float(box.upper.max()) <= 1.0


def test_batch_norm_covers_a_quotient_that_underflows_before_a_large_scale() -> None:
    # 1e-300 / sqrt(1e300) * 1e300 = 1e-150, while the quotient 1e-450 is 0 in floats.
    one = torch.ones(1, dtype=F64)
    op = BatchNorm(one * 0, one * 1e300, one * 1e300, one * 0, 0.0)
    box = op.interval(Box.point(torch.tensor([[1e-300]], dtype=F64)))
    assert float(box.lower) <= 1e-150 <= float(box.upper)


@pytest.mark.parametrize("case", ROWS)
def test_output_shape_agrees_with_evaluate_and_interval(case: Case) -> None:
    x = tuple(random(3, *shape, seed=114 + i) for i, shape in enumerate(case.shapes))
    expected = case.op.output_shape(*case.shapes)
    assert tuple(case.op.evaluate(*x).shape) == (3, *expected)
    assert case.op.interval(*(Box.point(value) for value in x)).shape == expected


@pytest.mark.parametrize("case", ROWS)
def test_a_linear_op_is_its_apply_plus_bias(case: Case) -> None:
    if not isinstance(case.op, LinearOp):
        return
    x, y = (random(2, *case.shapes[0], seed=seed) for seed in (115, 116))
    zero = torch.zeros_like(x)
    tolerance = {"rtol": 1e-9, "atol": 1e-6}
    torch.testing.assert_close(case.op.evaluate(x) - case.op.evaluate(zero), case.op.apply(x), **tolerance)
    torch.testing.assert_close(case.op.apply(x + 2.0 * y), case.op.apply(x) + 2.0 * case.op.apply(y), **tolerance)


@pytest.mark.parametrize("case", ROWS)
def test_a_missing_view_is_refused_by_name(case: Case) -> None:
    assert case.op.views()[:2] == ("evaluate", "interval")
    for view in set(VIEWS) - set(case.op.views()):
        with pytest.raises(UnsupportedView, match=f"{case.op.kind!r} has no view {view!r}; it has: evaluate, interval"):
            getattr(case.op, view)(None)


# One wrong input each: an op refuses shapes that evaluate could not take.
MISFITS: list[tuple[Op, tuple[tuple[int, ...], ...]]] = [
    (Affine(torch.ones(2, 3)), ((4,),)),
    (Affine(torch.ones(2, 3)), ((),)),
    (Conv2d(torch.ones(1, 2, 3, 3)), ((1, 5, 5),)),
    (Conv2d(torch.ones(1, 2, 3, 3)), ((2, 2, 5),)),
    (Add(), ((3,), (1,))),
    (Sub(), ((2, 3), (3,))),
    (AddConstant(torch.ones(2, 3)), ((3,),)),
    (MultiplyConstant(torch.ones(4)), ((3,),)),
    (DivideConstant(torch.ones(2, 1)), ((1, 3),)),
    (Reshape((4,)), ((3,),)),
    (Reshape((-1, -3)), ((3,),)),
    (Transpose((0, 0)), ((2, 3),)),
    (Concat(0), ((2, 1), (2, 2))),
    (Slice(0, 0, 4), ((3,),)),
    (BatchNorm(*[torch.ones(2)] * 4), ((3,),)),
    (AveragePool2d((2, 2), (1, 1)), ((2, 2),)),
    (GlobalAveragePool(4), ((2, 5),)),
    (MaxPool2d((3, 3), (1, 1)), ((1, 2, 2),)),
    (Mwd(torch.ones(2, 3), torch.ones(2, 3), torch.tensor([True, False])), ((2,),)),
    (MwdConv2d(torch.ones(2, 1, 3, 3), torch.ones(2, 1, 3, 3), torch.tensor([True, False])), ((2, 5, 5),)),
    (MwdConv2d(torch.ones(2, 1, 3, 3), torch.ones(2, 1, 3, 3), torch.tensor([True, False])), ((1, 2, 5),)),
]


@pytest.mark.parametrize(("op", "shapes"), MISFITS, ids=[op.kind for op, _ in MISFITS])
def test_shapes_that_do_not_fit_are_refused(op: Op, shapes: tuple[tuple[int, ...], ...]) -> None:
    with pytest.raises(ValueError):
        op.output_shape(*shapes)


WRONG_SETTINGS: list[Callable[[], Op]] = [
    lambda: Affine(torch.ones(2, 3), torch.ones(3)),
    lambda: Conv2d(torch.ones(3, 1, 2, 2), groups=2),
    lambda: DivideConstant(torch.tensor([1.0, 0.0])),
    lambda: LeakyRelu(1.5),
    lambda: LeakyRelu(math.nan),
    lambda: BatchNorm(*[torch.zeros(2)] * 4, epsilon=0.0),
    lambda: BatchNorm(*[torch.ones(2)] * 4, epsilon=math.nan),
    lambda: BatchNorm(*[torch.ones(2)] * 4, epsilon=math.inf),
    lambda: BatchNorm(torch.ones(2), -torch.ones(2), torch.ones(2), torch.ones(2), epsilon=2.0),
    lambda: AveragePool2d((3, 3), (1, 1), (2, 2, 2, 2)),
    lambda: MaxPool2d((2, 2), (1, 1), (2, 0, 0, 0)),
    lambda: Mwd(-torch.ones(1, 2), torch.ones(1, 2), torch.tensor([True])),
    lambda: Mwd(torch.ones(1, 2), torch.ones(1, 2), torch.tensor([1])),
    lambda: Mwd(torch.ones(1, 2), torch.ones(1, 2), torch.tensor([True]), None, "cubic"),
    lambda: Mwd(torch.ones(1, 2), torch.ones(1, 2), torch.tensor([True]), torch.ones(1)),
    lambda: Mwd(torch.ones(1, 2), torch.ones(1, 2), torch.tensor([True]), torch.ones(2), "linear"),
    lambda: MwdConv2d(torch.ones(1, 2), torch.ones(1, 2), torch.tensor([True])),
    lambda: MwdConv2d(-torch.ones(1, 1, 2, 2), torch.ones(1, 1, 2, 2), torch.tensor([True])),
    lambda: MwdConv2d(torch.ones(1, 1, 2, 2), torch.ones(1, 1, 2, 2), torch.tensor([True]), (0, 1)),
    lambda: MwdConv2d(torch.ones(1, 1, 2, 2), torch.ones(1, 1, 2, 2), torch.tensor([True]), (1, 1), (2, 0, 0, 0)),
]


@pytest.mark.parametrize("make", WRONG_SETTINGS)
def test_settings_without_a_meaning_are_refused(make: Callable[[], Op]) -> None:
    with pytest.raises(ValueError):
        make()


def test_a_max_pool_window_without_any_input_is_refused() -> None:
    # Kernel 2, dilation 2, padding 1 on one row: the window looks at rows -1 and 1 only.
    with pytest.raises(ValueError, match="without any input"):
        MaxPool2d((2, 1), (1, 1), (1, 0, 1, 0), (2, 1)).output_shape((1, 1, 1))
