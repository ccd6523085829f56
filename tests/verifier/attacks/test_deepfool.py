"""DeepFool: one exact step on linear networks, the printed step without its minus, and better than one sign step."""

import pytest
import torch
from torch.nn import functional

from encoders.ops import Affine
from tests.networks.chains import chain, random_relu_network
from tests.networks.searches import digits_search, random_search, search_of
from verifier.attacks import ATTACKS
from verifier.attacks.deepfool import DeepFool
from verifier.attacks.linearise import linearise
from verifier.attacks.source import Source

DUAL = {"inf": 1.0, "2": 2.0, "1": float("inf")}
NORMS = tuple(DUAL)


def linear_search(weight, bias, centres, norm):
    """Return a search on a linear network without a domain, far from any limit."""
    network = chain((weight.shape[1],), Affine(weight, bias))
    classes = network.scores(centres).argmax(dim=1)
    return search_of(network, centres, 1e3, classes, norm=norm, domain=None)


@pytest.mark.parametrize("norm", NORMS)
def test_a_binary_linear_network_takes_one_step_of_the_closed_form(norm):
    # f = <w, x> + b between two classes: |r| = |f| / ||w||_*, lengthened by the overshoot.
    generator = torch.Generator().manual_seed(0)
    weight, bias = torch.randn(2, 7, generator=generator), torch.randn(2, generator=generator)
    search = linear_search(weight, bias, torch.randn(20, 7, generator=generator), norm)
    points = DeepFool().propose(search)
    w, b = (weight[0] - weight[1]).double(), (bias[0] - bias[1]).double()
    f = search.region.centre @ w + b
    expected = 1.02 * f.abs() / torch.linalg.vector_norm(w, DUAL[norm])
    away = torch.linalg.vector_norm((points.double() - search.region.centre), float(norm), dim=1)
    assert torch.allclose(away, expected, rtol=1e-4)
    assert bool(((points.double() @ w + b) * f < 0).all())
    # The step, and a look at where it leads.
    assert search.record.gradients.tolist() == [2] * 20


@pytest.mark.parametrize("norm", NORMS)
def test_many_linear_classes_take_one_step_to_the_nearest_boundary(norm):
    generator = torch.Generator().manual_seed(1)
    weight, bias = torch.randn(6, 9, generator=generator), torch.randn(6, generator=generator)
    search = linear_search(weight, bias, torch.randn(30, 9, generator=generator), norm)
    points = DeepFool(overshoot=1e-3).propose(search)
    scores = search.region.centre @ weight.double().T + bias.double()
    own = search.classes
    gaps = scores.gather(1, own[:, None]) - scores
    sizes = torch.linalg.vector_norm(weight.double()[own][:, None] - weight.double()[None], DUAL[norm], dim=2)
    nearest = torch.where(sizes > 0, gaps / sizes, torch.inf).amin(dim=1)
    away = torch.linalg.vector_norm(points.double() - search.region.centre, float(norm), dim=1)
    assert torch.allclose(away, 1.001 * nearest, rtol=1e-3)
    assert bool((search.shortfalls(search.network.scores(points)) <= 0).all())


def test_the_printed_step_without_the_minus_doubles_the_margin():
    # Liu and Sha (2019): r = f / ||w||^2 w. On f = <w, x> + b that gives f(x + r) = 2 f(x), for ever.
    w, b, x = torch.tensor([1.0, -2.0, 2.0]).double(), 0.5, torch.tensor([0.3, 0.1, 0.7]).double()
    f = float(w @ x + b)
    printed = f / float(w @ w) * w
    assert float(w @ (x + printed) + b) == pytest.approx(2 * f)
    assert float(w @ (x - printed) + b) == pytest.approx(0.0, abs=1e-12)


def test_rows_of_gradients_are_those_of_one_class_at_a_time():
    network = random_relu_network(3, (6, 12, 10, 5))
    x = torch.rand(9, 6, generator=torch.Generator().manual_seed(2))
    classes = network.scores(x).argmax(dim=1)
    model = linearise(Source(network), x, classes)
    assert bool((model.margins[:, 1:] >= model.margins[:, :-1]).all())
    for column in range(4):
        z = x.clone().requires_grad_()
        scores = network.scores(z)
        margin = scores.gather(1, classes[:, None]) - scores.gather(1, model.others[:, column : column + 1])
        (expected,) = torch.autograd.grad(margin.sum(), z)
        assert torch.allclose(model.gradients[:, column], expected, atol=1e-6)
        assert torch.allclose(model.margins[:, column], margin.squeeze(1), atol=1e-6)


# FGSM's sign direction is that of the inf-norm, where it can win on an input by luck; in the others it seldom does.
@pytest.mark.parametrize(("norm", "share"), [("inf", 0.8), ("2", 0.95), ("1", 0.95)])
def test_its_distance_is_below_that_of_the_least_fgsm_step_that_errs(norm, share):
    search = digits_search("digits-relu", norm, 20)
    found = ATTACKS["deepfool"].run(search)
    assert bool(found.unsafe.all())
    x = search.region.centre.float().requires_grad_()
    loss = functional.cross_entropy(search.network.scores(x), search.classes, reduction="sum")
    (gradient,) = torch.autograd.grad(loss, x)
    least = torch.full((20,), torch.inf, dtype=torch.float64)
    for epsilon in torch.arange(400, 0, -1).double() / 400:
        stepped = (search.region.centre + epsilon * gradient.double().sign()).clamp(0, 1).float()
        hit = search.shortfalls(search.network.scores(stepped)) <= 0
        least[hit] = search.region.distance(stepped)[hit]
    distances = search.region.distance(found.points)
    assert float((distances <= least).double().mean()) >= share
    assert float(distances.mean()) < float(least.mean())


def test_without_any_gradient_it_stays_at_the_input():
    network = chain((2,), Affine(torch.zeros(2, 2), torch.tensor([1.0, 0.0])))
    search = search_of(network, torch.rand(3, 2), 1.0, torch.zeros(3, dtype=torch.int64))
    assert torch.equal(DeepFool().propose(search).double(), search.region.centre)
    assert search.record.vanishing.tolist() == [True] * 3
    # It tries again where gradients of dead units or random directions might lead out of a flat place.
    assert (search.record.gradients >= 1).all()


@pytest.mark.parametrize("norm", ["inf", "2", "1"])
def test_clipped_steps_come_to_a_boundary_as_well_and_not_farther_in_the_mean(norm):
    search = digits_search("digits-conv", norm, 30)
    heeding, clipped = (DeepFool(clipped_steps=n, projections=2, segment_steps=8).run(search) for n in (0, 5))
    assert bool(heeding.unsafe.all()) and bool(clipped.unsafe.all())
    ratio = search.region.distance(clipped.points) / search.region.distance(heeding.points)
    assert float(ratio.log().mean()) <= 1e-6


def test_candidates_limit_the_rows_and_not_the_answer_here():
    search = random_search(random_relu_network(3, (6, 12, 10, 5)), 20, 2.0, norm="2")
    few, all_classes = (DeepFool(candidates=n).propose(search) for n in (4, 10))
    assert torch.equal(few, all_classes)
