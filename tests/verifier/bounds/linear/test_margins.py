"""Margins by linear bounds and by optimised slopes: sound, ordered, exact where theory says so."""

import itertools

import pytest
import torch

from encoders import BallRegion
from encoders.ops import Affine, Relu
from tests.networks.chains import chain, random_relu_network
from tests.networks.mwd_chains import random_mwd_network
from tests.seeds import seeds
from verifier.bounds.interval import compare_classes
from verifier.bounds.linear import margins as margins_module
from verifier.bounds.linear.bounds import linear_bounds
from verifier.bounds.linear.margins import Margins, in_pieces, linear_margins
from verifier.bounds.linear.slopes import SlopeSearch
from verifier.budget import Budget

F64 = torch.float64


def balls(count, shape, radius, norm="inf", seed=0):
    centres = torch.rand(count, *shape, generator=torch.Generator().manual_seed(seed), dtype=F64)
    return BallRegion(centres, torch.full((count,), radius, dtype=F64), (0.0, 1.0), norm)


def sampled_margins(network, region, classes, points=2000, seed=1):
    """Return the least margins `(batch, classes)` over corners and random points of the regions."""
    generator = torch.Generator().manual_seed(seed)
    share = torch.rand(points, *region.centre.shape, generator=generator, dtype=F64)
    share[::2] = share[::2].round()
    x = region.lower + share * (region.upper - region.lower)
    if region.norm != "inf":
        x = region.centre + (x - region.centre) * 0.0
        away = torch.randn(points, *region.centre.shape, generator=generator, dtype=F64)
        length = away.flatten(2).norm(dim=2, p=float(region.norm))
        x = region.centre + away / length[..., None] * region.radius[:, None]
        x = torch.minimum(torch.maximum(x, region.lower), region.upper)
    y = network.evaluate(x.flatten(0, 1)).unflatten(0, (points, -1))
    own = y.gather(2, classes.expand(points, -1).unsqueeze(2))
    return (own - y).amin(dim=0)


@pytest.mark.parametrize("norm", ["inf", "2", "1"])
@pytest.mark.parametrize("seed", seeds(2, 6))
def test_margins_lie_below_every_sampled_margin_and_slopes_only_help(seed, norm):
    network = random_relu_network(seed, (6, 12, 10, 4))
    region = balls(5, (6,), {"inf": 0.08, "2": 0.15, "1": 0.3}[norm], norm, seed)
    classes = network.scores(region.centre).argmax(dim=1)
    plain = linear_margins(network, region, classes)
    better = linear_margins(network, region, classes, SlopeSearch(15))
    least = sampled_margins(network, region, classes)
    for found in (plain, better):
        known = torch.where(found.lower.isfinite(), found.lower, -torch.inf)
        assert bool((known <= least + 1e-9).all())
    assert bool((better.lower >= plain.lower).all())
    wins = compare_classes(network, region.enclosure(), classes).wins
    assert bool((plain.lower[wins] == torch.inf).all())
    assert bool((plain.proved >= wins.all(dim=1)).all())


def test_optimised_slopes_reach_the_exact_margin_of_a_single_open_unit():
    # y_0 - y_1 = relu(x) - x / 2 + 0.1 on [-1, 0.9]: least value 0.1 at 0, which the slope 1/2 attains.
    last = Affine(torch.tensor([[1.0, 0.0], [0.0, 0.5]]), torch.tensor([0.1, 0.0]))
    first = Affine(torch.tensor([[1.0], [1.0]]), torch.tensor([0.0, 50.0]))
    network = chain((1,), first, Relu(), Affine(last.weight, torch.tensor([0.1, -25.0])))
    region = BallRegion(torch.tensor([[-0.05]], dtype=F64), torch.tensor([0.95], dtype=F64))
    classes = torch.tensor([0])
    plain = linear_margins(network, region, classes)
    better = linear_margins(network, region, classes, SlopeSearch(100, learning_rate=0.1, decay=0.97))
    assert not bool(plain.proved)
    assert bool(better.proved)
    assert float(better.lower[0, 1]) == pytest.approx(0.1, abs=0.05)


def test_pieces_agree_with_the_whole_batch(monkeypatch):
    network = random_relu_network(3, (6, 12, 10, 4))
    region = balls(7, (6,), 0.1)
    classes = network.scores(region.centre).argmax(dim=1)
    whole = linear_margins(network, region, classes)
    monkeypatch.setattr(margins_module, "CPU_PIECE_BYTES", 1)
    pieces = in_pieces(linear_margins, network, region, classes)
    finite = whole.lower.isfinite() & pieces.lower.isfinite()
    assert torch.allclose(whole.lower[finite], pieces.lower[finite], atol=1e-9)
    assert torch.equal(whole.proved, pieces.proved)
    assert pieces.points is not None and pieces.points.shape[0] == 7


