"""L-BFGS: the closed form on linear networks in three norms, its margin, its targets."""

import numpy as np
import pytest
import torch
from scipy.optimize import check_grad

from encoders.ops import Affine
from tests.networks.chains import chain, random_relu_network
from tests.networks.searches import best_length, digits_search, length, random_search, search_of
from tests.seeds import few_or
from verifier.attacks.deepfool import DeepFool
from verifier.attacks.lbfgs import Lbfgs, split, squared

DUAL = {"inf": 1.0, "2": 2.0, "1": float("inf")}


@pytest.mark.parametrize("norm", DUAL)
def test_linear_networks_are_solved(norm):
    generator = torch.Generator().manual_seed(3)
    weight, bias = torch.randn(2, 6, generator=generator), 0.1 * torch.randn(2, generator=generator)
    network = chain((6,), Affine(weight, bias))
    centres = torch.full((4, 6), 0.5) + 0.05 * torch.randn(4, 6, generator=generator)
    search = search_of(network, centres, 50.0, network.scores(centres).argmax(dim=1), norm=norm, domain=(-3.0, 3.0))
    found = Lbfgs().run(search)
    w, b = (weight[0] - weight[1]).double(), float(bias[0] - bias[1])
    expected = (search.region.centre @ w + b).abs() / torch.linalg.vector_norm(w, DUAL[norm])
    assert bool(found.unsafe.all())
    assert torch.allclose(search.region.distance(found.points), expected, rtol=0.01, atol=1e-4)


@pytest.mark.parametrize("count", few_or(2, 4))
@pytest.mark.parametrize("norm", DUAL)
def test_it_is_nearer_than_deepfool_on_digits_and_in_the_domain(norm, count):
    search = digits_search("digits-relu", norm, count)
    found, deepfool = Lbfgs(steps=20).run(search), DeepFool().run(search)
    assert bool(found.unsafe.all())
    assert float(found.points.min()) >= 0 and float(found.points.max()) <= 1
    assert float(search.region.distance(found.points).mean()) <= float(search.region.distance(deepfool.points).mean())


def test_alpha_is_the_margin_by_which_the_other_class_wins():
    search = random_search(random_relu_network(5, (6, 12, 4)), 4, 20.0, norm="inf")
    strong, weak = (Lbfgs(alpha=alpha).propose(search) for alpha in (0.1, 0.0))
    reached = search.shortfalls(search.network.scores(strong)) <= -0.1 + 1e-6
    assert int(reached.sum()) >= 2
    # Local minima differ, so not on every input.
    nearer = search.region.distance(weak) < search.region.distance(strong)
    assert float(nearer[reached].double().mean()) >= 0.5
    assert bool((search.shortfalls(search.network.scores(weak)) <= 0).all())


def test_more_targets_only_improve():
    search = random_search(random_relu_network(7, (6, 12, 10, 5)), 2, 20.0, norm="2")
    one, all_of_them = (search.region.distance(Lbfgs(targets=n).propose(search)) for n in (1, 4))
    assert bool((all_of_them <= one * (1 + 1e-6)).all())


@pytest.mark.parametrize("norm", DUAL)
def test_it_is_exact_where_the_domain_binds(norm):
    # Margin m + <g, x - centre>; the first coordinate may fall by .05 only, the second rise by .1.
    g, m, centre = torch.tensor([3.0, -2.0, 0.5]), 0.4, torch.tensor([[0.05, 0.9, 0.5]])
    network = chain((3,), Affine(torch.stack([g, torch.zeros(3)]), torch.tensor([m - float(g @ centre[0]), 0.0])))
    search = search_of(network, centre, 5.0, torch.tensor([0]), norm=norm)
    point = Lbfgs().run(search).points.double()
    expected = best_length(g.double().numpy(), m, centre[0].double().numpy(), 1 - centre[0].double().numpy(), norm)
    assert length((point - search.region.centre)[0], norm) == pytest.approx(expected, rel=0.01)


def test_penalties_have_the_gradients_they_say():
    def loss(r):
        return float((r**3).sum()), 3 * r**2

    generator = np.random.default_rng(0)
    for function, point in (
        (squared(loss, 0.7), generator.normal(size=4)),
        (split(loss, 0.7), generator.uniform(1, 2, size=8)),
    ):
        error = check_grad(lambda v, f=function: f(v)[0], lambda v, f=function: f(v)[1], point)
        assert error < 1e-5
