"""The table of ops' cases, on which every law of ops is checked: an op and the shapes of its inputs."""

from dataclasses import dataclass

import pytest
import torch
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
    DropConnect,
    DropConnect2d,
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
    RandomAffine,
    RandomConv2d,
    Relu,
    ReluDifference,
    Reshape,
    ResizeAndPad,
    Sigmoid,
    Slice,
    Softmax,
    Sub,
    Tanh,
    Transpose,
)

F64 = torch.float64


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
    "gather": [
        Case(Gather(torch.tensor([2, 0, 1])), ((3,),)),
        # Read several times, one not at all.
        Case(Gather(torch.tensor([[3, 1], [1, 1], [2, 3]])), ((2, 2),)),
        Case(Gather(torch.tensor([[-1, 2, -1], [0, -1, 2]]), random(2, 3, seed=26)), ((3,),)),
        Case(Gather(torch.tensor([1, -1, 1]), torch.tensor(0.1, dtype=F64)), ((1, 2),)),
        Case(Gather(torch.tensor([-1, -1]), random(2, seed=27)), ((2,),)),
        Case(Gather(torch.tensor(1)), ((2,),)),
    ],
    "axis-sum": [
        Case(AxisSum((0,), 4), ((4,),)),
        Case(AxisSum((0, 2), 6), ((2, 2, 3),)),
        Case(AxisSum((1,), 3, keep_axes=True), ((2, 3),)),
    ],
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
    # The others have laws of their own, `test_curve_laws`.
    "curve": [
        Case(Curve(function, arguments), ((3,),))
        for function, arguments in (("gelu", ()), ("elu", (1.5,)), ("hard-swish", ()), ("softplus", (2.0,)))
    ],
    "softmax": [Case(Softmax(0), ((4,),)), Case(Softmax(1), ((2, 3),)), Case(Softmax(0), ((1, 2),))],
    "log-softmax": [Case(LogSoftmax(0), ((3,),)), Case(LogSoftmax(0), ((3, 2),))],
    "arg-max": [Case(ArgMax(0), ((3,),)), Case(ArgMax(1, keep_axis=True), ((2, 3),))],
    "k-winners": [
        Case(KWinners(1), ((3,),)),
        Case(KWinners(2), ((4,),)),
        Case(KWinners(3), ((1, 2, 2),)),
        Case(KWinners(2), ((2,),)),
    ],
    "product": [Case(Product(), ((3,), (3,))), Case(Product(), ((2, 2), (2, 2)))],
    "matrix-product": [
        Case(MatrixProduct(2), ((2, 2), (2, 1))),
        Case(MatrixProduct(3), ((2, 1, 3), (2, 3, 2))),
        Case(MatrixProduct(1), ((2, 1), (1, 2))),
    ],
    "relu-difference": [Case(ReluDifference(), ((4,), (4,))), Case(ReluDifference(), ((2, 2), (2, 2)))],
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
    # Held to the laws by what stands for their draws; the draws have laws of their own, `test_draws`.
    "random-affine": [
        Case(
            RandomAffine(
                random(3, 4, seed=50),
                random(3, seed=51),
                deviation=with_zeros(random(3, 4, seed=52).abs()),
                bias_deviation=random(3, seed=53).abs(),
            ),
            ((4,),),
        ),
        Case(RandomAffine(random(2, 3, seed=54), deviation=random(2, 3, seed=55).abs()), ((2, 3),)),
    ],
    "random-conv2d": [
        Case(
            RandomConv2d(
                random(2, 2, 2, 2, seed=56),
                random(2, seed=57),
                (2, 1),
                (1, 0, 1, 1),
                deviation=random(2, 2, 2, 2, seed=58).abs(),
            ),
            ((2, 3, 3),),
        ),
    ],
    "drop-connect": [Case(DropConnect(random(3, 4, seed=59), random(3, seed=60), rate=0.25), ((4,),))],
    "drop-connect2d": [Case(DropConnect2d(random(2, 1, 2, 2, seed=61), random(2, seed=62), rate=0.5), ((1, 3, 3),))],
    "resize-and-pad": [Case(ResizeAndPad((2, 4, 3), smallest=2), ((2, 4, 3),))],
}

ROWS = [pytest.param(case, id=f"{kind}-{i}") for kind, cases in CASES.items() for i, case in enumerate(cases)]

# Weights that overflow, underflow or vanish, for the ops that have some.
STRESS_SCALES = (1e-320, 1e-300, 1e-160, 1e160, 1e300)
