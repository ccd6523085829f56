"""An example of every op of the table in float32, with the shape of its input, for readers and writers of files."""

import torch

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

V = torch.tensor([0.1, 1e-40, 3.0, float(torch.finfo(torch.float32).max)])
STATISTICS = (V, V.abs(), -V, V / 3)

EXAMPLES: dict[str, tuple[tuple[int, ...], Op]] = {
    "affine": ((4,), Affine(torch.rand(2, 4), torch.rand(2))),
    "conv2d": ((4, 6, 6), Conv2d(torch.rand(2, 2, 3, 2), None, (2, 1), (1, 0, 2, 1), (1, 2), 2)),
    "add": ((4,), Add()),
    "sub": ((4,), Sub()),
    "add-constant": ((4,), AddConstant(V)),
    "multiply-constant": ((4,), MultiplyConstant(torch.tensor(-1.5, dtype=torch.float64))),
    "divide-constant": ((4,), DivideConstant(V)),
    "reshape": ((4, 3), Reshape((2, 6))),
    "transpose": ((4, 3, 2), Transpose((2, 0, 1))),
    "concat": ((4, 3), Concat(1)),
    "slice": ((9,), Slice(0, 1, 8, 3)),
    "gather": ((4,), Gather(torch.tensor([[3, -1], [-1, 3]]), torch.tensor([[0.0, 0.1], [1e-40, 2.0]]))),
    "axis-sum": ((4, 3, 2), AxisSum((0, 2), 8)),
    "batch-norm": ((4, 2), BatchNorm(*STATISTICS, epsilon=0.1)),
    "average-pool2d": ((1, 6, 6), AveragePool2d((2, 3), (1, 2), (1, 1, 1, 1), True)),
    "global-average-pool": ((2, 3, 3), GlobalAveragePool(9, False)),
    "max-pool2d": ((1, 6, 6), MaxPool2d((2, 2), (2, 1), (0, 1, 1, 0), (1, 2))),
    "relu": ((4,), Relu()),
    "leaky-relu": ((4,), LeakyRelu(0.1)),
    "abs": ((4,), Abs()),
    "sigmoid": ((4,), Sigmoid()),
    "tanh": ((4,), Tanh()),
    "curve": ((4,), Curve("softplus", (0.5, 20.0))),
    "softmax": ((4, 2), Softmax(1)),
    "log-softmax": ((4,), LogSoftmax(0)),
    "arg-max": ((4, 2), ArgMax(0, keep_axis=True)),
    "k-winners": ((4, 2), KWinners(3)),
    "product": ((4, 2), Product()),
    "relu-difference": ((4, 2), ReluDifference()),
    "matrix-product": ((4, 4), MatrixProduct(4)),
    "mwd": ((4,), Mwd(torch.rand(3, 4), torch.rand(3, 4), torch.tensor([True, False, True]))),
    "mwd-conv2d": (
        (2, 5, 4),
        MwdConv2d(
            torch.rand(3, 2, 3, 2), torch.rand(3, 2, 3, 2), torch.tensor([True, False, True]), (2, 1), (1, 0, 2, 1)
        ),
    ),
    "random-affine": (
        (4,),
        RandomAffine(
            torch.rand(2, 4), torch.rand(2), deviation=torch.rand(2, 4) * 1e-40, bias_deviation=torch.rand(2) / 3
        ),
    ),
    "random-conv2d": (
        (2, 3, 3),
        RandomConv2d(
            torch.rand(2, 1, 2, 2), None, (2, 1), groups=2, deviation=torch.rand(2, 1, 2, 2, dtype=torch.float64)
        ),
    ),
    "drop-connect": ((4,), DropConnect(torch.rand(2, 4), torch.rand(2), rate=0.1)),
    "drop-connect2d": ((1, 3, 3), DropConnect2d(torch.rand(2, 1, 2, 2), None, (1, 1), (1, 0, 0, 1), rate=1 / 3)),
    "resize-and-pad": ((3, 5, 5), ResizeAndPad((3, 5, 5), smallest=4)),
}
