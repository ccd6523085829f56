"""Torch operators over classes or all units: softmax, its logarithm, the place of the maximum, k-winners."""

from collections.abc import Callable

from encoders.formats.graph import Value
from encoders.formats.torch_node import TorchNode
from encoders.ops import ArgMax, KWinners, LogSoftmax, Softmax


def along_axis(op: type[Softmax] | type[LogSoftmax]) -> Callable[[TorchNode], Value]:
    """Return the handler of a softmax or of its logarithm."""

    def handler(node: TorchNode) -> Value:
        x = node.value()
        if "dtype" in node.arguments:
            node.expect("dtype", None, node.graph.dtype)
        if "half_to_float" in node.arguments:
            node.expect("half_to_float", False)
        return node.emit(op(node.graph.axis(x, node.take("dim"))), x)

    return handler


def arg_max(node: TorchNode) -> Value:
    """Return the first place of the greatest value along an axis."""
    x, axis = node.value(), node.take("dim")
    if axis is None:
        raise ValueError("a place among all values, those of the batch included, is not supported; supported: an axis")
    return node.emit(ArgMax(node.graph.axis(x, axis), bool(node.take("keepdim"))), x)


def k_winners(node: TorchNode) -> Value:
    """Return the greatest units of each sample, zero for the others."""
    x = node.value("x")
    node.graph.require_batch(x, len(x.shape))
    return node.emit(KWinners(node.take("count")), x)
