"""A network in other units: the same function, up to powers of two of its inputs and outputs, which round nothing."""

from dataclasses import dataclass

import torch
from torch import Tensor

from encoders import Network, Node
from encoders.ops import Affine, Conv2d, Op
from tests.networks.batches import subject_of
from verifier.batch import Batch


@dataclass(frozen=True)
class Units:
    """Exponents of two: at most these of hidden layers, one each, and of hidden units; of input and output."""

    layers: int = 0
    units: int = 0
    input: int = 0
    output: int = 0


def twin(network: Network, units: Units, seed: int) -> Network:
    """Return a chain of affine and convolutional layers with homogeneous ops between them, in other units."""
    generator = torch.Generator().manual_seed(seed)
    layers = [node.name for node in network.nodes if isinstance(node.op, Affine | Conv2d)]
    nodes, before = [], torch.tensor([units.input])
    for node in network.nodes:
        op: Op = node.op
        if isinstance(op, Affine | Conv2d):
            outputs = len(op.weight)
            after = torch.randint(-units.units, units.units + 1, (outputs,), generator=generator)
            after = after + torch.randint(-units.layers, units.layers + 1, (1,), generator=generator)
            if node.name == layers[-1]:
                after = torch.full((outputs,), units.output)
            op, before = _scaled(op, before, after), after
        nodes.append(Node(node.name, op, node.inputs))
    return Network(tuple(nodes), network.input_shape, network.dtype)


def _scaled(op: Affine | Conv2d, before: Tensor, after: Tensor) -> Op:
    """Return the layer between units 2^before of what it reads (one for each unit or channel) and 2^after."""
    weight = op.weight
    # A flattened map has several values in the unit of its channel.
    inner = before.repeat_interleave(weight.shape[1] // len(before))
    places = (1,) * (weight.dim() - 2)
    powers = after.reshape(-1, 1, *places) - inner.reshape(1, -1, *places)
    bias = None if op.bias is None else torch.ldexp(op.bias, after)
    scaled = torch.ldexp(weight, powers)
    assert bool(scaled.isfinite().all()) and torch.equal(torch.ldexp(scaled, -powers), weight)
    if isinstance(op, Affine):
        return Affine(scaled, bias)
    return Conv2d(scaled, bias, op.stride, op.padding, op.dilation, op.groups)


def batch_in(batch: Batch, network: Network, units: Units) -> Batch:
    """Return the same question about the twin."""
    factor = 2.0**units.input
    domain = None if batch.domain is None else (batch.domain[0] * factor, batch.domain[1] * factor)
    return Batch(
        subject_of(network), batch.centres * factor, batch.classes, batch.seeds, domain, batch.reach * factor,
        batch.norm,
    )  # fmt: skip
