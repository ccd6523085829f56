"""MWD networks as a chain of dense layers, the form that contraction and Lipschitz bounds take."""

import math

from encoders.network import INPUT, Network
from encoders.views.distances import DistanceLayer

# Weights that a convolutional layer may have once it is written out as a dense one: 1 GiB in float64.
LARGEST_DENSE = 1 << 27


def chain_refusal(network: Network, method: str) -> str | None:
    """Return why the network is no chain of MWD layers that can be written out, naming the first node; or None."""
    previous = INPUT
    for node in network.nodes:
        if node.inputs != (previous,) or not (node.op.measures_distances or node.op.keeps_values):
            return f"method {method!r} takes a chain of MWD layers; node {node.name!r} is {node.op.kind}"
        if node.op.measures_distances and len(network.shapes[previous]) > 1:
            size = math.prod(network.shapes[previous]) * math.prod(network.shapes[node.name])
            if size > LARGEST_DENSE:
                return (
                    f"method {method!r} writes node {node.name!r} ({node.op.kind}) out as a dense layer of {size:,} "
                    f"weights; supported: {LARGEST_DENSE:,}"
                )
        previous = node.name
    last = network.output
    if not last.op.measures_distances or len(network.output_shape) > 1:
        return f"method {method!r} takes a last layer of kind mwd; node {last.name!r} is {last.op.kind}"
    return None


def dense_layers(network: Network, method: str) -> list[DistanceLayer]:
    """Return the layers, convolutional ones written out, of flat inputs in C order; ValueError as `chain_refusal`."""
    refusal = chain_refusal(network, method)
    if refusal is not None:
        raise ValueError(refusal)
    layers = [node.op.distance_layer(network.shapes[node.inputs[0]]) for node in network.nodes]
    return [layer for layer in layers if layer is not None]
