"""Copies of networks as one network: its input is theirs side by side, without what they share (`encoders.joint`).

Equal in real arithmetic: inputs are gathered, never computed, and every node of a copy is the network's own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch

from encoders.joint import Copy, Joint
from encoders.network import INPUT, Network, Node
from encoders.ops import Concat, Gather, Reshape


def join_networks(joint: Joint, networks: Mapping[str, Network]) -> Network:
    """Return the network of a joint input `(inputs,)` and the joint outputs `(outputs,)`.

    Its dtype is the one whose numbers all networks take as they are. Raises ValueError where a copy does not fit its
    network, there is no such dtype, or a constant is none of its numbers.
    """
    used = [networks[name] for name in joint.networks]
    dtype = common_dtype([network.dtype for network in used])
    nodes: list[Node] = []
    parts: list[str] = []
    for number, copy in enumerate(joint.copies):
        network = networks[copy.network]
        _check(copy, network, dtype)
        nodes.append(Node(f"{number}.input", _gathered(copy, network), (INPUT,)))
        names = {INPUT: f"{number}.input"} | {node.name: f"{number}/{node.name}" for node in network.nodes}
        nodes += [
            replace(node, name=names[node.name], inputs=tuple(names[name] for name in node.inputs))
            for node in network.nodes
        ]
        nodes.append(Node(f"{number}.output", Reshape((copy.outputs,)), (nodes[-1].name,)))
        parts.append(nodes[-1].name)
    if joint.shown:
        nodes.append(Node("shown", Gather(torch.tensor(joint.shown)), (INPUT,)))
        parts.append("shown")
    for number, part in enumerate(parts[1:], start=1):
        first = parts[0] if number == 1 else nodes[-1].name
        nodes.append(Node(f"{number}.joined", Concat(0), (first, part)))
    return Network(tuple(nodes), (joint.inputs,), dtype, " and ".join(network.source for network in used))


def common_dtype(dtypes: Sequence[torch.dtype]) -> torch.dtype:
    """Return the dtype whose numbers are numbers of every other one; ValueError where none of them is that."""
    for dtype in dtypes:
        if all(torch.promote_types(dtype, other) == other for other in dtypes):
            return dtype
    kinds = " and ".join(str(dtype).removeprefix("torch.") for dtype in dict.fromkeys(dtypes))
    raise ValueError(f"networks of {kinds} have no dtype in common; export them in one")


def _check(copy: Copy, network: Network, dtype: torch.dtype) -> None:
    """Raise ValueError where a copy is not of a network."""
    counts = math.prod(network.input_shape), math.prod(network.output_shape)
    if counts != (len(copy.places), copy.outputs):
        raise ValueError(
            f"the property is about a network {copy.network!r} of {len(copy.places)} inputs and {copy.outputs} "
            f"outputs, {network.source} has {counts[0]} and {counts[1]}"
        )
    for place, value in zip(copy.places, copy.constants, strict=False):
        if place == -1 and float(torch.tensor(value, dtype=torch.float64).to(dtype)) != value:
            kind = str(dtype).removeprefix("torch.")
            raise ValueError(f"a fixed input is {value!r}, which is no {kind}; round it as {network.source} takes it")


def _gathered(copy: Copy, network: Network) -> Gather:
    """Return the op that takes the joint input to that of a copy."""
    index = torch.tensor(copy.places).reshape(network.input_shape)
    if not copy.constants:
        return Gather(index)
    return Gather(index, torch.tensor(copy.constants, dtype=torch.float64).reshape(network.input_shape))
