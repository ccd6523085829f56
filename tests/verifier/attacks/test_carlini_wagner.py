"""Carlini and Wagner's attacks: exact on linear networks, in the domain, nearer than DeepFool."""

import pytest
import torch

from encoders.ops import Affine
from tests.networks.chains import chain, random_relu_network
from tests.networks.searches import digits_search, random_search, search_of
from verifier.attacks.carlini_wagner import CarliniWagner, FewestCoordinates
from verifier.attacks.deepfool import DeepFool
from verifier.attacks.nearest import Nearest
from verifier.attacks.penalty_descent import _decode, _encode

DUAL = {"inf": 1.0, "2": 2.0}
# The last projection overshoots by 2e-4; the rest is float32.
TOLERANCE = 1e-3


def linear_search(norm, domain):
    generator = torch.Generator().manual_seed(0)
    weight, bias = torch.randn(2, 6, generator=generator), 0.1 * torch.randn(2, generator=generator)
    network = chain((6,), Affine(weight, bias))
    centres = 0.5 + 0.1 * torch.randn(12, 6, generator=generator)
    search = search_of(network, centres, 50.0, network.scores(centres).argmax(dim=1), norm=norm, domain=domain)
    return search, (weight[0] - weight[1]).double(), float(bias[0] - bias[1])


@pytest.mark.parametrize("domain", [None, (-3.0, 3.0)])
@pytest.mark.parametrize("norm", ["2", "inf"])
def test_linear_networks_are_solved(norm, domain):
    search, w, b = linear_search(norm, domain)
    found = CarliniWagner().run(search)
    assert bool(found.unsafe.all())
    expected = (search.region.centre @ w + b).abs() / torch.linalg.vector_norm(w, DUAL[norm])
    distances = search.region.distance(found.points)
    assert bool((distances >= expected * (1 - 1e-5)).all())
    assert bool((distances <= expected * (1 + TOLERANCE) + 1e-4).all())


@pytest.mark.parametrize("norm", ["2", "inf"])
def test_it_is_no_farther_than_deepfool_on_nine_of_ten_digits(norm):
    search = digits_search("digits-relu", norm, 20)
    deepfool, found = DeepFool().run(search), CarliniWagner().run(search)
    assert bool(found.unsafe.all())
    assert float(found.points.min()) >= 0 and float(found.points.max()) <= 1
    nearer = search.region.distance(found.points) <= search.region.distance(deepfool.points)
    assert float(nearer.double().mean()) >= 0.9


def test_black_pixels_move_as_others_do():
    # Margin 1 - <g, x> from x = 0: only what rises where g > 0 helps, all of it by 1 / sum of those.
    g = torch.randn(50, generator=torch.Generator().manual_seed(0))
    network = chain((50,), Affine(torch.stack([-g, torch.zeros(50)]), torch.tensor([1.0, 0.0])))
    search = search_of(network, torch.zeros(1, 50), 1.0, torch.tensor([0]), norm="inf", domain=(0.0, 1.0))
    found = CarliniWagner(steps=30, projections=0, segment_steps=0).run(search)
    nearest = 1.0 / float(g.clamp(min=0).sum())
    assert nearest <= float(search.region.distance(found.points)) <= 1.05 * nearest


def test_points_keep_to_a_domain_that_is_not_the_unit_interval():
    network = random_relu_network(9, (6, 12, 4))
    centres = torch.rand(10, 6, generator=torch.Generator().manual_seed(4)) * 2 - 1.5
    centres[:, 0], centres[:, 1] = -1.5, 0.5
    search = search_of(network, centres, 20.0, network.scores(centres).argmax(dim=1), norm="2", domain=(-1.5, 0.5))
    points = CarliniWagner(searches=4, steps=40).propose(search)
    assert float(points.min()) >= -1.5 and float(points.max()) <= 0.5
    nearest = Nearest(search)
    assert torch.allclose(_decode(nearest, _encode(nearest, nearest.centre)), nearest.centre, atol=2e-3)


def test_kappa_is_the_margin_by_which_the_other_class_wins():
    search = random_search(random_relu_network(5, (6, 12, 4)), 10, 20.0, norm="2")
    weak, strong = CarliniWagner(), CarliniWagner(kappa=0.1)
    points = strong.propose(search)
    reached = search.shortfalls(search.network.scores(points)) <= -0.1 + 1e-6
    assert float(reached.double().mean()) > 0.5
    plain = search.region.distance(weak.propose(search))
    assert bool((search.region.distance(points)[reached] > plain[reached]).all())


def test_the_fewest_coordinates_of_a_linear_network():
    # Margin m + <g, x - .5>, where each coordinate may move by .5: one lowers it by up to 1.5, two by 2.5, three by 3.
    g = torch.tensor([3.0, 2.0, 1.0, 0.5, 0.1])
    for margin, count in ((0.9, 1), (2.2, 2), (2.9, 3)):
        network = chain(
            (5,), Affine(torch.stack([g, torch.zeros(5)]), torch.tensor([margin - float(g.sum()) / 2, 0.0]))
        )
        search = search_of(network, torch.full((1, 5), 0.5), 20.0, torch.tensor([0]), norm="1")
        found = FewestCoordinates().run(search)
        assert bool(found.unsafe)
        assert int((found.points != 0.5).sum()) == count


def test_few_pixels_of_digits_are_enough():
    search = digits_search("digits-relu", "2", 5)
    settings = {"searches": 5, "steps": 50}
    fewest, all_of_them = FewestCoordinates(**settings).run(search), CarliniWagner(**settings).run(search)
    assert bool(fewest.unsafe.all())
    changed = [(found.points.double() != search.region.centre).flatten(1).sum(dim=1) for found in (fewest, all_of_them)]
    assert float(changed[0].double().mean()) < 0.2 * float(changed[1].double().mean())


def test_steps_count_every_evaluation_with_a_gradient():
    search = random_search(random_relu_network(5, (6, 12, 4)), 6, 20.0, norm="2")
    CarliniWagner(searches=2, steps=7).run(search)
    assert int(search.record.gradients.max()) <= 14
