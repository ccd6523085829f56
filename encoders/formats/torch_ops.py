"""Operators of exported torch graphs, before and after decomposition, as ops that round nothing in advance.

A handler returns the call's output or raises ValueError with what is not supported. Meaning of the operators: the
schemas of torch's native functions.
"""

import functools
from collections.abc import Callable

import torch
from torch import Tensor

from encoders.formats.cells import together
from encoders.formats.gates import gated
from encoders.formats.graph import Value
from encoders.formats.torch_node import TorchNode
from encoders.ops import (
    Abs,
    Add,
    AddConstant,
    Affine,
    AveragePool2d,
    BatchNorm,
    Conv2d,
    Curve,
    DivideConstant,
    MaxPool2d,
    MultiplyConstant,
    Mwd,
    MwdConv2d,
    Op,
    Sub,
)

Padding = tuple[int, int, int, int]


def linear(node: TorchNode) -> Value:
    """Return W x + b."""
    return node.emit(Affine(node.weight("weight"), node.optional_weight("bias")), node.value("input"))


def addmm(node: TorchNode) -> Value:
    """Return bias + x M for a constant matrix M."""
    x, matrix = node.value("mat1"), node.weight("mat2")
    node.expect("alpha", 1, 1.0)
    node.expect("beta", 1, 1.0)
    product = node.emit(Affine(node.constants.transposed(matrix)), x, part="product")
    return node.emit(AddConstant(node.constant("self", product)), product)


def matmul(node: TorchNode) -> Value:
    """Return x M for a constant matrix M."""
    matrix = node.weight("mat2" if "mat2" in node.arguments else "other")
    if matrix.dim() != 2:
        raise ValueError(f"takes a constant matrix on the right, got shape {tuple(matrix.shape)}")
    return node.emit(Affine(node.constants.transposed(matrix)), node.value())


def convolution(node: TorchNode) -> Value:
    """Return the two-dimensional cross-correlation with a constant kernel."""
    x, weight = node.value("input"), node.weight("weight")
    if weight.dim() != 4:
        raise ValueError(f"kernels of shape {tuple(weight.shape)} are not supported; supported: two-dimensional")
    node.graph.require_batch(x, 4)
    if "transposed" in node.arguments:
        node.expect("transposed", False)
        node.expect("output_padding", [0], [0, 0])
    stride, dilation = node.pair("stride"), node.pair("dilation")
    padding = _convolution_padding(node, weight, stride, dilation)
    op = Conv2d(weight, node.optional_weight("bias"), stride, padding, dilation, node.take("groups"))
    return node.emit(op, x)


def _convolution_padding(
    node: TorchNode, weight: Tensor, stride: tuple[int, int], dilation: tuple[int, int]
) -> Padding:
    """Return (top, left, bottom, right) from numbers, 'valid' or 'same' (which pads more at the end)."""
    mode = node.arguments["padding"]
    if not isinstance(mode, str):
        return _both_sides(node.pair("padding"))
    node.expect("padding", "same", "valid")
    if mode == "valid":
        return 0, 0, 0, 0
    if stride != (1, 1):
        raise ValueError(f"padding 'same' with stride {stride} is not supported")
    totals = [spread * (int(size) - 1) for spread, size in zip(dilation, weight.shape[2:], strict=True)]
    top, left = totals[0] // 2, totals[1] // 2
    return top, left, totals[0] - top, totals[1] - left


def _both_sides(padding: tuple[int, int]) -> Padding:
    return padding[0], padding[1], padding[0], padding[1]


def batch_norm(node: TorchNode) -> Value:
    """Return the normalised value, with the stored statistics."""
    x = node.value("input")
    node.graph.require_batch(x, max(len(x.shape), 2))
    if "training" in node.arguments:
        node.expect("training", False)
    node.ignore("momentum", "cudnn_enabled")
    mean, variance = node.weight("running_mean"), node.weight("running_var")
    scale, shift = node.optional_weight("weight"), node.optional_weight("bias")
    scale = node.constants.filled_like(mean, 1.0) if scale is None else scale
    shift = node.constants.filled_like(mean, 0.0) if shift is None else shift
    return node.emit(BatchNorm(mean, variance, scale, shift, node.take("eps")), x)


def max_pool(node: TorchNode) -> Value:
    """Return maxima over windows."""
    x, kernel, stride, padding = _pooling(node)
    return node.emit(MaxPool2d(kernel, stride, padding, node.pair("dilation")), x)


def average_pool(node: TorchNode) -> Value:
    """Return means over windows."""
    x, kernel, stride, padding = _pooling(node)
    node.expect("divisor_override", None)
    return node.emit(AveragePool2d(kernel, stride, padding, node.take("count_include_pad")), x)


