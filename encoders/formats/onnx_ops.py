"""ONNX operators that compute: products, sums, activations. Each becomes ops that round nothing in advance.

A handler returns the node's output or raises ValueError with what is not supported. Meaning of the operators:
the ONNX operator specification, default domain, opsets 8 to 21.
"""

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from encoders.formats.cells import together
from encoders.formats.graph import Value
from encoders.formats.onnx_node import OnnxNode
from encoders.ops import (
    Abs,
    Add,
    AddConstant,
    Affine,
    BatchNorm,
    DivideConstant,
    MultiplyConstant,
    Op,
    Relu,
    Sigmoid,
    Sub,
    Tanh,
)


def gemm(node: OnnxNode) -> Value:
    """Return alpha A B + beta C for a computed A and constant B, C."""
    x = node.value(0)
    node.expect("transA", 0)
    weight = node.weight(1) if node.attributes.get("transB", 0) else node.transposed_weight(1)
    if weight.dim() != 2 or len(x.shape) != 2:
        raise ValueError(f"takes matrices, got shapes {x.shape} and {node.array(1).shape}")
    alpha, beta = node.attributes.get("alpha", 1.0), node.attributes.get("beta", 1.0)
    bias = _exact_multiple(node, beta, node.weight(2)) if node.has(2) and beta != 0 else None
    if bias is not None:
        bias = node.graph.constant(x, bias)
    result = node.emit(Affine(weight), x, part="product")
    if alpha != 1.0:
        result = node.emit(MultiplyConstant(torch.tensor(alpha, dtype=weight.dtype)), result, part="scaled")
    return result if bias is None else node.emit(AddConstant(bias), result)


def _exact_multiple(node: OnnxNode, factor: float, constant: Tensor) -> Tensor:
    """Return factor * constant; raise ValueError if that cannot be stored without rounding.

    The factor has 24 bits. A float64 constant is high + low of 24 and 29 bits, whose products are exact; their sum is
    if its rounding error (Knuth's two-sum) is zero.
    """
    if factor == 1.0:
        return constant
    node.memory.fold(2 * constant.numel() * 8)
    high = constant.float().double()
    low = constant.double() - high
    a, b = high * factor, low * factor
    product = a + b
    rest = product - a
    error = (a - (product - rest)) + (b - rest)
    # Outside of these sizes the parts could overflow or lose bits below the smallest float.
    size = constant.double().abs()
    fits = (size == 0) | ((size >= 2.0**-100) & (size <= 2.0**100) | torch.tensor(constant.dtype == torch.float32))
    if not math.isfinite(factor) or not bool(((error == 0) & fits).all()):
        raise ValueError(f"beta = {factor} would round the bias; supported: beta = 1")
    stored = product.to(constant.dtype)
    return stored if torch.equal(stored.double(), product) else product


def matmul(node: OnnxNode) -> Value:
    """Return A B for a constant matrix on one side; on the left only without batch axis, times one column."""
    if node.is_constant(1):
        x, matrix = node.value(0), node.array(1)
        if matrix.ndim != 2 or not node.graph.sample_shape(x):
            raise ValueError(f"takes a constant matrix on the right, got shape {matrix.shape}")
        return node.emit(Affine(node.transposed_weight(1)), x)
    if node.is_constant(0):
        x, weight = node.value(1), node.weight(0)
        column = len(x.shape) == 2 and x.shape[1] == 1
        if node.graph.has_batch or weight.dim() != 2 or not (len(x.shape) == 1 or column):
            raise ValueError(
                f"a constant on the left, of shape {tuple(weight.shape)}, times {x.shape} is not supported; "
                "supported: a constant matrix on the right"
            )
        if not column:
            return node.emit(Affine(weight), x)
        product = node.emit(Affine(weight), node.graph.reshape(f"{node.name}/row", x, x.shape[:1]), part="product")
        return node.graph.reshape(node.name, product, (weight.shape[0], 1))
    raise ValueError("a product of two computed values is not supported; supported: one constant matrix")


