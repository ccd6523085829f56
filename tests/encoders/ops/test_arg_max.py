"""Arg-max beyond the laws of the table: how it is differentiated."""

import torch

from encoders import write_network
from encoders.ops import Affine, ArgMax, Reshape
from tests.networks.chains import chain
from verifier import certify


def test_the_gradient_is_zero_also_at_ties_and_infinities():
    x = torch.tensor([[[1.0, 1.0], [torch.inf, 0.0], [-torch.inf, -torch.inf], [0.0, -1.0]]], requires_grad=True)
    for keep_axis in (False, True):
        places = ArgMax(1, keep_axis).evaluate(x)
        assert places.flatten().tolist() == [0.0, 0.0, 0.0, 0.0]
        (gradient,) = torch.autograd.grad(places.sum(), x)
        assert torch.equal(gradient, torch.zeros_like(x))


def test_attacks_pass_where_every_path_leads_through_one(tmp_path):
    """Found by the fuzzer: without a gradient to compute torch raises."""
    network = chain((2, 2), ArgMax(0, keep_axis=True), Reshape((2,)), Affine(torch.tensor([[1.0, 1.0], [0.0, 0.5]])))
    x = torch.tensor([[[0.2, 0.2], [0.8, 0.8]]])
    write_network(network, tmp_path / "model.safetensors")
    result = certify(tmp_path / "model.safetensors", (x, torch.tensor([0])), [0.1, 1.0], clip=(0.0, 1.0))
    assert [(at.certified, at.falsified) for at in result.results] == [(1, 0), (0, 1)]
