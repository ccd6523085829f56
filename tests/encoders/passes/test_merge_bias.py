"""Merging additions into linear ops leaves every value as it is."""

from dataclasses import replace

import pytest
import torch

from encoders import Network, Node
from encoders.network import INPUT
from encoders.ops import Add, AddConstant, Affine, Conv2d, Op, Relu
from encoders.passes import merge_bias
from tests.networks.chains import chain

GENERATOR = torch.Generator().manual_seed(0)


def normal(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=GENERATOR, dtype=torch.float64)


PAIRS: dict[str, tuple[tuple[int, ...], Op, torch.Tensor]] = {
    "vector": ((4,), Affine(normal(3, 4)), normal(3)),
    "scalar": ((4,), Affine(normal(3, 4)), normal()),
    "one entry": ((4,), Affine(normal(3, 4)), normal(1)),
    "rows": ((2, 4), Affine(normal(3, 4)), normal(1, 3)),
    "channels": ((2, 5, 5), Conv2d(normal(3, 2, 3, 3)), normal(3, 1, 1)),
    "equal map": ((2, 5, 5), Conv2d(normal(3, 2, 3, 3)), normal(3, 1, 1).expand(3, 3, 3)),
}


@pytest.mark.parametrize("name", PAIRS)
def test_a_pair_becomes_one_op_of_the_same_value(name: str) -> None:
    shape, linear, constant = PAIRS[name]
    network = chain(shape, linear, AddConstant(constant), Relu(), dtype=torch.float64)
    merged = merge_bias(network)
    x = normal(7, *shape)
    assert [node.op.kind for node in merged.nodes] == [linear.kind, "relu"]
    assert merged.nodes[0].name == network.nodes[1].name
    # One rounding in another place: a few units in the last place of the largest sum.
    assert torch.allclose(merged.evaluate(x), network.evaluate(x), rtol=0, atol=1e-13)


def kinds(network: Network) -> list[str]:
    return [node.op.kind for node in merge_bias(network).nodes]


def test_a_constant_that_varies_within_a_channel_stays() -> None:
    shape, linear, _ = PAIRS["channels"]
    assert kinds(chain(shape, linear, AddConstant(normal(3, 3, 3)))) == ["conv2d", "add-constant"]
    assert kinds(chain((2, 4), Affine(normal(3, 4)), AddConstant(normal(2, 1)))) == ["affine", "add-constant"]


def test_an_op_with_a_bias_stays_because_the_sum_would_be_rounded() -> None:
    biased = replace(PAIRS["vector"][1], bias=normal(3))
    assert kinds(chain((4,), biased, AddConstant(normal(3)))) == ["affine", "add-constant"]


def test_a_bias_of_another_dtype_stays() -> None:
    assert kinds(chain((4,), Affine(normal(3, 4)), AddConstant(normal(3).float()))) == ["affine", "add-constant"]


def test_a_product_that_others_read_stays() -> None:
    nodes = (
        Node("a", Affine(normal(4, 4)), (INPUT,)),
        Node("b", AddConstant(normal(4)), ("a",)),
        Node("c", Add(), ("a", "b")),
    )
    assert kinds(Network(nodes, (4,), torch.float64)) == ["affine", "add-constant", "add"]
    twice = (Node("a", Affine(normal(4, 4)), (INPUT,)), Node("b", Add(), ("a", "a")))
    assert kinds(Network(twice, (4,), torch.float64)) == ["affine", "add"]


def test_an_addition_without_a_product_before_it_stays() -> None:
    network = chain((4,), AddConstant(normal(4)), Affine(normal(4, 4)), dtype=torch.float64)
    assert merge_bias(network) is network