# In training mode the statistics are those of the batch: the rows of a batch are no inputs of their own.
TRAINING = (
    "is in training mode (training_mode = 1, or further outputs), where it normalises by the statistics of the batch; "
    "export the model in evaluation mode: model.eval() before torch.onnx.export"
)


def batch_normalization(node: OnnxNode) -> Value:
    """Return the normalised value, with the stored statistics."""
    x = node.value(0)
    node.graph.require_batch(x, max(len(x.shape), 2))
    if node.attributes.get("training_mode", 0):
        raise ValueError(TRAINING)
    node.expect("spatial", 1)
    scale, shift, mean, variance = (node.weight(index) for index in range(1, 5))
    return node.emit(BatchNorm(mean, variance, scale, shift, node.attributes.get("epsilon", as_float32(1e-5))), x)


def as_float32(value: float) -> float:
    """Return the nearest float32: ONNX stores the numbers in attributes, defaults included, in that type."""
    return float(np.float32(value))


def add(node: OnnxNode) -> Value:
    """Return a sum of two computed values, broadcast together, or of one and a constant."""
    if node.is_constant(1):
        return _with_constant(node, AddConstant, 0, 1)
    if node.is_constant(0):
        return _with_constant(node, AddConstant, 1, 0)
    return node.emit(Add(), *together(node.graph, node.memory.fold, node.name, [node.value(0), node.value(1)]))


def subtract(node: OnnxNode) -> Value:
    """Return a difference; a constant minus a value is minus the value plus the constant."""
    if node.is_constant(1):
        x = node.value(0)
        constant = node.weight(1)
        node.memory.fold(constant.nbytes)
        return node.emit(AddConstant(-node.graph.constant(x, constant)), x)
    if node.is_constant(0):
        x = node.value(1)
        minus = node.emit(MultiplyConstant(torch.tensor(-1, dtype=node.graph.dtype)), x, part="negated")
        return node.emit(AddConstant(node.graph.constant(x, node.weight(0))), minus)
    return node.emit(Sub(), *together(node.graph, node.memory.fold, node.name, [node.value(0), node.value(1)]))


def multiply(node: OnnxNode) -> Value:
    """Return a value times a constant."""
    return _with_constant(node, MultiplyConstant, *((0, 1) if node.is_constant(1) else (1, 0)))


def divide(node: OnnxNode) -> Value:
    """Return a value divided by a constant."""
    return _with_constant(node, DivideConstant, 0, 1)


def scaler(node: OnnxNode) -> Value:
    """Return (x - offset) scale, with a number for all features or one for each (ai.onnx.ml)."""
    x = node.value(0)
    if node.graph.dtype != torch.float32:
        raise ValueError(f"its result is float32, the network {node.graph.dtype}; export the model in float32")
    shift, factor = (torch.tensor(node.attributes.get(name, ()), dtype=torch.float32) for name in ("offset", "scale"))
    node.graph.require_batch(x, 2)
    if len(shift) != len(factor) or len(shift) not in (1, x.shape[1]):
        raise ValueError(f"{len(shift)} offsets and {len(factor)} scales do not fit {x.shape[1]} features")
    moved = node.emit(AddConstant(-shift), x, part="moved")
    return node.emit(MultiplyConstant(factor), moved)


def negate(node: OnnxNode) -> Value:
    """Return minus the value."""
    return node.emit(MultiplyConstant(torch.tensor(-1, dtype=node.graph.dtype)), node.value(0))


def _with_constant(node: OnnxNode, op: Callable[[Tensor], Op], value: int, constant: int) -> Value:
    x = node.value(value)
    return node.emit(op(node.graph.constant(x, node.weight(constant))), x)


def relu(node: OnnxNode) -> Value:
    """Return max(x, 0)."""
    return node.emit(Relu(), node.value(0))


def absolute(node: OnnxNode) -> Value:
    """Return |x|."""
    return node.emit(Abs(), node.value(0))


def sigmoid(node: OnnxNode) -> Value:
    """Return 1 / (1 + exp(-x))."""
    return node.emit(Sigmoid(), node.value(0))


def tanh(node: OnnxNode) -> Value:
    """Return the hyperbolic tangent."""
    return node.emit(Tanh(), node.value(0))
