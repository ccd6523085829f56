"""Torch operators that multiply or divide computed values, layer normalisation, and attention."""

import math

import torch

from encoders.formats import products
from encoders.formats import torch_ops as ops
from encoders.formats.gates import gated
from encoders.formats.graph import Value
from encoders.formats.torch_node import TorchNode
from encoders.ops import AddConstant, MultiplyConstant, Softmax


def _claim(node: TorchNode) -> products.Claim:
    return lambda size: node.constants.claim(size, "an index map")


def multiply(node: TorchNode) -> Value:
    """Return the product of two computed values, as a curve where they make one, or of one and a constant."""
    if not (node.is_value("self") and node.is_value("other")):
        return ops.multiply(node)
    a, b = node.value("self"), node.value("other")
    return gated(node, a, b) or products.product_of(node.graph, _claim(node), node.name, a, b)


def divide(node: TorchNode) -> Value:
    """Return a value or a constant divided by a computed value, or a value by a constant."""
    if not node.is_value("other"):
        return ops.divide(node)
    divisor = node.value("other")
    divided = node.value("self") if node.is_value("self") else node.constant("self", divisor)
    return products.quotient_of(node.graph, _claim(node), node.name, divided, divisor)


def matmul(node: TorchNode) -> Value:
    """Return the product of two computed matrices, or of one and a constant matrix on the right."""
    other = "mat2" if "mat2" in node.arguments else "other"
    if not (node.is_value("self") and node.is_value(other)):
        return ops.matmul(node)
    a, b = node.value("self"), node.value(other)
    return products.matrix_product_of(node.graph, _claim(node), node.name, a, b)


def layer_norm(node: TorchNode) -> Value:
    """Return the value normalised over its last axes, scaled and shifted."""
    x, shape = node.value("input"), node.take("normalized_shape")
    node.ignore("cudnn_enable")
    axes = range(len(x.shape) - len(shape), len(x.shape))
    epsilon = float(node.take("eps"))
    result = products.layer_norm(node.graph, _claim(node), f"{node.name}/normalised", x, axes, epsilon)
    scale, shift = node.optional_weight("weight"), node.optional_weight("bias")
    if scale is not None:
        result = node.emit(MultiplyConstant(node.graph.constant(result, scale)), result)
    return result if shift is None else node.emit(AddConstant(node.graph.constant(result, shift)), result)


def attention(node: TorchNode) -> Value:
    """Return softmax(Q K' / sqrt(d)) V without a mask."""
    node.expect("attn_mask", None)
    node.expect("dropout_p", 0.0)
    node.expect("is_causal", False)
    node.expect("enable_gqa", False)
    query, key, value = (node.value(name) for name in ("query", "key", "value"))
    graph, claim, given = node.graph, _claim(node), node.take("scale")
    rank = len(key.shape)
    factor = 1.0 / math.sqrt(query.shape[-1]) if given is None else float(given)
    scale = torch.tensor(factor, dtype=torch.float64)
    turned = graph.transpose(f"{node.name}/key", key, [*range(rank - 2), rank - 1, rank - 2])
    scores = products.matrix_product_of(graph, claim, f"{node.name}/scores", query, turned)
    scores = node.emit(MultiplyConstant(scale), scores, part="scaled")
    weights = node.emit(Softmax(graph.axis(scores, -1)), scores, part="weights")
    return products.matrix_product_of(graph, claim, node.name, weights, value)
