"""The weights of a chain of MWD layers as flat arrays, for compiled code."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from encoders.views.distances import DistanceLayer
from verifier.bounds.mwd.contraction_rules import LINEAR, NEGATED, Array

LARGEST = 1e100


class PackedNetwork(NamedTuple):
    """Layer l has units[l] rows of inputs[l] columns at offset[l]; its inputs start at starts[l] among all values.

    Values are the pixels and the outputs of all layers but the last. kind (see `contraction_rules`) and bias: of each
    unit, those of layer l from unit_offset[l] on. limit: of weights and boxes, so that no number can overflow.
    """

    weight: Array
    attractor: Array
    kind: Array
    bias: Array
    units: Array
    inputs: Array
    offset: Array
    unit_offset: Array
    starts: Array
    limit: float

    @property
    def size(self) -> int:
        """The number of values."""
        return int(self.starts[-1] + self.inputs[-1])


def pack(layers: Sequence[DistanceLayer]) -> PackedNetwork:
    """Return the layers as flat arrays; raise ValueError if their weights are so large that numbers could overflow."""
    linear = any(op.has_linear_link for op in layers)
    # Outputs of linear links grow from layer to layer, at most by the factor 3 limit; those of others lie in [0, 1].
    limit = LARGEST ** (1.0 / (len(layers) + 1)) if linear else LARGEST
    biases = [op.negated.double() * 0.0 if op.bias is None else op.bias for op in layers]
    parts = [part for op, bias in zip(layers, biases, strict=True) for part in (op.weight, op.attractor, bias)]
    largest = max(float(part.abs().max()) for part in parts)
    if not largest < limit:
        raise ValueError(f"contraction takes weights below {limit:g} in size, got {largest:g}")
    sizes = [op.weight.shape for op in layers]
    return PackedNetwork(
        weight=np.concatenate([op.weight.double().cpu().numpy().ravel() for op in layers]),
        attractor=np.concatenate([op.attractor.double().cpu().numpy().ravel() for op in layers]),
        kind=np.concatenate([op.negated.long().cpu().numpy() * NEGATED + op.has_linear_link * LINEAR for op in layers]),
        bias=np.concatenate([bias.double().cpu().numpy() for bias in biases]),
        units=np.array([m for m, _ in sizes], dtype=np.int64),
        inputs=np.array([n for _, n in sizes], dtype=np.int64),
        offset=_starts([m * n for m, n in sizes]),
        unit_offset=_starts([m for m, _ in sizes]),
        starts=_starts([n for _, n in sizes]),
        limit=limit,
    )


def _starts(sizes: Sequence[int]) -> Array:
    """Return where parts of these sizes start that lie one behind the other."""
    return np.cumsum([0, *sizes[:-1]]).astype(np.int64)
