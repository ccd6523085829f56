"""ONNX operators that sum, average or compare along axes or over several inputs.

Meaning of the operators: the ONNX operator specification, default domain, opsets 8 to 21.
"""

from collections.abc import Callable, Sequence

import torch

from encoders.formats.cells import together
from encoders.formats.einsum import einsum
from encoders.formats.graph import GraphBuilder, Value
from encoders.formats.onnx_node import OnnxNode
from encoders.formats.reductions import mean_over
from encoders.ops import Add, AddConstant, DivideConstant

Over = Callable[[GraphBuilder, str, Value, Sequence[int], bool], Value]


def reduced(over: Over, input_since: int = 18) -> Callable[[OnnxNode], Value]:
    """Return the handler of a reduction; input_since: the opset from which the axes are an input."""

    def handler(node: OnnxNode) -> Value:
        x, axes = node.value(0), node.integers_by_name("axes", 1, input_since)
        if not axes:
            if node.attributes.get("noop_with_empty_axes", 0):
                return x
            axes = list(range(len(x.shape)))
        return over(node.graph, node.name, x, axes, bool(node.attributes.get("keepdims", 1)))

    return handler


def global_average_pool(node: OnnxNode) -> Value:
    """Return the mean over all axes after the channels, kept with size 1."""
    x = node.value(0)
    node.graph.require_batch(x, max(len(x.shape), 3))
    return mean_over(node.graph, node.name, x, range(2, len(x.shape)), True)


def add_all(node: OnnxNode) -> Value:
    """Return the sum of all inputs, broadcast together."""
    values = [node.value(index) for index in range(len(node.inputs)) if not node.is_constant(index)]
    result, *others = together(node.graph, node.memory.fold, node.name, values)
    for other in others:
        result = node.emit(Add(), result, other, part="partial")
    for index in range(len(node.inputs)):
        if node.is_constant(index):
            result = node.emit(AddConstant(node.graph.constant(result, node.weight(index))), result, part="partial")
    return result


def average(node: OnnxNode) -> Value:
    """Return the mean of all inputs, broadcast together."""
    total = add_all(node)
    count = torch.tensor(float(len(node.inputs)), dtype=torch.float64)
    return total if len(node.inputs) == 1 else node.emit(DivideConstant(count), total)


def einstein_sum(node: OnnxNode) -> Value:
    """Return the sum of an equation over one computed value and at most one constant."""
    operands = [node.weight(i) if node.is_constant(i) else node.value(i) for i in range(len(node.inputs))]
    return einsum(node.graph, node.memory.fold, node.name, node.attributes["equation"], operands)