def test_a_piece_that_does_not_fit_is_halved_and_the_user_told(monkeypatch):
    network = random_relu_network(3, (6, 12, 10, 4))
    region = balls(8, (6,), 0.1)
    classes = network.scores(region.centre).argmax(dim=1)
    sizes = []

    def work(network, region, classes, wins) -> Margins:
        sizes.append(len(classes))
        if len(classes) > 2:
            raise torch.OutOfMemoryError("too large")
        return linear_margins(network, region, classes)

    with pytest.warns(UserWarning, match="memory is too small"):
        pieces = in_pieces(work, network, region, classes)
    assert sizes == [8, 4, 2, 2, 2, 2]
    assert torch.equal(pieces.proved, linear_margins(network, region, classes).proved)


def test_an_exhausted_budget_keeps_the_plain_bounds():
    network = random_relu_network(5, (6, 12, 10, 4))
    region = balls(4, (6,), 0.1)
    classes = network.scores(region.centre).argmax(dim=1)
    stopped = linear_margins(network, region, classes, SlopeSearch(50, budget=Budget(0.0)))
    plain = linear_margins(network, region, classes)
    assert torch.allclose(stopped.lower, plain.lower, atol=1e-6)
    assert bool((stopped.lower >= plain.lower).all())


def test_mwd_networks_keep_what_intervals_prove():
    for seed in range(5):
        network = random_mwd_network(seed)
        region = balls(6, (2,), 0.05, seed=seed)
        classes = network.scores(region.centre).argmax(dim=1)
        wins = compare_classes(network, region.enclosure(), classes).wins.all(dim=1)
        assert torch.equal(linear_margins(network, region, classes).proved, wins)


def test_float32_bounds_are_near_the_rigorous_ones():
    network = random_relu_network(1, (6, 12, 10, 4))
    region = balls(5, (6,), 0.1)
    rows = torch.eye(4, dtype=F64).expand(5, 4, 4)
    exact = linear_bounds(network, region).minimise(rows).bound
    single = linear_bounds(network, region, dtype=torch.float32).minimise(rows.float()).bound
    assert torch.allclose(exact, single.double(), atol=1e-3)


def test_the_minimiser_of_a_linear_network_attains_its_bound():
    network = chain((3,), Affine(torch.tensor([[1.0, -2.0, 0.5], [0.0, 1.0, 1.0]]), torch.tensor([0.3, -0.1])))
    for norm, corner in itertools.product(("inf", "2", "1"), range(2)):
        region = BallRegion(torch.full((1, 3), 0.5, dtype=F64), torch.tensor([0.2], dtype=F64), None, norm)
        rows = torch.eye(2, dtype=F64)[corner].reshape(1, 1, 2)
        minimum = linear_bounds(network, region).minimise(rows, with_points=True)
        assert minimum.points is not None
        value = (network.evaluate(minimum.points[0]) * rows[0]).sum(dim=1)
        assert float(value) == pytest.approx(float(minimum.bound), abs=1e-9)
        assert bool(region.distance(minimum.points[0]) <= 0.2 + 1e-9)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_gives_the_bounds_of_the_processor():
    network = random_relu_network(2, (6, 12, 10, 4))
    region = balls(9, (6,), 0.1)
    classes = network.scores(region.centre).argmax(dim=1)
    there = BallRegion(region.centre.cuda(), region.radius.cuda(), region.domain)
    here = linear_margins(network, region, classes).lower
    assert torch.allclose(here, linear_margins(network, there, classes.cuda()).lower.cpu(), atol=1e-9)


def test_inputs_far_from_a_proof_are_not_searched(monkeypatch):
    network = random_relu_network(3, (6, 12, 10, 4))
    region = balls(6, (6,), 0.4)
    classes = network.scores(region.centre).argmax(dim=1)
    plain = linear_margins(network, region, classes)
    centre = network.evaluate(region.centre)
    margins = centre.gather(1, classes[:, None]) - centre
    assert bool((plain.lower < -1e-3 * margins.clamp(min=0)).any(dim=1).all())
    for name in ("optimised_slopes", "ball_margins"):
        monkeypatch.setattr(margins_module, name, lambda *_: pytest.fail("searched in vain"))
    linear_margins(network, region, classes, SlopeSearch(5, reach=1e-3))
