"""ONNX operators over the classes of an axis: softmax, its logarithm, and the place of the maximum."""

import math

from encoders.formats.graph import Value
from encoders.formats.onnx_node import OnnxNode
from encoders.ops import ArgMax, LogSoftmax, Softmax


def softmax(node: OnnxNode) -> Value:
    """Return the softmax along an axis, before opset 13 along all axes from one on."""
    return _along_axis(node, Softmax)


def log_softmax(node: OnnxNode) -> Value:
    """Return the logarithm of the softmax."""
    return _along_axis(node, LogSoftmax)


def _along_axis(node: OnnxNode, op: type[Softmax] | type[LogSoftmax]) -> Value:
    x, graph = node.value(), node.graph
    if node.opset >= 13:
        return node.emit(op(graph.axis(x, node.attributes.get("axis", -1))), x)
    axis = graph.axis(x, node.attributes.get("axis", 1))
    shape = graph.sample_shape(x)
    if axis == len(shape) - 1:
        return node.emit(op(axis), x)
    batch = (1,) if graph.has_batch else ()
    flat = graph.reshape(f"{node.name}/flat", x, (*batch, *shape[:axis], math.prod(shape[axis:])))
    return graph.reshape(node.name, node.emit(op(axis), flat, part="values"), x.shape)


def arg_max(node: OnnxNode) -> Value:
    """Return the first place of the greatest value along an axis."""
    x = node.value()
    node.expect("select_last_index", 0)
    axis = node.graph.axis(x, node.attributes.get("axis", 0))
    return node.emit(ArgMax(axis, bool(node.attributes.get("keepdims", 1))), x)
