"""Chains of layers against the networks they are of."""

import numpy as np
import pytest
import torch

from encoders.box import Box
from encoders.network import INPUT, Network, Node
from encoders.ops import AddConstant, Affine, Concat, Relu, Slice, Tanh
from tests.networks.chains import chain, random_relu_network
from tests.seeds import seeds
from verifier.bounds.inputs.chain import Chain, chain_of
from verifier.certificates.conjunctions import Conjunctions

UNIT = Box(torch.zeros(1, 2, dtype=torch.float64), torch.ones(1, 2, dtype=torch.float64))


def rows_at(found: Chain, points: np.ndarray) -> np.ndarray:
    """Return the rows `(points, rows)` of a chain, and see that its units are where they are said to be."""
    layers, values = found.layers, points
    for k in range(1, len(layers.sizes)):
        n, m = layers.sizes[k], layers.sizes[k - 1]
        matrix = layers.matrix[layers.weights[k] : layers.weights[k] + n * m].reshape(n, m)
        units = slice(layers.units[k], layers.units[k] + n)
        values = values @ matrix.T + layers.bias[units]
        if k + 1 < len(layers.sizes):
            assert (values >= found.least[units] - 1e-9).all() and (values <= found.greatest[units] + 1e-9).all()
            values = np.where(layers.linear[units] == 1, values, np.maximum(values, 0.0))
    return values


def with_copies(seed: int) -> Network:
    """Return y = A relu(B relu(C x + c) + b) beside x and the first hidden layer: values that later layers read."""
    generator = torch.Generator().manual_seed(seed)

    def affine(outputs: int, inputs: int) -> Affine:
        weight = torch.randn(outputs, inputs, generator=generator)
        return Affine(weight, torch.randn(outputs, generator=generator))

    nodes = (
        Node("moved", AddConstant(torch.tensor([0.5, -0.25])), (INPUT,)),
        Node("c", affine(4, 2), ("moved",)),
        Node("first", Relu(), ("c",)),
        Node("b", affine(3, 4), ("first",)),
        Node("second", Relu(), ("b",)),
        Node("a", affine(2, 3), ("second",)),
        Node("part", Slice(0, 0, 1), (INPUT,)),
        Node("with-input", Concat(0), ("a", "part")),
        Node("all", Concat(0), ("with-input", "first")),
        Node("last", affine(2, 7), ("all",)),
    )
    return Network(nodes, (2,))


@pytest.mark.parametrize("seed", seeds(6, 60))
def test_a_chain_computes_what_its_network_does(seed: int) -> None:
    for network in (random_relu_network(seed, (2, 8, 6, 3)), with_copies(seed)):
        network = network.cast(torch.float64, torch.device("cpu"))
        asked = Conjunctions.of_class(network, 0)
        found = chain_of(asked, UNIT)
        assert found is not None
        points = torch.rand(64, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        expected = network.evaluate(points) @ asked.coefficients.T - asked.offsets
        np.testing.assert_allclose(rows_at(found, points.numpy()), expected.numpy(), rtol=1e-9, atol=1e-9)


def test_other_ops_and_numbers_that_may_overflow_have_no_chain() -> None:
    smooth = chain((2,), Affine(torch.ones(2, 2)), Tanh(), Affine(torch.ones(2, 2)))
    huge = Affine(torch.full((2, 2), 1e40, dtype=torch.float64))
    shared = Network(
        (
            Node("a", Affine(torch.ones(2, 2)), (INPUT,)),
            Node("r", Relu(), ("a",)),
            Node("both", Concat(0), ("a", "r")),
        ),
        (2,),
    )
    for network in (smooth, chain((2,), huge, Relu(), huge), shared):
        assert chain_of(Conjunctions.of_class(network.cast(torch.float64, torch.device("cpu")), 0), UNIT) is None
