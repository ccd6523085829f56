"""The gradient that attacks follow: that of weighted scores to the bit."""

import pytest
import torch

from tests.networks.chains import hinge_network, random_relu_network
from tests.networks.mwd_chains import random_mwd_network
from verifier.attacks.source import Source, pseudogradient


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("seed", range(6))
def test_the_gradient_is_that_of_weights_passed_apart_to_the_bit(seed, dtype):
    make = (random_relu_network, hinge_network, random_mwd_network)[seed % 3]
    network = make(seed, (3, 5, 4)).cast(dtype, torch.device("cpu"))
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(7, 3, generator=generator).to(dtype)
    powers = torch.randint(-30, 30, (7, 1), generator=generator).to(dtype)
    weights = torch.randn(7, 4, generator=generator).to(dtype) * 10.0**powers
    for source in (Source(network), pseudogradient(network)):
        scores, gradient = source.differentiate(x, lambda values: weights)
        point = x.clone().requires_grad_(True)
        (expected,) = torch.autograd.grad(source.scores(point), point, weights)
        assert torch.equal(gradient, expected) and torch.equal(scores, source.scores(x))
