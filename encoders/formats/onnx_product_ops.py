"""ONNX operators that multiply or divide computed values, and layer normalisation.

Meaning of the operators: the ONNX operator specification, default domain, opsets 8 to 21.
"""

from encoders.formats import onnx_ops as ops
from encoders.formats import products
from encoders.formats.gates import gated
from encoders.formats.graph import Value
from encoders.formats.onnx_node import OnnxNode
from encoders.ops import AddConstant, Affine, MultiplyConstant


def multiply(node: OnnxNode) -> Value:
    """Return the product of two computed values, as a curve where they make one, or of one and a constant."""
    if node.is_constant(0) or node.is_constant(1):
        return ops.multiply(node)
    a, b = node.value(0), node.value(1)
    return gated(node, a, b) or products.product_of(node.graph, node.memory.fold, node.name, a, b)


def divide(node: OnnxNode) -> Value:
    """Return a value or a constant divided by a computed value, or a value by a constant."""
    if node.is_constant(1):
        return ops.divide(node)
    divided = node.weight(0) if node.is_constant(0) else node.value(0)
    return products.quotient_of(node.graph, node.memory.fold, node.name, divided, node.value(1))


def matmul(node: OnnxNode) -> Value:
    """Return the product of two computed matrices, or of one and a constant matrix on either side."""
    if node.is_constant(1):
        return ops.matmul(node)
    if not node.is_constant(0):
        return products.matrix_product_of(node.graph, node.memory.fold, node.name, node.value(0), node.value(1))
    x, matrix = node.value(1), node.array(0)
    if matrix.ndim != 2 or len(node.graph.sample_shape(x)) < 2:
        return ops.matmul(node)
    # M x = (x' M')' in the last two axes.
    order = [*range(len(x.shape) - 2), len(x.shape) - 1, len(x.shape) - 2]
    turned = node.graph.transpose(f"{node.name}/turned", x, order)
    return node.graph.transpose(node.name, node.emit(Affine(node.weight(0)), turned, part="product"), order)


def layer_normalization(node: OnnxNode) -> Value:
    """Return the value normalised over the axes from one on, scaled and shifted."""
    x = node.value(0)
    node.expect("stash_type", 1)
    first = node.attributes.get("axis", -1)
    first = first % len(x.shape) if -len(x.shape) <= first < len(x.shape) else first
    epsilon = node.attributes.get("epsilon", ops.as_float32(1e-5))
    axes = range(first, len(x.shape))
    result = products.layer_norm(node.graph, node.memory.fold, f"{node.name}/normalised", x, axes, epsilon)
    scale, shift = node.weight(1), node.weight(2) if node.has(2) else None
    result = node.emit(MultiplyConstant(node.graph.constant(result, scale)), result)
    return result if shift is None else node.emit(AddConstant(node.graph.constant(result, shift)), result)
