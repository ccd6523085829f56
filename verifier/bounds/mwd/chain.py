"""MWD networks as a chain of dense layers, the form that contraction and Lipschitz bounds take."""

import math

from encoders.network import INPUT, Network
from encoders.ops import Mwd, MwdConv2d, Reshape

# Weights that a convolutional layer may have once it is written out as a dense one: 1 GiB in float64.
LARGEST_DENSE = 1 << 27


def chain_refusal(network: Network, method: str) -> str | None:
    """Return why the network is no chain of MWD layers that can be written out, naming the first node; or None."""
    previous = INPUT
    for node in network.nodes:
        if node.inputs != (previous,) or not isinstance(node.op, Mwd | MwdConv2d | Reshape):
            return (
                f"method {method!r} takes a chain of MWD layers; node {node.name!r} is {node.op.kind}. "
                "Methods for other networks: interval, auto"
            )
        if isinstance(node.op, MwdConv2d):
            size = math.prod(network.shapes[previous]) * math.prod(network.shapes[node.name])
            if size > LARGEST_DENSE:
                return (
                    f"method {method!r} writes node {node.name!r} (mwd-conv2d) out as a dense layer of {size:,} "
                    f"weights; supported: {LARGEST_DENSE:,}. Methods for larger ones: interval"
                )
        previous = node.name
    if not isinstance(network.output.op, Mwd):
        last = network.output
        return f"method {method!r} takes a last layer of kind mwd; node {last.name!r} is {last.op.kind}"
    return None


def dense_layers(network: Network, method: str) -> list[Mwd]:
    """Return the layers, convolutional ones written out, of flat inputs in C order; ValueError as `chain_refusal`."""
    refusal = chain_refusal(network, method)
    if refusal is not None:
        raise ValueError(refusal)
    layers = []
    for node in network.nodes:
        if isinstance(node.op, MwdConv2d):
            layers.append(node.op.as_dense(network.shapes[node.inputs[0]]))
        elif isinstance(node.op, Mwd):
            layers.append(node.op)
    return layers