def _pooling(node: TorchNode) -> tuple[Value, tuple[int, int], tuple[int, int], Padding]:
    """Return input, kernel, stride (the kernel if left out) and padding."""
    x = node.value()
    node.graph.require_batch(x, 4)
    node.expect("ceil_mode", False)
    kernel = node.pair("kernel_size")
    stride = node.pair("stride") if node.take("stride") else kernel
    return x, kernel, stride, _both_sides(node.pair("padding"))


def max_weighted_distance(node: TorchNode) -> Value:
    """Return the outputs of a layer of MWD units."""
    link = "linear" if node.take("linear") else None
    op = Mwd(node.weight("u"), node.weight("w"), _negated(node), node.optional_weight("bias"), link)
    return node.emit(op, node.value("x"))


def convolutional_max_weighted_distance(node: TorchNode) -> Value:
    """Return the outputs of a layer of MWD units slid over an image."""
    x, padding = node.value("x"), _both_sides(node.pair("padding"))
    node.graph.require_batch(x, 4)
    return node.emit(MwdConv2d(node.weight("u"), node.weight("w"), _negated(node), node.pair("stride"), padding), x)


def _negated(node: TorchNode) -> Tensor:
    """Return the mask of negated units."""
    negated = node.take("negated")
    if not isinstance(negated, Tensor):
        raise ValueError("negated must be a constant mask")
    return node.constants.contiguous(negated)


def add(node: TorchNode) -> Value:
    """Return a sum of two computed values, broadcast together, or of one and a constant."""
    node.expect("alpha", 1, 1.0)
    if node.is_value("self") and node.is_value("other"):
        return node.emit(Add(), *_together(node))
    return _with_constant(node, AddConstant)


def _together(node: TorchNode) -> list[Value]:
    """Return the two operands repeated to one shape."""
    claim = functools.partial(node.constants.claim, what=f"node {node.name!r}")
    return together(node.graph, claim, node.name, [node.value("self"), node.value("other")])


def subtract(node: TorchNode) -> Value:
    """Return a difference; a constant minus a value is minus the value plus the constant."""
    node.expect("alpha", 1, 1.0)
    if node.is_value("self") and node.is_value("other"):
        return node.emit(Sub(), *_together(node))
    if not node.is_value("self"):
        return _constant_minus(node, "self", "other")
    x = node.value("self")
    return node.emit(AddConstant(node.constants.negated(node.constant("other", x))), x)


def reversed_subtract(node: TorchNode) -> Value:
    """Return other - self for a constant other."""
    node.expect("alpha", 1, 1.0)
    return _constant_minus(node, "other", "self")


def _constant_minus(node: TorchNode, constant: str, value: str) -> Value:
    x = node.value(value)
    minus = node.emit(MultiplyConstant(torch.tensor(-1, dtype=node.graph.dtype)), x, part="negated")
    return node.emit(AddConstant(node.constant(constant, x)), minus)


def multiply(node: TorchNode) -> Value:
    """Return a value times a constant, or times a function of itself that makes a curve."""
    if not (node.is_value("self") and node.is_value("other")):
        return _with_constant(node, MultiplyConstant)
    product = gated(node, node.value("self"), node.value("other"))
    if product is None:
        raise ValueError("a product of two computed values is not supported; supported: one constant")
    return product


def divide(node: TorchNode) -> Value:
    """Return a value divided by a constant, or a constant divided by a value."""
    if not node.is_value("other"):
        return _with_constant(node, DivideConstant)
    if node.is_value("self"):
        raise ValueError("a quotient of two computed values is not supported; supported: one constant")
    inverse = node.emit(Curve("power", (-1.0,)), node.value("other"), part="inverse")
    return node.emit(MultiplyConstant(node.constant("self", inverse)), inverse)


def _with_constant(node: TorchNode, op: Callable[[Tensor], Op]) -> Value:
    value, constant = ("self", "other") if node.is_value("self") else ("other", "self")
    x = node.value(value)
    return node.emit(op(node.constant(constant, x)), x)


def negate(node: TorchNode) -> Value:
    """Return minus the value."""
    return node.emit(MultiplyConstant(torch.tensor(-1, dtype=node.graph.dtype)), node.value())


def activation(op: type[Op]) -> Callable[[TorchNode], Value]:
    """Return the handler of an activation function without settings."""
    return lambda node: node.emit(op(), node.value())


def absolute(node: TorchNode) -> Value:
    """Return |x|."""
    return node.emit(Abs(), node.value())
