"""Merge an addition into the linear op before it, as its bias: W x followed by + c becomes W x + c.

Exact in real arithmetic, since no weight changes. Only ops without a bias take part: the sum of two biases would
be rounded.
"""

from __future__ import annotations

import dataclasses

from torch import Tensor

from encoders.box import Shape
from encoders.network import Network, Node
from encoders.ops import AddConstant, Affine, Conv2d


def merge_bias(network: Network) -> Network:
    """Return the network with every such pair as one op, under the name of the addition.

    A pair is an affine or conv2d without bias whose only reader adds a constant that is the same everywhere on
    an output channel.
    """
    nodes = {node.name: node for node in network.nodes}
    readers: dict[str, int] = {}
    for node in network.nodes:
        for name in node.inputs:
            readers[name] = readers.get(name, 0) + 1
    merged: dict[str, Node] = {}
    absorbed: set[str] = set()
    for node in network.nodes:
        before = nodes.get(node.inputs[0])
        if before is None or readers[before.name] != 1:
            continue
        pair = _merge(before, node, network.shapes[node.name])
        if pair is not None:
            merged[node.name] = pair
            absorbed.add(before.name)
    if not merged:
        return network
    kept = tuple(merged.get(node.name, node) for node in network.nodes if node.name not in absorbed)
    return Network(kept, network.input_shape, network.dtype, network.source)


def _merge(before: Node, node: Node, shape: Shape) -> Node | None:
    """Return the pair as one node, or None if it is not such a pair."""
    linear, addition = before.op, node.op
    if not isinstance(linear, Affine | Conv2d) or not isinstance(addition, AddConstant) or linear.bias is not None:
        return None
    channel_axis = len(shape) - 1 if isinstance(linear, Affine) else 0
    bias = _per_channel(addition.constant, shape, channel_axis)
    if bias is None or bias.dtype != linear.weight.dtype:
        return None
    return Node(node.name, dataclasses.replace(linear, bias=bias), before.inputs)


def _per_channel(constant: Tensor, shape: Shape, channel_axis: int) -> Tensor | None:
    """Return the constant as a vector over the channels, or None if it varies within one."""
    # Compared as it is stored: a single number added to a large map is not spread over it.
    own = constant.reshape(*[1] * (len(shape) - constant.dim()), *constant.shape).movedim(channel_axis, 0)
    rows = own.reshape(own.shape[0], -1)
    return rows[:, 0].expand(shape[channel_axis]).clone() if bool((rows == rows[:, :1]).all()) else None
