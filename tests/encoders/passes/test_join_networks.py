"""Copies of networks as one network: its values are theirs, exactly."""

import math
from dataclasses import replace

import pytest
import torch

from encoders import BallRegion, Box, Network, Node
from encoders.exact_order import evaluate_exactly
from encoders.joint import Copy, Joint
from encoders.network import INPUT
from encoders.ops import Add, AddConstant, Affine, Conv2d, LeakyRelu, MaxPool2d, Relu, Reshape
from encoders.passes.join_networks import common_dtype, join_networks, shares_structure
from tests.networks.chains import chain, random_relu_network
from verifier.bounds.linear.bounds import linear_bounds

F = random_relu_network(3)
G = chain((2, 1), Reshape((2,)), Affine(torch.tensor([[0.5, -2.0]]), torch.tensor([0.25])), Relu())
JOINT = Joint(
    4,
    (Copy("f", (2,), (0, 2), 3), Copy("g", (2, 1), (3, 0), 1), Copy("f", (2,), (-1, 2), 3, (0.375, 0.0))),
    (2, 0),
)


def test_values_are_those_of_the_copies_in_real_arithmetic() -> None:
    joined = join_networks(JOINT, {"f": F, "g": G})
    assert joined.input_shape == (4,) and joined.output_shape == (3 + 1 + 3 + 2,)
    points = torch.randn(20, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    fixed = points.new_full((20,), 0.375)
    inputs = [points[:, [0, 2]], points[:, [3, 0]].reshape(20, 2, 1), torch.stack([fixed, points[:, 2]], dim=1)]
    parts = [
        evaluate_exactly(network, x).values() for network, x in zip((F, G, F), inputs, strict=True)
    ]  # fmt: skip
    found = evaluate_exactly(joined, points).values()
    for row in range(20):
        wanted = [part[row * size + k] for part, size in zip(parts, (3, 1, 3), strict=True) for k in range(size)]
        shown = points[row, [2, 0]].tolist()
        assert found[row * 9 : row * 9 + 9] == [*wanted, *shown]


def test_a_single_copy_of_all_inputs_is_the_network() -> None:
    points = torch.rand(5, 2, generator=torch.Generator().manual_seed(1))
    joined = join_networks(Joint(2, (Copy("f", (2,), (0, 1), 3),)), {"f": F})
    assert torch.equal(joined.evaluate(points), F.evaluate(points))


def rounded(network: Network) -> Network:
    """Return the network with other weights, some of whose differences no single float holds."""
    nodes = []
    for node in network.nodes:
        weights = {name: value for name, value in node.op.parameters().items() if value.is_floating_point()}
        other = replace(node.op, **{name: value * 0.9 for name, value in weights.items()}) if weights else node.op
        nodes.append(replace(node, op=other))
    return replace(network, nodes=tuple(nodes))


def residual(seed: int) -> Network:
    """Return a network of windows, a residual connection, a pool and ops that no change is known of."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    nodes = (
        Node("shifted", AddConstant(normal(2, 3, 3)), (INPUT,)),
        Node("conv", Conv2d(normal(2, 2, 3, 3), normal(2), padding=(1, 1, 1, 1)), ("shifted",)),
        Node("relu", Relu(), ("conv",)),
        Node("sum", Add(), ("relu", "shifted")),
        Node("leaky", LeakyRelu(0.25), ("sum",)),
        Node("pool", MaxPool2d((2, 2), (1, 1)), ("leaky",)),
        Node("flat", Reshape((8,)), ("pool",)),
        Node("last", Affine(normal(2, 8)), ("flat",)),
    )
    return Network(nodes, (2, 3, 3))


@pytest.mark.parametrize("network", [F, residual(0), chain((2,), Affine(torch.eye(2) * 1e30), Relu())])
def test_differences_have_the_same_values_in_real_arithmetic(network: Network) -> None:
    shape, count, outputs = network.input_shape, math.prod(network.input_shape), math.prod(network.output_shape)
    places = tuple(range(count))
    plain = Copy("f", shape, places, outputs)
    copies = (
        plain,
        replace(plain, network="g"),
        plain,
        replace(plain, network="g", places=(count, *places[1:])),
        replace(plain, places=(-1, *places[1:]), constants=(0.5,) * count),
    )
    joint, networks = Joint(count + 1, copies, (0, count)), {"f": network, "g": rounded(network)}
    points = torch.randn(4, count + 1, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    forms = [join_networks(joint, networks, as_differences=differences) for differences in (False, True)]
    first, second = (evaluate_exactly(form, points) for form in forms)
    assert first.values() == second.values() and forms[0].digest != forms[1].digest
    assert shares_structure(joint, networks)


@pytest.mark.parametrize("network", [F, residual(0)])
def test_the_same_weights_in_two_dtypes_do_not_differ(network: Network) -> None:
    shape, count, outputs = network.input_shape, math.prod(network.input_shape), math.prod(network.output_shape)
    joint = Joint(count, tuple(Copy(name, shape, tuple(range(count)), outputs) for name in "fg"))
    wide = Network(network.cast(torch.float64).nodes, shape, torch.float64)
    joined = join_networks(joint, {"f": network, "g": wide}, as_differences=True)
    points = torch.randn(2, count, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    found = evaluate_exactly(joined, points).values()
    assert found == evaluate_exactly(join_networks(joint, {"f": network, "g": wide}), points).values()


def test_copies_of_other_structure_or_at_other_inputs_gain_nothing_by_differences() -> None:
    assert not shares_structure(JOINT, {"f": F, "g": G})
    moved = Joint(3, (Copy("f", (2,), (0, 1), 3), Copy("f", (2,), (2, 1), 3)))
    assert not shares_structure(moved, {"f": F})
    other = random_relu_network(3, (2, 6, 4, 3))
    assert not shares_structure(Joint(2, tuple(Copy(k, (2,), (0, 1), 3) for k in "fh")), {"f": F, "h": other})


def test_bounds_of_differences_are_tighter_than_differences_of_bounds() -> None:
    joint = Joint(2, tuple(Copy(name, (2,), (0, 1), 3) for name in "fg"))
    networks = {"f": F, "g": rounded(F)}
    region = BallRegion.of_box(Box(torch.zeros(1, 2, dtype=torch.float64), torch.ones(1, 2, dtype=torch.float64)))
    rows = torch.cat([torch.cat([-sign * torch.eye(3), sign * torch.eye(3)], dim=1) for sign in (1, -1)])[None].double()
    points = torch.rand(500, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    least = (join_networks(joint, networks).evaluate(points) @ rows[0].T).amin(dim=0)
    bounds = [
        linear_bounds(join_networks(joint, networks, as_differences=differences), region).minimise(rows).bound[0]
        for differences in (False, True)
    ]
    assert bool((bounds[0] <= bounds[1]).all()) and bool((bounds[1] <= least).all())
    assert float((bounds[1] - least).sum()) < float((bounds[0] - least).sum()) / 3.0


@pytest.mark.parametrize(
    ("copy", "message"),
    [
        (Copy("f", (3,), (0, 1, 2), 3), "of 3 inputs and 3 outputs, network has 2 and 3"),
        (Copy("f", (2,), (0, 1), 2), "of 2 inputs and 2 outputs"),
        (Copy("f", (2,), (0, -1), 3, (0.0, 0.1)), "0.1, which is no float32"),
    ],
)
def test_a_copy_that_does_not_fit_is_refused(copy: Copy, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        join_networks(Joint(4, (copy,)), {"f": F})


def test_the_dtype_is_one_that_every_network_takes() -> None:
    wide = replace(F, dtype=torch.float64)
    assert join_networks(Joint(2, (Copy("f", (2,), (0, 1), 3), Copy("w", (2,), (0, 1), 3))), {"f": F, "w": wide}).dtype
    assert common_dtype([torch.float64, torch.float16, torch.float32]) == torch.float16
    with pytest.raises(ValueError, match="no dtype in common"):
        common_dtype([torch.float16, torch.bfloat16])
