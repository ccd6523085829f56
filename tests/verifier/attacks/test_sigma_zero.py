"""Sigma-zero and the greedy walk: few changed coordinates; the points are judged in the norm asked about."""

import pytest
import torch

from encoders.ops import Affine, Relu
from tests.networks.chains import chain
from tests.networks.searches import digits_search, search_of
from verifier.attacks import ATTACKS
from verifier.attacks.greedy_coordinates import GreedyCoordinates
from verifier.attacks.sigma_zero import SigmaZero

NAMES = ("sigma-zero", "jsma")


def linear(g, margin, centre):
    """Return a network of two classes whose margin is <g, x - centre> + margin."""
    weight = torch.stack([torch.tensor(g), torch.zeros(len(g))])
    return chain((len(g),), Affine(weight, torch.tensor([margin - float(torch.tensor(g) @ centre), 0.0])))


def changed(found, search):
    return (found.points.double() != search.region.centre).flatten(1).sum(dim=1)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("norm", ["inf", "1"])
def test_one_coordinate_is_enough_where_it_is_and_two_where_two_are_needed(name, norm):
    # Each can move by .5: the first alone is worth 1, the others .5, .4 and .2.
    centre = torch.full((4,), 0.5)
    for margin, least in ((0.9, 1), (1.3, 2)):
        search = search_of(
            linear((2.0, -1.0, 0.8, 0.4), margin, centre), centre[None], 9.0, torch.tensor([0]), norm=norm
        )
        found = ATTACKS[name].run(search)
        assert bool(found.unsafe[0]) and int(changed(found, search)) == least


@pytest.mark.parametrize("name", NAMES)
def test_digits_break_by_few_coordinates_inside_the_domain(name):
    search = digits_search("digits-relu", "inf", 20)
    found = ATTACKS[name].run(search)
    assert bool(found.unsafe.all())
    assert float(found.points.min()) >= 0 and float(found.points.max()) <= 1
    # 1.5 and 1.6 in the mean of 60 inputs.
    assert 1.0 <= float(changed(found, search).double().mean()) < 2.0


def test_the_slopes_of_the_smooth_count_are_its_gradient():
    away = torch.tensor([[0.3, -0.01, 0.0], [1.0, 0.05, -0.2]], dtype=torch.float64, requires_grad=True)
    attack = SigmaZero()
    square = away.square()
    (expected,) = torch.autograd.grad((square / (square + attack.smoothing)).mean(dim=1).sum(), away)
    assert torch.allclose(attack._count_slopes(away.detach()), expected, rtol=1e-12)


def test_what_a_greedy_walk_does_not_need_in_the_end_is_taken_back():
    # Margin 1 - 1.9 (x_0 - .5) - 1.8 (x_1 - .5) - .6 relu(x_1 - .6): at first x_0 promises .95 and x_1 .9, but x_1
    # alone is worth .9 + .24 > 1.
    first = Affine(torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]]), torch.tensor([0.0, 0.0, -0.6]))
    last = Affine(torch.tensor([[-1.9, -1.8, -0.6], [0.0, 0.0, 0.0]]), torch.tensor([2.85, 0.0]))
    network = chain((2,), first, Relu(), last)
    search = search_of(network, torch.full((1, 2), 0.5), 9.0, torch.tensor([0]))
    greedy, kept = GreedyCoordinates().run(search), GreedyCoordinates(take_back=0).run(search)
    assert bool(greedy.unsafe[0]) and greedy.points.tolist() == [[0.5, 1.0]]
    assert bool(kept.unsafe[0]) and kept.points.tolist() == [[1.0, 1.0]]


def test_without_ends_of_the_domain_the_walk_stays_and_the_count_is_still_searched():
    centre = torch.full((3,), 0.5)
    search = search_of(linear((2.0, -1.0, 0.8), 0.9, centre), centre[None], 9.0, torch.tensor([0]), domain=None)
    assert not bool(ATTACKS["jsma"].run(search).unsafe[0])
    found = ATTACKS["sigma-zero"].run(search)
    assert bool(found.unsafe[0]) and int(changed(found, search)) == 1
