"""The half-space step against linear and quadratic programming, and the boundary search that is built on it."""

import dataclasses
import math

import pytest
import torch

from encoders.ops import Affine
from tests.networks.chains import chain, random_relu_network
from tests.networks.searches import best_length, digits_search, length, random_search, search_of
from verifier.attacks import nearest
from verifier.attacks.boundary_search import BoundarySearch
from verifier.attacks.carlini_wagner import CarliniWagner
from verifier.attacks.deepfool import DeepFool
from verifier.attacks.halfspace import step_to_halfspace
from verifier.attacks.nearest import Nearest

NORMS = ("inf", "2", "1")
# The last projection overshoots by 2e-4; the rest is float32.
SEGMENT_TOLERANCE = 1e-3
# Linear programs are solved to 1e-9, the quadratic one by SLSQP to about 1e-6.
PROGRAM_TOLERANCE = {"inf": 1e-7, "1": 1e-7, "2": 1e-4}


@pytest.mark.parametrize("norm", NORMS)
def test_the_step_is_the_shortest_in_the_box(norm):
    generator = torch.Generator().manual_seed(0)
    for _ in range(25):
        g = torch.randn(6, generator=generator, dtype=torch.float64)
        g[torch.rand(6, generator=generator) < 0.2] = 0.0
        below, above = torch.rand(2, 6, generator=generator, dtype=torch.float64)
        below[torch.rand(6, generator=generator) < 0.2] = 0.0
        reach = float((g.abs() * torch.where(g > 0, below, above)).sum())
        m = reach * float(torch.rand(1, generator=generator))
        if m == 0:
            continue
        step = step_to_halfspace(g[None], torch.tensor([m], dtype=torch.float64), below[None], above[None], norm)[0]
        assert float(g @ step) <= -m + 1e-9
        assert bool((-below <= step).all()) and bool((step <= above).all())
        expected = best_length(g.numpy(), m, below.numpy(), above.numpy(), norm)
        assert length(step, norm) == pytest.approx(expected, rel=PROGRAM_TOLERANCE[norm], abs=1e-8)


@pytest.mark.parametrize(("norm", "expected"), [("inf", 2 / 7), ("2", 2 / 5), ("1", 2 / 4)])
def test_without_edges_the_length_is_the_margin_over_the_dual_norm(norm, expected):
    # g = (3, -4), m = 2: dual norms 7, 5 and 4.
    g, m, free = torch.tensor([[3.0, -4.0]]).double(), torch.tensor([2.0]).double(), torch.full((1, 2), math.inf)
    step = step_to_halfspace(g, m, free, free, norm)
    assert length(step[0], norm) == pytest.approx(expected, rel=1e-12)
    # From the other side of the boundary the step goes back to it.
    assert float((g * step_to_halfspace(g, -m, free, free, norm)).sum()) == pytest.approx(2.0, rel=1e-12)


@pytest.mark.parametrize("norm", NORMS)
def test_out_of_reach_the_step_ends_in_the_corner_and_without_a_gradient_it_is_zero(norm):
    g = torch.tensor([[1.0, -2.0, 0.0], [0.0, 0.0, 0.0]])
    room = torch.full((2, 3), 0.25)
    step = step_to_halfspace(g, torch.tensor([10.0, 1.0]), room, room, norm)
    assert step.tolist() == [[-0.25, 0.25, 0.0], [0.0, 0.0, 0.0]]


@pytest.mark.parametrize("norm", NORMS)
def test_the_search_is_exact_on_linear_networks_even_where_the_domain_binds(norm):
    # Margin <g, x - .5> + m with g = (3, -1, .5): the first coordinate may move by .05 only.
    g, m = torch.tensor([3.0, -1.0, 0.5]), 0.4
    centre = torch.tensor([[0.05, 0.5, 0.5]])
    network = chain((3,), Affine(torch.stack([g, torch.zeros(3)]), torch.tensor([m - float(g @ centre[0]), 0.0])))
    search = search_of(network, centre, 5.0, torch.tensor([0]), norm=norm)
    nearest = Nearest(search)
    point = BoundarySearch().propose(search)
    expected = best_length(g.double().numpy(), m, centre[0].double().numpy(), 1 - centre[0].double().numpy(), norm)
    assert length((point - nearest.centre)[0], norm) == pytest.approx(expected, rel=SEGMENT_TOLERANCE)
    assert float(point.min()) >= 0 and float(point.max()) <= 1


@pytest.mark.parametrize("norm", NORMS)
def test_it_beats_deepfool_on_digits_and_stays_in_the_domain(norm):
    search = digits_search("digits-relu", norm, 20)
    distances = []
    for attack in (DeepFool(), BoundarySearch()):
        found = attack.run(search)
        assert bool(found.unsafe.all())
        assert float(found.points.min()) >= 0 and float(found.points.max()) <= 1
        distances.append(search.region.distance(found.points))
    deepfool, boundary = distances
    assert float((boundary <= deepfool).double().mean()) >= 0.9
    assert float(boundary.mean()) < 0.92 * float(deepfool.mean())


def test_restarts_only_improve():
    search = random_search(random_relu_network(5, (6, 12, 4)), 20, 2.0, norm="2")
    once, often = (search.region.distance(BoundarySearch(restarts=n).run(search).points) for n in (1, 4))
    assert bool((often <= once * (1 + 1e-6)).all())


@pytest.mark.parametrize("attack", [DeepFool(), BoundarySearch(10), CarliniWagner(steps=60)])
def test_where_true_gradients_fail_on_an_mwd_network_pseudogradients_go_on(attack, monkeypatch):
    search = digits_search("digits-mwd", "inf", 20)
    assert bool(attack.run(search).unsafe.all())
    monkeypatch.setattr(nearest, "has_pseudogradient", lambda network: False)
    assert not bool(attack.run(digits_search("digits-mwd", "inf", 20)).unsafe.all())


@pytest.mark.parametrize("norm", NORMS)
def test_a_sweep_over_the_nearest_classes_only_adds(norm):
    search = digits_search("digits-conv", norm, 15)
    alone, swept = (search.region.distance(BoundarySearch(15, sweep=n).run(search).points) for n in (0, 2))
    # Up to what the projections at the end make of different points.
    assert bool((swept <= alone * 1.02).all())
    assert float((swept / alone).log().mean()) < 0


def test_a_sweep_aims_at_nothing_but_the_target_that_is_asked_for():
    search = digits_search("digits-relu", "2", 5)
    targets = (search.classes + 1) % 10
    aimed = dataclasses.replace(search, targets=targets, report=None)
    found = BoundarySearch(15, sweep=2).run(aimed)
    assert bool((search.network.scores(found.points).argmax(dim=1) == targets)[found.unsafe].all())
    assert torch.equal(found.points, BoundarySearch(15).run(dataclasses.replace(aimed, report=None)).points)


def test_points_that_only_the_grouping_of_inputs_makes_unsafe_are_moved_beyond_the_boundary():
    search = random_search(random_relu_network(0, (9, 10, 8, 3)), 90, 3.0, norm="2")
    found = Nearest(search)
    DeepFool().approach(found)
    # All of them back on the boundary, give or take a rounding.
    found.pull(30)
    found.secure()
    values = found.measure(found.all_rows(), search.network.scores(found.points))
    assert bool(found.found.all()) and bool((values <= 0).all())
