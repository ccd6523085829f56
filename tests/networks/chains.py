"""Chains of ops: any, and fully connected ones of hinges with random weights."""

from itertools import pairwise

import torch

from encoders import Network, Node
from encoders.network import INPUT
from encoders.ops import Abs, Affine, LeakyRelu, Op, Relu

HINGES: tuple[Op, ...] = (Relu(), LeakyRelu(0.1), Abs())


def chain(shape: tuple[int, ...], *ops: Op, dtype: torch.dtype = torch.float32) -> Network:
    """Return the network that applies the ops in turn."""
    names = [INPUT, *(f"{i}-{op.kind}" for i, op in enumerate(ops))]
    return Network(tuple(Node(names[i + 1], op, (names[i],)) for i, op in enumerate(ops)), shape, dtype)


def curve_network(curve: Op, seed: int, sizes: tuple[int, ...] = (2, 8, 6, 3)) -> Network:
    """Return a fully connected network of a curve with steep weights whose classes are balanced on [0, 1]^n."""
    generator = torch.Generator().manual_seed(seed)
    ops: list[Op] = []
    for inputs, outputs in pairwise(sizes):
        weight = 3.0 * torch.randn(outputs, inputs, generator=generator)
        ops += [Affine(weight, -weight.sum(dim=1) / 2), curve]
    outputs = chain((sizes[0],), *ops[:-1]).evaluate(torch.rand(500, sizes[0], generator=generator))
    return chain((sizes[0],), *ops[:-2], Affine(weight, -weight.sum(dim=1) / 2 - outputs.mean(dim=0)))


def random_relu_network(seed: int, sizes: tuple[int, ...] = (2, 6, 5, 3)) -> Network:
    """Return a fully connected ReLU network with normal weights whose classes are balanced on [0, 1]^n."""
    generator = torch.Generator().manual_seed(seed)
    ops: list[Op] = []
    for inputs, outputs in pairwise(sizes):
        weight = torch.randn(outputs, inputs, generator=generator) / inputs**0.5
        ops += [Affine(weight, 0.3 * torch.randn(outputs, generator=generator)), Relu()]
    last = ops[-2]
    assert isinstance(last, Affine) and last.bias is not None
    outputs = chain((sizes[0],), *ops[:-1]).evaluate(torch.rand(500, sizes[0], generator=generator))
    return chain((sizes[0],), *ops[:-2], Affine(last.weight, last.bias - outputs.mean(dim=0)))


def hinge_network(seed: int, sizes: tuple[int, ...] = (2, 5, 4, 3)) -> Network:
    """Return a network of relus, or of another hinge, whose classes meet inside the unit square."""
    generator = torch.Generator().manual_seed(seed)
    ops: list[Op] = []
    for inputs, outputs in pairwise(sizes):
        weight = 1.5 * torch.randn(outputs, inputs, generator=generator)
        bias = 0.5 * torch.randn(outputs, generator=generator) - weight.sum(dim=1) / 2
        ops += [Affine(weight, bias), HINGES[seed % 4 % 3]]
    return chain((sizes[0],), *ops[:-1])
