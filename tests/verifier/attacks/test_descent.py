"""One descent: exact on linear networks in every norm, the right update rules, economical with evaluations."""

import dataclasses

import numpy as np
import pytest
import torch
from torch.nn import functional

from encoders.ops import Affine
from tests.networks.chains import chain, random_relu_network
from tests.networks.searches import random_search, search_of
from verifier.attacks.ball import Ball
from verifier.attacks.descent import Descent
from verifier.attacks.geometry import lengths
from verifier.attacks.growing import Growing
from verifier.attacks.source import Source, pseudogradient
from verifier.attacks.steps import AdaDelta, Adaptive, Plain, Steepest, Vertex, checkpoints
from verifier.data import load_data
from verifier.subject import load_subject

NORMS = ("inf", "2", "1")
COUNT, INPUTS = 20, 30
RADII = {"inf": 0.2, "2": 1.0, "1": 3.0}


def linear_search(seed, norm, radius=None, dtype=torch.float64):
    """Return (weight w, search) of a network with y_0 - y_1 = <w, x> + 30: no point of the domain is unsafe."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(1, INPUTS, generator=generator, dtype=dtype)
    network = chain(
        (INPUTS,), Affine(torch.cat([weight, -weight]) / 2, torch.tensor([15.0, -15.0], dtype=dtype)), dtype=dtype
    )
    search = random_search(network, COUNT, RADII[norm] if radius is None else radius, norm=norm)
    return weight[0], search


def least_margin(weight, search):
    """Return min <w, x - c> over ball and box, by the closed form for a ball that the domain does not cut, or sorting.

    inf: every coordinate goes as far as it may. 1: the largest |w_i| first. 2: a bisection on the multiplier.
    """
    region, w = search.region, weight.double()
    room = torch.where(w > 0, region.centre, 1 - region.centre)
    if region.norm == "inf":
        return -(w.abs() * torch.minimum(room, region.radius[:, None])).sum(dim=1)
    if region.norm == "1":
        order = w.abs().argsort(descending=True)
        least, left = torch.zeros(len(room), dtype=torch.float64), region.radius.clone()
        for i in order.tolist():
            moved = torch.minimum(room[:, i], left)
            least, left = least - w.abs()[i] * moved, left - moved
        return least
    low, high = torch.zeros(len(room), dtype=torch.float64), torch.full((len(room),), 1e6, dtype=torch.float64)
    for _ in range(100):
        middle = (low + high) / 2
        short = torch.minimum(middle[:, None] * w.abs(), room).norm(dim=1) < region.radius
        low, high = torch.where(short, middle, low), torch.where(short, high, middle)
    return -(w.abs() * torch.minimum(low[:, None] * w.abs(), room)).sum(dim=1)


def shifts(weight, search, points):
    return (points.double() - search.region.centre) @ weight.double()


@pytest.mark.parametrize("norm", NORMS)
def test_one_step_to_the_vertex_is_the_optimum_of_a_linear_network(norm):
    weight, search = linear_search(0, norm)
    found = Descent(1, Vertex(), loss="cross-entropy").run(search).points
    assert torch.allclose(shifts(weight, search, found), least_margin(weight, search), rtol=1e-9)


@pytest.mark.parametrize("norm", NORMS)
def test_without_a_domain_the_optimum_is_the_dual_norm(norm):
    # min <w, d> over |d|_p <= e is -e |w|_q (Pallaprolu, Madala 2020, section 3; Hoelder).
    weight, search = linear_search(1, norm)
    search = search_of(search.network, search.region.centre, RADII[norm], search.classes, norm=norm, domain=None)
    found = Descent(1, Vertex()).run(search).points
    dual = {"inf": 1.0, "2": 2.0, "1": torch.inf}[norm]
    expected = -RADII[norm] * torch.linalg.vector_norm(weight, dual)
    assert torch.allclose(shifts(weight, search, found), expected.expand(COUNT), rtol=1e-9)


# 1: a constant step leaves a few percent, a shrinking one a fraction of a percent.
@pytest.mark.parametrize(
    ("rule", "norm", "gap"),
    [(Steepest(0.1), "inf", 1e-9), (Steepest(0.1), "2", 1e-6), (Steepest(0.1), "1", 0.05),
     (Steepest(0.1, momentum=1.0), "inf", 1e-9), (Steepest(0.1, momentum=1.0), "2", 1e-6),
     (Adaptive(), "inf", 1e-9), (Adaptive(), "2", 1e-6), (Adaptive(), "1", 0.01)],
)  # fmt: skip
def test_iterated_steps_reach_the_optimum_of_a_linear_network(rule, norm, gap):
    weight, search = linear_search(2, norm)
    found = Descent(100, rule, random_start=True).run(search).points
    least = least_margin(weight, search)
    assert float(((shifts(weight, search, found) - least) / least.abs()).max()) <= gap


def test_steps_of_twice_the_radius_end_in_the_corner_of_the_sign_method():
    _, search = linear_search(3, "inf")
    corner = Descent(1, Vertex()).run(search).points
    assert torch.equal(Descent(1, Steepest(2.0), random_start=True).run(search).points, corner)


def test_steps_that_are_not_projected_leave_the_ball():
    # Pallaprolu and Madala (2020) iterate d + alpha e sign(g) with no projection: outside after 1 / alpha steps.
    weight, search = linear_search(4, "inf", radius=0.01)
    ball = Ball.of(search.region, torch.float64)
    printed = ball.centre - 11 * 0.1 * 0.01 * weight.sign()
    assert bool((lengths(printed - ball.centre, "inf") > 0.01).all())
    right = Descent(11, Steepest(0.1)).run(search).points
    assert float(lengths(right - ball.centre, "inf").max()) <= 0.01


def test_adadelta_by_hand():
    # First step from zero state, g = 2: E[g^2] = .1 * 4, d = sqrt(1e-6 / (.4 + 1e-6)) * 2.
    _, search = linear_search(5, "inf")
    ball = Ball.of(search.region, torch.float64)
    gradient = torch.full_like(ball.centre, 2.0)
    moved = AdaDelta().begin(ball, 1).advance(ball.centre, gradient, torch.zeros(COUNT))
    expected = ball.project(ball.centre - 2 * (1e-6 / (0.4 + 1e-6)) ** 0.5)
    assert torch.allclose(moved, expected, rtol=0, atol=1e-12)


def test_adadelta_can_darken_bright_pixels():
    # The public code of Agrawal et al. clips the perturbation below at clamp(x, 0, e): x can never fall.
    network = chain((1,), Affine(torch.tensor([[1.0], [0.0]]), torch.tensor([0.0, 0.5])))
    search = search_of(network, torch.full((1, 1), 0.9), 0.3, torch.tensor([0]))
    attack = Descent(400, AdaDelta(), loss="cross-entropy")
    assert float(attack.run(search).points) < 0.9 - 0.29


@pytest.mark.parametrize("norm", ["inf", "2"])
def test_plain_steps_are_those_of_the_cross_entropy_projected(norm):
    """delta <- P(delta + alpha grad L), by automatic differentiation of the usual loss."""
    network = random_relu_network(11, (6, 9, 3))
    centres = torch.rand(8, 6, generator=torch.Generator().manual_seed(2))
    classes = network.evaluate(centres).argmax(dim=1)
    search = search_of(network, centres, 0.3, classes, norm=norm, domain=None)
    x, alpha = centres.clone(), 0.7 * 0.3
    for _ in range(5):
        x = x.detach().requires_grad_()
        loss = functional.cross_entropy(network.scores(x), classes, reduction="sum")
        moved = (x + alpha * torch.autograd.grad(loss, x)[0]).detach() - centres
        length = moved.norm(dim=1, keepdim=True)
        x = centres + (moved.clamp(-0.3, 0.3) if norm == "inf" else moved * (0.3 / length).clamp(max=1.0))
    points = Descent(5, Plain(0.7), loss="log-probability", until_broken=False).run(search).points
    torch.testing.assert_close(points, x, rtol=0, atol=1e-5)
    assert float((points - centres).abs().max()) > 0.1
    # The slopes of the log odds, which rules that look at directions take, would go elsewhere.
    other = Descent(5, Plain(0.7), loss="cross-entropy", until_broken=False).run(search).points
    assert float((other - points).abs().max()) > 1e-3


def test_momentum_by_hand():
    # m_1 = g_1 / |g_1|_1 = (1, 0); m_2 = m_1 + (-.25, .75) = (.75, .75): the first coordinate goes on.
    _, search = linear_search(6, "inf")
    walk = Steepest(0.1, momentum=1.0).begin(Ball.of(search.region, torch.float64), 2)
    x = walk.ball.centre
    first, second = torch.zeros_like(x), torch.zeros_like(x)
    first[:, 0], second[:, 0], second[:, 1] = 5.0, -1.0, 3.0
    x = walk.advance(x, first, torch.zeros(COUNT))
    moved = walk.advance(x, second, torch.zeros(COUNT)) - x
    assert bool((moved[:, :2] <= 0).all()) and bool((moved[:, 2:] == 0).all())


def test_checkpoints_by_hand():
    # 100 steps: periods 22, 19, 16, 13, 10, 7, 6, 6, 6 (Croce, Hein 2020, section 3).
    assert checkpoints(100) == (22, 41, 57, 70, 80, 87, 93, 99, 105)
    assert checkpoints(1)[0] >= 1


def test_an_adaptive_walk_halves_its_step_and_returns_to_its_best_point():
    _, search = linear_search(7, "inf")
    ball = Ball.of(search.region, torch.float64)
    walk = Adaptive().begin(ball, 10)
    x, size = ball.random(torch.arange(COUNT), 0), walk.size.clone()
    best = x
    gradient = torch.ones_like(x)
    for number in range(checkpoints(10)[0] + 1):
        # The loss only rises: the first point stays the best.
        x = walk.advance(x, gradient, torch.full((COUNT,), float(number), dtype=torch.float64))
    assert torch.equal(walk.size, size / 2)
    assert torch.allclose(x, ball.descend(best, gradient, size / 2).lerp(best, 0.25))


def test_any_step_counts_and_broken_inputs_are_not_evaluated_again():
    network = random_relu_network(1, (6, 12, 4))
    search = random_search(network, 30, 0.3)
    Descent(50, Steepest(0.02)).run(search)
    spent = search.record.gradients + search.record.queries
    first = search_of(network, search.region.centre, 0.3, search.classes)
    broken = Descent(50, Steepest(0.02)).run(first).unsafe
    assert int(broken.sum()) > 10
    assert int(spent[broken].max()) <= 50
    assert float(spent[broken].double().mean()) < 40
    assert spent[~broken].tolist() == [50] * int((~broken).sum())


def test_one_forward_pass_serves_loss_and_success(monkeypatch):
    network, passes = random_relu_network(1, (6, 12, 4)), []
    scores = Source.scores
    monkeypatch.setattr(Source, "scores", lambda self, x: passes.append(len(x)) or scores(self, x))
    search = random_search(network, 10, 0.0)
    Descent(7, Steepest(0.1)).run(search)
    # Of a single descent the base class judges the last points; of several, they are compared first.
    assert passes == [10] * 7
    Descent(7, Steepest(0.1), restarts=2).run(search)
    assert passes == [10] * (7 + 2 * 8)


def test_every_class_in_turn_finds_what_aiming_at_any_finds():
    network = random_relu_network(9, (6, 16, 16, 5))
    search = random_search(network, 60, 0.12)
    found = {
        target: Descent(20, Steepest(0.15), target=target).run(random_search(network, 60, 0.12)).unsafe
        for target in ("any", "second", "least-likely", "all")
    }
    counts = {target: int(mask.sum()) for target, mask in found.items()}
    assert counts["all"] >= max(counts.values()) > 0
    assert counts["least-likely"] < counts["all"]
    two_best = Descent(20, Steepest(0.15), target="all", finalists=2, screening=5)
    assert int(two_best.run(search).unsafe.sum()) >= counts["all"] - 1
    # 4 targets for 5 steps and one more look, then 2 for 14; the last points cost no gradient.
    resisting = ~found["all"] & (search.record.queries == 3)
    assert bool(resisting.any())
    assert set(search.record.gradients[resisting].tolist()) == {4 * 6 + 2 * 14}


def test_a_rank_is_the_place_among_the_jobs_of_an_input():
    from verifier.attacks.descent import Jobs

    jobs = Jobs(torch.tensor([3, 1, 3, 1, 3]), torch.zeros(5).long(), None, None)
    assert jobs.rank(torch.tensor([0.5, 2.0, -1.0, 1.0, 7.0])).tolist() == [1, 1, 0, 0, 2]


@pytest.mark.parametrize("loss", ["cross-entropy", "margin"])
def test_pseudogradients_break_more_of_a_trained_mwd_network_than_true_ones(loss):
    # Agrawal et al. (2019), table 1: the [psd] columns.
    network, data = load_subject("digits-mwd", device="cpu").network, load_data("digits")
    centres = torch.from_numpy(np.array(data.inputs[:100], dtype=np.float32)).reshape(-1, *network.input_shape)
    classes = network.scores(centres).argmax(dim=1)
    counts = [
        int(
            Descent(10, Steepest(0.1), loss=loss, sources=(source,))
            .run(search_of(network, centres, 0.2, classes))
            .unsafe.sum()
        )
        for source in (pseudogradient, Source)
    ]
    assert counts[0] > 1.3 * counts[1] > 0


def test_starts_differ_between_inputs_and_restarts_but_not_between_runs():
    network = random_relu_network(1, (6, 12, 4))
    search = random_search(network, 5, 0.1)
    same = search_of(network, search.region.centre[:1].expand(5, -1), 0.1, search.classes[:1].expand(5))
    attack = Descent(0, Steepest(0.1), random_start=True)
    points = attack.run(same).points
    assert len(points.unique(dim=0)) == 5
    assert torch.equal(points, attack.run(same).points)


def test_growing_finds_the_smallest_grid_radius_that_breaks():
    # y_0 - y_1 = x - .38 from .5: broken from a distance of .12 on; the grid of .2 in 10 has .12 as its 6th radius.
    network = chain(
        (1,),
        Affine(torch.tensor([[1.0], [0.0]], dtype=torch.float64), torch.tensor([0.0, 0.381], dtype=torch.float64)),
        dtype=torch.float64,
    )
    search = search_of(network, torch.full((1, 1), 0.5), 0.2, torch.tensor([0]))
    found = Growing(grid=10).run(search)
    assert bool(found.unsafe)
    assert float(found.points) == pytest.approx(0.38)
    assert (int(search.record.gradients), int(search.record.queries)) == (1, 7)


def test_growing_is_as_good_as_single_steps_on_its_grid():
    network = random_relu_network(3, (6, 16, 4))
    search = random_search(network, 40, 0.4)
    found = Growing(grid=8).run(search)
    distance = search.region.distance(found.points)
    for number in range(1, 9):
        single = search_of(network, search.region.centre, 0.05 * number, search.classes)
        broken = Descent(1, Vertex(), loss="cross-entropy").run(single).unsafe
        assert not bool((broken & (distance > 0.05 * number + 1e-6)).any())
    assert int(found.unsafe.sum()) > 10


def test_targets_of_a_search_come_before_those_of_the_attack():
    network = random_relu_network(5, (6, 16, 4))
    search = random_search(network, 40, 0.4)
    search = dataclasses.replace(search, targets=(search.classes + 2) % 4, report=None)
    found = Descent(20, Steepest(0.1), target="second").run(search)
    assert bool(found.unsafe.any())
    winners = network.scores(found.points).argmax(dim=1)
    assert torch.equal(winners[found.unsafe], search.targets[found.unsafe])


def test_a_descent_that_goes_on_takes_all_its_steps_and_goes_further():
    network = random_relu_network(2, (6, 16, 4))
    search = random_search(network, 30, 0.3)
    least = []
    for stop in (True, False):
        attack = Descent(15, Steepest(0.1), until_broken=stop)
        given = dataclasses.replace(search, report=None)
        found = attack.run(given)
        least.append(given.shortfalls(network.scores(found.points)))
        assert bool((given.record.gradients == 15).all()) != stop
    assert float(least[1].mean()) < float(least[0].mean())
    assert bool((least[0] <= 0).any())
