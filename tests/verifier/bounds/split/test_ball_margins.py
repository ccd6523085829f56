"""Margins by ascent: below the exact ones, above those of plain linear bounds, refused where they do not apply."""

import pytest
import torch

from encoders import BallRegion
from tests.networks.batches import random_batch
from tests.networks.chains import hinge_network, random_relu_network
from tests.networks.mwd_chains import random_mwd_network
from tests.oracles.polygons import least_margin
from tests.seeds import seeds
from verifier.bounds.linear.margins import linear_margins
from verifier.bounds.linear.slopes import SlopeSearch
from verifier.bounds.split.ball_margins import ball_margins, takes_ascent
from verifier.budget import Budget


@pytest.mark.parametrize("radius", [0.05, 0.3, 1.0])
@pytest.mark.parametrize("seed", seeds(6, 40))
def test_the_least_margin_is_at_most_the_exact_one_and_at_least_that_of_linear_bounds(seed, radius):
    """hinge networks of two inputs: relus, leaky relus and absolute values, the exact margin by cutting polygons."""
    network = hinge_network(seed, (2, 8, 6, 3))
    batch = random_batch(network, 1, seed)
    region, winner = batch.region(radius), int(batch.classes[0])
    assert takes_ascent(network, region)
    found = ball_margins(network, region, winner, 20, Budget())
    ends = region.enclosure()
    exact = least_margin(network, ends.lower[0].tolist(), ends.upper[0].tolist(), winner)
    above = ball_margins(network, region, winner, 20, Budget(), planes=True)
    assert float(found.lower.min()) <= exact and float(above.lower.min()) <= exact
    assert float(found.lower[winner]) == torch.inf
    assert bool(region.contains(region.clip(found.points, torch.float64)).all())
    inside = (found.points >= ends.lower - 1e-6) & (found.points <= ends.upper + 1e-6)
    assert bool(inside.all())
    plain, searched = (linear_margins(network, region, batch.classes, search) for search in (None, SlopeSearch(20)))
    assert bool((searched.lower >= plain.lower).all())


def test_boxes_with_slopes_of_their_own_are_tighter_than_shared_slopes(monkeypatch):
    """Over ten random networks with three layers of relus, by ascent and by differentiated passes."""
    gained = []
    for seed in range(10):
        network = random_relu_network(seed, (6, 16, 16, 16, 4))
        region = BallRegion(torch.rand(1, 6, dtype=torch.float64), torch.tensor([0.2], dtype=torch.float64), (0.0, 1.0))
        classes = network.scores(region.centre).argmax(dim=1)
        ascended = linear_margins(network, region, classes, SlopeSearch(20)).lower
        with monkeypatch.context() as patched:
            patched.setattr("verifier.bounds.linear.margins.takes_ascent", lambda *_: False)
            shared = linear_margins(network, region, classes, SlopeSearch(20)).lower
        both = ascended.isfinite() & shared.isfinite()
        gained.append(float((ascended - shared)[both].sum()))
    assert sum(gained) > 0 and sum(gain >= -1e-3 for gain in gained) >= 8, gained


def test_planes_prove_more_than_lines():
    """Over six random networks with two layers of relus of six inputs."""
    gained = []
    for seed in range(6):
        network = random_relu_network(seed, (6, 16, 16, 4))
        region = BallRegion(torch.rand(1, 6, dtype=torch.float64), torch.tensor([0.2], dtype=torch.float64), (0.0, 1.0))
        winner = int(network.scores(region.centre).argmax(dim=1))
        lines, above = (ball_margins(network, region, winner, 20, Budget(), planes).lower for planes in (False, True))
        gained.append(float((above - lines)[lines.isfinite()].sum()))
    assert sum(gained) > 0 and sum(gain > 0 for gain in gained) >= 5, gained


def test_other_norms_and_other_ops_are_left_to_differentiated_passes():
    network = random_relu_network(0, (3, 5, 3))
    centre, radius = torch.full((1, 3), 0.5, dtype=torch.float64), torch.tensor([0.1], dtype=torch.float64)
    assert takes_ascent(network, BallRegion(centre, radius, None))
    assert not takes_ascent(network, BallRegion(centre, radius, None, "2"))
    assert not takes_ascent(random_mwd_network(0, (3, 4, 3)), BallRegion(centre, radius, None))
