"""Refusals name the methods that take the network: those that do not refuse it themselves."""

import pytest
import torch

from encoders.ops import Affine, Relu, Sigmoid
from tests.networks.chains import chain, random_relu_network
from tests.networks.mwd_chains import random_mwd_network
from verifier.methods import METHODS
from verifier.methods.suitable import check_method, suitable_methods

NETWORKS = {
    "relu": random_relu_network(1),
    "mwd": random_mwd_network(1),
    "sigmoid": chain((2,), Affine(torch.eye(2)), Sigmoid(), Affine(torch.eye(2))),
    "wide": chain((4000,), Affine(torch.zeros(4000, 4000)), Relu(), Affine(torch.zeros(4000, 4000))),
}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("norm", ["inf", "2"])
def test_a_method_is_suitable_exactly_if_it_takes_the_norm_and_does_not_refuse_the_network(name, norm):
    network = NETWORKS[name]
    suitable = suitable_methods(network, norm)
    assert "interval" in suitable and "auto" in suitable
    for method in METHODS.values():
        refusal = method.refusal(network)
        assert (method.name in suitable) is (norm in method.norms and refusal is None)
        if refusal is None:
            check_method(method.name, network, norm)
            continue
        with pytest.raises(ValueError) as refused:
            check_method(method.name, network, norm)
        assert str(refused.value) == f"{refusal}. Methods for this network: {', '.join(suitable)}"
        assert not any(f" {other}," in refusal or refusal.endswith(f" {other}") for other in METHODS)
