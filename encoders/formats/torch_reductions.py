"""Operators of exported torch graphs that sum, average or compare along axes."""

import functools
from collections.abc import Callable, Sequence

import torch

from encoders.formats.einsum import einsum
from encoders.formats.graph import GraphBuilder, Value
from encoders.formats.torch_node import TorchNode
from encoders.ops import Affine

Over = Callable[[GraphBuilder, str, Value, Sequence[int], bool], Value]


def reduced(over: Over) -> Callable[[TorchNode], Value]:
    """Return the handler of a reduction over the axes `dim`, all of them if there are none."""

    def handler(node: TorchNode) -> Value:
        x = node.value()
        axes = node.take("dim") if "dim" in node.arguments else None
        axes = [axes] if isinstance(axes, int) else axes or list(range(len(x.shape)))
        if "dtype" in node.arguments:
            node.expect("dtype", None, node.graph.dtype)
        return over(node.graph, node.name, x, axes, bool("keepdim" in node.arguments and node.take("keepdim")))

    return handler


def running_sum(node: TorchNode) -> Value:
    """Return the sums of all entries up to each one along an axis: a product with a triangle of ones."""
    x, shape = node.value(), node.value().shape
    node.expect("dtype", None, node.graph.dtype)
    axis = node.graph.axis(x, node.take("dim")) + len(shape) - len(node.graph.sample_shape(x))
    order = [i for i in range(len(shape)) if i != axis] + [axis]
    node.constants.claim(8 * shape[axis] ** 2, f"node {node.name!r}")
    ones = torch.ones(shape[axis], shape[axis], dtype=node.graph.dtype).tril()
    last = node.emit(Affine(ones), node.graph.transpose(f"{node.name}/last", x, order), part="sums")
    return node.graph.transpose(node.name, last, [order.index(i) for i in range(len(order))])


def einstein_sum(node: TorchNode) -> Value:
    """Return the sum of an equation over one computed value and at most one constant."""
    operands = node.take("tensors")
    node.expect("path", None)
    if any(isinstance(given, torch.Tensor) and given.dtype != node.graph.dtype for given in operands):
        raise ValueError(f"a constant has another dtype than the input, {node.graph.dtype}")
    claim = functools.partial(node.constants.claim, what=f"node {node.name!r}")
    return einsum(node.graph, claim, node.name, node.take("equation"), operands)
