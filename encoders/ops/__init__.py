"""The table of ops: the one line that registers an op for the native format, the tests and the documentation."""

from encoders.ops.activation import Sigmoid, Tanh
from encoders.ops.affine import Affine
from encoders.ops.arg_max import ArgMax
from encoders.ops.average_pool import AveragePool2d, GlobalAveragePool
from encoders.ops.axis_sum import AxisSum
from encoders.ops.base import VIEWS, Op, UnsupportedView
from encoders.ops.convolution import Conv2d
from encoders.ops.curve import Curve
from encoders.ops.drop_connect import DropConnect, DropConnect2d
from encoders.ops.elementwise import Add, AddConstant, DivideConstant, MultiplyConstant, Sub
from encoders.ops.gather import Gather
from encoders.ops.hinge import Abs, LeakyRelu, Relu
from encoders.ops.k_winners import KWinners
from encoders.ops.linear import WeightedSum
from encoders.ops.max_pool import MaxPool2d
from encoders.ops.mwd import Mwd
from encoders.ops.mwd_convolution import MwdConv2d
from encoders.ops.normal_weights import RandomAffine, RandomConv2d
from encoders.ops.normalization import BatchNorm
from encoders.ops.product import MatrixProduct, Product
from encoders.ops.relu_difference import ReluDifference
from encoders.ops.resize_and_pad import ResizeAndPad
from encoders.ops.shape import Concat, Reshape, Slice, Transpose
from encoders.ops.softmax import LogSoftmax, Softmax

OPS: dict[str, type[Op]] = {
    "affine": Affine,
    "conv2d": Conv2d,
    "add": Add,
    "sub": Sub,
    "add-constant": AddConstant,
    "multiply-constant": MultiplyConstant,
    "divide-constant": DivideConstant,
    "reshape": Reshape,
    "transpose": Transpose,
    "concat": Concat,
    "slice": Slice,
    "gather": Gather,
    "axis-sum": AxisSum,
    "batch-norm": BatchNorm,
    "average-pool2d": AveragePool2d,
    "global-average-pool": GlobalAveragePool,
    "max-pool2d": MaxPool2d,
    "relu": Relu,
    "leaky-relu": LeakyRelu,
    "abs": Abs,
    "sigmoid": Sigmoid,
    "tanh": Tanh,
    "curve": Curve,
    "softmax": Softmax,
    "log-softmax": LogSoftmax,
    "arg-max": ArgMax,
    "k-winners": KWinners,
    "product": Product,
    "matrix-product": MatrixProduct,
    "relu-difference": ReluDifference,
    "mwd": Mwd,
    "mwd-conv2d": MwdConv2d,
    "random-affine": RandomAffine,
    "random-conv2d": RandomConv2d,
    "drop-connect": DropConnect,
    "drop-connect2d": DropConnect2d,
    "resize-and-pad": ResizeAndPad,
}

__all__ = [
    "OPS",
    "VIEWS",
    "Abs",
    "Add",
    "AddConstant",
    "Affine",
    "ArgMax",
    "AveragePool2d",
    "AxisSum",
    "BatchNorm",
    "Concat",
    "Conv2d",
    "Curve",
    "DivideConstant",
    "DropConnect",
    "DropConnect2d",
    "Gather",
    "GlobalAveragePool",
    "KWinners",
    "LeakyRelu",
    "LogSoftmax",
    "MatrixProduct",
    "MaxPool2d",
    "MultiplyConstant",
    "Mwd",
    "MwdConv2d",
    "Op",
    "Product",
    "RandomAffine",
    "RandomConv2d",
    "Relu",
    "ReluDifference",
    "Reshape",
    "ResizeAndPad",
    "Sigmoid",
    "Slice",
    "Softmax",
    "Sub",
    "Tanh",
    "Transpose",
    "UnsupportedView",
    "WeightedSum",
]
