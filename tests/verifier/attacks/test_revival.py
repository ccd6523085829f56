"""Where gradients are zero attacks take other directions, and the ensemble is never weaker than a step or corners."""

import numpy as np
import pytest
import torch

from encoders import Network, Node, read_network
from encoders.ops import AddConstant, Affine, Relu, Sigmoid, Tanh
from tests.conftest import REPOSITORY
from tests.networks.chains import chain, random_relu_network
from tests.networks.mwd_chains import random_mwd_network
from tests.networks.random_networks import RandomNetwork
from tests.networks.searches import digits_search, random_search, search_of
from verifier.attacks import ATTACKS
from verifier.attacks.ensemble import Ensemble
from verifier.attacks.revival import LEAK, revived

CASES = REPOSITORY / "tests" / "cases" / "ties"
# What makes the ensemble strong is cut down, so that only what is there by construction is left.
WEAK = Ensemble(steps=1, starts=1, queries=1, blind_queries=1)


def flat_case(own: int, extra: float = 1e-6):
    """Return (network, inputs, classes): the outputs at the inputs are 0 but for the own class, whose is `extra`."""
    base = read_network(CASES / "axes.onnx")
    bias = torch.zeros(3)
    bias[own] = extra
    nodes = (*base.nodes, Node("ahead", AddConstant(bias), (base.output.name,)))
    network = Network(nodes, base.input_shape, base.dtype)
    x = torch.from_numpy(np.load(CASES / "axes.npz")["x"])
    flat = (base.evaluate(x) == 0).all(dim=1)
    return network, x[flat], torch.full((int(flat.sum()),), own)


@pytest.mark.parametrize("extra", [1e-6, 1e-2])
def test_counterexamples_outside_a_flat_place_are_found(extra):
    network, x, classes = flat_case(0, extra)
    found = {name: int(ATTACKS[name].run(search_of(network, x, 0.2, classes)).unsafe.sum()) for name in
             ("fgsm", "fgsm-growing", "ifgsm", "pgd", "apgd", "auto", "fab", "deepfool", "cw")}  # fmt: skip
    assert found["auto"] == len(x)
    assert all(count >= len(x) // 2 for count in found.values()), found


def test_a_dead_layer_hides_nothing_from_one_step():
    # y_1 = 10 relu(x_0 + x_1 - 1.5): dead at (.5, .5), 5 at (1, 1); the class in front is ahead by 1.
    network = chain((2,), Affine(torch.tensor([[1.0, 1.0]]), torch.tensor([-1.5])), Relu(),
                    Affine(torch.tensor([[0.0], [10.0]]), torch.tensor([1.0, 0.0])))  # fmt: skip
    search = search_of(network, torch.full((1, 2), 0.5), 0.5, torch.tensor([0]))
    assert bool(ATTACKS["fgsm"].run(search).unsafe[0])


@pytest.mark.parametrize("make", [Relu, Sigmoid, Tanh])
def test_revived_scores_are_the_scores_and_their_gradients_are_more(make):
    network = chain((2,), Affine(torch.tensor([[-300.0, -200.0]]), torch.tensor([-100.0])), make(),
                    Affine(torch.tensor([[-1.0], [1.0]])))  # fmt: skip
    x = torch.full((1, 2), 0.5)
    scores, gradient = revived(network).differentiate(x, lambda z: torch.tensor([[1.0, -1.0]]))
    assert torch.equal(scores, network.scores(x))
    # y_0 - y_1 = -2 unit(-300 x_0 - 200 x_1 - 100), the unit with slope LEAK.
    assert torch.allclose(gradient, torch.tensor([[600.0, 400.0]]) * LEAK)


def searches():
    """Yield (name, search) of networks of every kind that tests and the package have, about half of them broken."""
    yield "digits-relu", digits_search("digits-relu", "inf", 12, 0.06)
    yield "digits-conv", digits_search("digits-conv", "inf", 12, 0.06)
    yield "digits-mwd", digits_search("digits-mwd", "inf", 12, 0.15)
    for norm, epsilon in (("inf", 0.1), ("2", 0.2), ("1", 0.3)):
        yield f"relu {norm}", random_search(random_relu_network(3, (9, 12, 5)), 12, epsilon, norm=norm)
        yield f"mwd {norm}", random_search(random_mwd_network(3, (9, 12, 5)), 12, epsilon, norm=norm)
    for own in range(3):
        network, x, classes = flat_case(own)
        yield f"flat {own}", search_of(network, x, 0.2, classes)
    for seed in range(6):
        network = RandomNetwork(seed).build()
        if len(network.output_shape) == 1 and network.output_shape[0] > 1:
            yield f"random {seed}", random_search(network, 6, 0.3)


def test_the_ensemble_is_never_weaker_than_one_step_or_a_hundred_corners():
    broken = 0
    for name, search in searches():
        strong = WEAK.run(search).unsafe
        for other in ("fgsm", "corners"):
            fresh = search_of(search.network, search.region.centre, float(search.region.radius[0]), search.classes,
                              norm=search.region.norm)  # fmt: skip
            weak = ATTACKS[other].run(fresh).unsafe
            assert not bool((weak & ~strong).any()), (name, other)
            broken += int(weak.sum())
    assert broken > 50
