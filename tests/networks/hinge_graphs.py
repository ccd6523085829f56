"""Random graphs of hinges and every affine op, and what chains lack: values read twice or never."""

import random
from functools import cache

import torch

from encoders.network import INPUT, Network, Node
from encoders.ops import (
    Abs,
    Add,
    Affine,
    LeakyRelu,
    Op,
    Relu,
    Sub,
)
from tests.networks.random_networks import random_network
from verifier.certificates.split_program import split_refusal

F64 = torch.float64


@cache
def hinge_networks(count: int) -> tuple[Network, ...]:
    """Return random networks of every affine op and hinges: graphs, maps, values that are read twice."""
    found: list[Network] = []
    seed = 0
    while len(found) < count:
        network = random_network(seed)
        seed += 1
        if split_refusal(network) is None and any(not n.op.linear for n in network.nodes):
            found.append(network)
    return tuple(found)


def odd_network(seed: int) -> Network:
    """Return a graph of what chains lack: hinges of the input and of hinges, two on one value, unread nodes, x + x.

    The last node is of any kind.
    """
    choose = random.Random(seed)
    generator = torch.Generator().manual_seed(seed)
    width = choose.randint(1, 4)
    nodes: list[Node] = []
    names = [INPUT]

    def push(op: Op, *inputs: str) -> None:
        names.append(f"n{len(names)}")
        nodes.append(Node(names[-1], op, inputs))

    def read() -> str:
        return choose.choice(names[-4:])

    for _ in range(choose.randint(3, 11)):
        draw = choose.random()
        if draw < 0.5:
            push(choose.choice([Relu(), Abs(), LeakyRelu(choose.choice([0.0, 0.01, 0.3, 1.0]))]), read())
        elif draw < 0.8:
            weight = torch.randn(width, width, generator=generator, dtype=F64)
            push(Affine(weight, torch.randn(width, generator=generator, dtype=F64)), read())
        else:
            push(choose.choice([Add(), Sub()]), read(), read())
    return Network(tuple(nodes), (width,), F64)
