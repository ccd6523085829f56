"""A network as matrices between its hinges: weights and biases as stored, however small beside each other."""

import pytest
import torch

from encoders.ops import AddConstant, Affine, BatchNorm, Relu
from tests.networks.chains import chain
from verifier.bounds.split.stages import staged

F64 = torch.float64


@pytest.mark.parametrize("exponent", [-300, -100, -40, 0, 40, 300])
def test_weights_are_the_stored_ones_beside_any_constant(exponent):
    """Inputs in large units make small weights: a bias of size 1 must not round them away."""
    generator = torch.Generator().manual_seed(1)
    first, last = (torch.randn(3, 3, generator=generator, dtype=F64) for _ in range(2))
    bias = torch.randn(3, generator=generator, dtype=F64)
    small = torch.ldexp(first, torch.tensor(exponent))
    found = staged(chain((3,), Affine(small, bias), AddConstant(bias), Relu(), Affine(last, bias), dtype=F64))
    assert torch.equal(found.hinges[0].weights[0], small) and torch.equal(found.hinges[0].bias, bias + bias)
    assert torch.equal(found.output.weights[1], last) and torch.equal(found.output.bias, bias)


def test_a_normalised_map_keeps_its_small_weights():
    # (x - 1) / sqrt(4) * 2^-60 + 5
    op = BatchNorm(*(torch.tensor([v], dtype=F64) for v in (1.0, 3.0, 2.0**-60, 5.0)), 1.0)
    found = staged(chain((1, 1, 1), op, Relu(), dtype=F64)).hinges[0]
    assert found.weights[0].tolist() == [[2.0**-61]] and found.bias.tolist() == [5.0]
