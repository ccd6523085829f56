"""Chains of MWD layers with random weights, of either link and of units of one type or both."""

from itertools import pairwise

import torch

from encoders import Network
from encoders.ops import Mwd, Op
from tests.networks.chains import chain

# <link>-<types of the last layer>
KINDS = ["gaussian-plain", "gaussian-negated", "gaussian-mixed", "linear-plain", "linear-negated", "linear-mixed"]


def random_mwd_network(seed: int, sizes: tuple[int, ...] = (2, 6, 5, 3)) -> Network:
    """Return an MWD network with alternating unit types, the last layer mixed."""
    generator = torch.Generator().manual_seed(seed)
    ops: list[Op] = []
    for layer, (inputs, outputs) in enumerate(pairwise(sizes)):
        last = layer == len(sizes) - 2
        negated = torch.rand(outputs, generator=generator) < 0.5 if last else torch.full((outputs,), layer % 2 == 0)
        weight = 3 * torch.rand(outputs, inputs, generator=generator)
        ops.append(Mwd(weight, torch.rand(outputs, inputs, generator=generator), negated))
    return chain((sizes[0],), *ops)


def uniform_network(seed: int, sizes: tuple[int, ...], last_negated: bool):
    """Return a random MWD network whose last layer has one type of unit."""
    network = random_mwd_network(seed, sizes)
    *front, last = [node.op for node in network.nodes]
    final = Mwd(last.weight, last.attractor, torch.full_like(last.negated, last_negated))
    return chain((sizes[0],), *front, final)


def network_of(kind: str, seed: int, sizes: tuple[int, ...]):
    """Return a random network: `<link>-<types of the last layer>`, with classes that are about balanced.

    Linear ones have mixed types and biases in the first layer and Gaussian links in between.
    """
    link, types = kind.split("-")
    if link == "gaussian" and types != "mixed":
        return uniform_network(seed, sizes, types == "negated")
    network = random_mwd_network(seed, sizes)
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(500, sizes[0], generator=generator)
    first, *middle, last = [node.op for node in network.nodes]
    if link == "linear":
        mask = torch.arange(len(first.negated)) % 2 == 0
        first = Mwd(
            first.weight / 2, 2 * first.attractor - 0.5, mask, torch.randn(len(mask), generator=generator), link
        )
    negated = (
        torch.arange(len(last.negated)) % 2 == 0
        if types == "mixed"
        else torch.full_like(last.negated, types == "negated")
    )
    before = chain((sizes[0],), first, *middle).evaluate(x)
    if link == "linear":
        last = Mwd(last.weight, last.attractor, negated, None, link)
        last = Mwd(last.weight, last.attractor, negated, -last.evaluate(before).median(dim=0).values, link)
    else:
        # exp(-z^2) = 1 - exp(-z^2) at z = 0.83.
        middle_distance = Mwd(last.weight, last.attractor, negated).squared_distance(before).sqrt().median(dim=0).values
        last = Mwd(last.weight * (0.83 / middle_distance)[:, None], last.attractor, negated)
    return chain((sizes[0],), first, *middle, last)
