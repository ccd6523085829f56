"""Random properties of pairs of networks, against polygons cut in rationals: no verdict is ever contradicted.

The oracle sees a pair as one chain of layers side by side, which is written here and shares nothing with the pass that
joins networks, nor with differences.
"""

from collections import Counter
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from torch import Tensor

from encoders import Network, Node, write_network
from encoders.exact_order import evaluate_exactly
from encoders.joint import Copy, Joint
from encoders.ops import Affine, Relu
from encoders.property import Property
from tests.networks.chains import chain, random_relu_network
from tests.networks.random_properties import random_property
from tests.oracles.polygons import unsafe_points
from tests.seeds import few_or, seeds
from verifier import verify
from verifier.methods import METHODS

OUTPUTS = 2


def changed(network: Network, seed: int) -> Network:
    """Return the network with weights that differ a little, or much."""
    generator, share = torch.Generator().manual_seed(seed), (0.001, 0.05, 1.0)[seed % 3]
    nodes: list[Node] = []
    for node in network.nodes:
        op = node.op
        if isinstance(op, Affine):
            op = replace(op, weight=op.weight + share * torch.randn(op.weight.shape, generator=generator))
        nodes.append(replace(node, op=op))
    return replace(network, nodes=tuple(nodes))


def pair(seed: int) -> tuple[Joint, dict[str, Network]]:
    """Return two networks on one input of two coordinates, or two networks of one input at two inputs, shown."""
    inputs = 2 if seed % 2 else 1
    sizes = (inputs, 4, OUTPUTS) if seed % 4 < 2 else (inputs, 4, 3, OUTPUTS)
    first = random_relu_network(seed, sizes)
    places = (0, 1) if inputs == 2 else (0,)
    other = replace(Copy("f", (inputs,), places, OUTPUTS), network="g", places=places if inputs == 2 else (1,))
    joint = Joint(2, (Copy("f", (inputs,), places, OUTPUTS), other), () if inputs == 2 else (0, 1))
    return joint, {"f": first, "g": changed(first, seed)}


def side_by_side(joint: Joint, networks: dict[str, Network]) -> Network:
    """Return the chain of both networks' layers on the joint input, which passes the inputs on: they are positive."""
    layers = [
        [node.op for node in networks[copy.network].nodes if isinstance(node.op, Affine)] for copy in joint.copies
    ]
    ops: list[Affine | Relu] = []
    for depth, both in enumerate(zip(*layers, strict=True)):
        blocks: list[Tensor] = [op.weight for op in both]
        if depth == 0:
            blocks = [
                block @ torch.eye(joint.inputs)[list(copy.places)]
                for block, copy in zip(blocks, joint.copies, strict=True)
            ]
            weight = torch.cat([*blocks, torch.eye(joint.inputs)])
        elif depth < len(layers[0]) - 1:
            weight = torch.block_diag(*blocks, torch.eye(joint.inputs))
        else:
            weight = torch.block_diag(*blocks, torch.eye(joint.inputs)[list(joint.shown)])
        biases = [op.bias if op.bias is not None else torch.zeros(len(op.weight)) for op in both]
        bias = torch.cat([*biases, torch.zeros(len(weight) - sum(map(len, biases)))])
        ops += [Affine(weight, bias), Relu()]
    return chain((joint.inputs,), *ops[:-1])


def asked_of(seed: int, folder: Path) -> tuple[Property, Network, dict[str, Path]]:
    """Return a property of a pair, the pair as a chain, and its models."""
    joint, networks = pair(seed)
    whole, places = side_by_side(joint, networks), {}
    for name, network in networks.items():
        places[name] = folder / f"{seed}-{name}.safetensors"
        write_network(network, places[name])
    return replace(random_property(whole, seed), joint=joint), whole, places


def decided(seed: int, folder: Path, method: str) -> str:
    """Return the verdict, once it is seen not to be wrong."""
    asked, whole, places = asked_of(seed, folder)
    (found,) = verify(places["f"], asked, networks={"g": places["g"]}, method=method, time_limit=60).properties
    points = unsafe_points(whole, asked.lower.tolist(), asked.upper.tolist(), asked.unsafe)
    assert found.verdict != "unsat" or not points, f"proved, but unsafe at {points[:3]}"
    if found.verdict == "sat":
        assert points and found.witness is not None
        point = found.witness.point
        for value, lower, upper in zip(point.tolist(), asked.lower.tolist(), asked.upper.tolist(), strict=True):
            assert Fraction(lower) <= Fraction(value) <= Fraction(upper)
        outputs = torch.from_numpy(found.witness.outputs)
        for values in (outputs, evaluate_exactly(whole, point[None]).values()):
            assert any(halfspaces.contains(values) for halfspaces in asked.unsafe)
    return found.verdict


@pytest.mark.parametrize("count", few_or(12, 300))
def test_no_verdict_is_contradicted_and_most_are_given(count: int, tmp_path: Path) -> None:
    words = Counter(decided(seed, tmp_path, "auto") for seed in range(count))
    assert words["sat"] >= count // 6 and words["unsat"] >= count // 6
    assert words["unknown"] + words["timeout"] <= count // 10 + 1, words


@pytest.mark.parametrize("method", ["crown", "alpha-crown", "input-split", "lp", "exact", "milp"])
@pytest.mark.parametrize("seed", seeds(1, 40))
def test_no_verdict_of_any_method_is_contradicted(method: str, seed: int, tmp_path: Path) -> None:
    assert METHODS[method] and decided(seed, tmp_path, method)
