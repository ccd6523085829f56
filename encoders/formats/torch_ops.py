"""Operators of exported torch graphs, before and after decomposition, as ops that round nothing in advance.

A handler returns the call's output or raises ValueError with what is not supported. Meaning of the operators: the
schemas of torch's native functions.
"""

import functools
from collections.abc import Callable

import torch
from torch import Tensor

from encoders.formats.cells import together
from encoders.formats.graph import Value
from encoders.formats.torch_node import TorchNode
from encoders.ops import (
    Abs,
    Add,
    AddConstant,
    Affine,
    BatchNorm,
    DivideConstant,
    MultiplyConstant,
    Mwd,
    MwdConv2d,
    Op,
    Sub,
)


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


def max_weighted_distance(node: TorchNode) -> Value:
    """Return the outputs of a layer of MWD units."""
    link = "linear" if node.take("linear") else None
    op = Mwd(node.weight("u"), node.weight("w"), _negated(node), node.optional_weight("bias"), link)
    return node.emit(op, node.value("x"))


def convolutional_max_weighted_distance(node: TorchNode) -> Value:
    """Return the outputs of a layer of MWD units slid over an image."""
    x, (rows, columns) = node.value("x"), node.pair("padding")
    node.graph.require_batch(x, 4)
    return node.emit(
        MwdConv2d(node.weight("u"), node.weight("w"), _negated(node), node.pair("stride"), (rows, columns) * 2), x
    )


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
    """Return a value times a constant."""
    return _with_constant(node, MultiplyConstant)


def divide(node: TorchNode) -> Value:
    """Return a value divided by a constant."""
    return _with_constant(node, DivideConstant)


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
