"""Mean gradients over draws: those of the finite expectation, the same for all groupings, paid for, and useful."""

import pytest
import torch

from encoders.ops import Affine, DropConnect, KWinners, Relu
from tests.networks.chains import chain, random_relu_network
from tests.networks.searches import random_search, search_of
from verifier.attacks import ATTACKS
from verifier.attacks.criteria import slopes
from verifier.attacks.descent import Descent
from verifier.attacks.ensemble import DRAWS, Ensemble
from verifier.attacks.expectation import Expectation
from verifier.attacks.settings import attack_with, is_masked
from verifier.attacks.source import Source, pseudogradient
from verifier.attacks.steps import Steepest


def dropping(seed: int, inputs: int = 6):
    """Return a network whose hidden layer keeps each weight with probability 1/2."""
    generator = torch.Generator().manual_seed(seed)
    weights = [torch.randn(n, m, generator=generator) for n, m in ((12, inputs), (3, 12))]
    return chain((inputs,), DropConnect(weights[0], rate=0.5), Relu(), Affine(weights[1]))


def test_the_gradient_is_the_mean_over_the_draws_of_the_generator():
    network, x = dropping(0), torch.rand(4, 6, generator=torch.Generator().manual_seed(1))
    classes = torch.tensor([0, 1, 2, 0])
    generator = torch.Generator().manual_seed(0)
    drawn = [network.draw(generator) for _ in range(5)]
    of_draws = [Source(one).differentiate(x, lambda z: slopes("margin", z, classes)) for one in drawn]
    scores, gradient = Expectation(5)(network).differentiate(x, lambda z: slopes("margin", z, classes))
    assert torch.allclose(scores, torch.stack([s for s, _ in of_draws]).mean(dim=0), atol=1e-6)
    assert torch.allclose(gradient, torch.stack([g for _, g in of_draws]).mean(dim=0), atol=1e-6)
    again = Expectation(5)(network)
    first, second = (again.differentiate(x, lambda z: slopes("margin", z, classes))[1] for _ in range(2))
    assert torch.equal(first, gradient) and not torch.equal(first, second)


def test_a_network_that_draws_nothing_has_the_source_of_its_stand_ins():
    plain = random_relu_network(0, (4, 3, 3))
    winners = chain((4,), Affine(torch.eye(4)), KWinners(2), Affine(torch.ones(3, 4)))
    assert not Expectation(5)(plain).pseudo and Expectation(5)(winners).pseudo
    assert Expectation(5)(plain).networks == 1 and Expectation(5)(dropping(0)).networks == 5


def test_points_do_not_depend_on_how_inputs_are_grouped():
    network, attack = dropping(2), Descent(6, Steepest(0.3), sources=(Expectation(4),), until_broken=False)
    together = random_search(network, 6, 0.1)
    parts = [attack.run(together.at(rows)).points for rows in torch.arange(6).split(2)]
    assert torch.equal(attack.run(together).points, torch.cat(parts))


def test_every_draw_is_counted_and_the_ensemble_stays_within_its_budget():
    network = dropping(3)
    search = random_search(network, 20, 1e-4)
    robust = ~attack_with("eot", {"draws": 7, "steps": 3, "restarts": 1}).run(search).unsafe
    # A descent ends where the mean of the draws is broken; the network of the means may still hold.
    spent = set(search.record.gradients[robust].tolist())
    assert 21 in spent and spent <= {7, 14, 21}
    small = Ensemble(steps=12, starts=1, queries=20, blind_queries=20, corners=5)
    search = random_search(network, 20, 1e-4)
    small.run(search)
    gradients, queries = small.cost(network)
    assert DRAWS * 5 < int(search.record.gradients.max()) <= gradients
    assert int(search.record.queries.max()) <= queries


def test_only_eot_has_draws_to_set():
    assert attack_with("eot", {"draws": 3}).sources == (Expectation(3),)
    with pytest.raises(ValueError, match=r"no draws of 3 to set; supported by eot$"):
        attack_with("pgd", {"draws": 3})


def test_bpda_sees_the_unit_that_has_to_win_and_true_gradients_do_not():
    """Units 1 + .1 a and b at (.5, .8): only b > 1.05 makes class 1 win, and the winner's gradient is of a alone."""
    front = Affine(torch.tensor([[0.1, 0.0], [0.0, 1.0]]), torch.tensor([1.0, 0.0]))
    last = Affine(torch.tensor([[0.0, 0.0], [0.05, 10.0]]), torch.tensor([0.0, -0.5]))
    network = chain((2,), front, KWinners(1), last)
    search = search_of(network, torch.tensor([[0.5, 0.8]]), 0.3, torch.tensor([0]), domain=None)
    assert ATTACKS["bpda"].sources == (pseudogradient,)
    assert not is_masked(ATTACKS["bpda"], network) and is_masked(ATTACKS["fgsm"], network)
    true = attack_with("pgd", {"restarts": 1, "pseudogradients": "no"}).run(search)
    found = attack_with("bpda", {"restarts": 1}).run(search)
    assert not bool(true.unsafe.any()) and float(true.points[0, 1]) == pytest.approx(0.8)
    assert bool(found.unsafe.all()) and float(found.points[0, 1]) > 1.05
