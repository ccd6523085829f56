"""Attacks of votes: they go on where the mean is broken and the vote is not, never behind what they start with."""

import numpy as np
import pytest
import torch

from encoders import write_network
from encoders.ops import Affine, RandomAffine, Relu
from encoders.region import BallRegion
from tests.networks.chains import chain, random_relu_network
from tests.networks.searches import random_search, search_of
from verifier import attack
from verifier.attacks import ATTACKS
from verifier.attacks.against_votes import AgainstVotes, fewest_votes, to_border
from verifier.attacks.corners import Corners
from verifier.votes import BROKEN, KEPT, votes_at

EPSILON, VOTERS = 0.4, 200


def peaked():
    """Class 1 where a + 2 b - 10 sum max(z a, 0) > .3, four z ~ N(0, 1): at the mean a helps, in draws it harms."""
    weight, deviation = torch.zeros(6, 2), torch.zeros(6, 2)
    weight[0, 0], weight[1, 1], deviation[2:, 0] = 1.0, 1.0, 1.0
    last = torch.tensor([[0.0] * 6, [1.0, 2.0, -10.0, -10.0, -10.0, -10.0]])
    return chain((2,), RandomAffine(weight, deviation=deviation), Relu(), Affine(last, torch.tensor([0.3, 0.0])))


def inputs() -> torch.Tensor:
    return torch.tensor([[0.2, 0.0], [0.25, 0.01], [0.3, 0.0]])


def outcomes(network, search, points):
    points = to_border(search.region, points, points.dtype)
    return votes_at(network, points, VOTERS, seed=7).outcomes(search.classes)


def test_it_goes_on_where_the_point_that_breaks_the_mean_does_not_change_the_vote():
    network, zeros = peaked(), torch.zeros(3, dtype=torch.int64)
    of_mean = ATTACKS["auto"].run(search_of(network, inputs(), EPSILON, zeros))
    search = search_of(network, inputs(), EPSILON, zeros)
    assert of_mean.unsafe.all() and (outcomes(network, search, of_mean.points) == KEPT).all()
    found = AgainstVotes(ATTACKS["auto"]).run(search)
    assert (outcomes(network, search, found.points) == BROKEN).all()
    assert search.region.contains(found.points).all()
    parts = [
        AgainstVotes(ATTACKS["auto"]).run(search.at(rows)).points for rows in (torch.tensor([0, 2]), torch.tensor([1]))
    ]
    assert torch.equal(found.points[[0, 2, 1]], torch.cat(parts))


def test_the_command_goes_on_with_auto_alone(tmp_path):
    write_network(peaked(), tmp_path / "m.safetensors")
    data = (inputs().numpy(), np.zeros(3, dtype=np.int64))
    asked = {"vote": VOTERS, "clip": (0, 1), "out": None}
    votes = {name: attack(tmp_path / "m.safetensors", data, name, EPSILON, **asked).votes for name in ("ifgsm", "auto")}
    assert (votes["ifgsm"].kept, votes["ifgsm"].broken) == (3, 0)
    assert (votes["auto"].kept, votes["auto"].broken) == (0, 3) and votes["auto"].single < votes["ifgsm"].single


@pytest.mark.parametrize("norm", ["inf", "2"])
def test_it_is_never_behind_what_it_starts_with(norm):
    generator = torch.Generator().manual_seed(0)
    first, second = torch.randn(12, 6, generator=generator), torch.randn(3, 12, generator=generator)
    network = chain((6,), RandomAffine(first, deviation=first.abs() / 2), Relu(), Affine(second))
    search, start = random_search(network, 24, 0.15 if norm == "inf" else 0.3, norm=norm), Corners(5)
    points = start.run(search).points if norm == "inf" else search.region.clip(search.region.centre, torch.float32)
    before = int((outcomes(network, search, points) == BROKEN).sum())
    found = fewest_votes(search, points)
    # Judged by other draws than those that chose: at a vote that is nearly even they may disagree.
    after = outcomes(network, search, found)
    assert int((after == BROKEN).sum()) > before and search.region.contains(found).all()


def test_points_go_to_the_border_and_what_did_not_move_stays():
    centre = torch.tensor([[0.5, 0.5], [0.5, 0.5], [0.9, 0.5]], dtype=torch.float64)
    points = torch.tensor([[0.5, 0.6], [0.5, 0.5], [0.95, 0.6]])
    for norm, ends in (("inf", [0.5, 0.8]), ("2", [0.5, 0.8]), ("1", [0.5, 0.8])):
        region = BallRegion(centre, torch.full((3,), 0.3, dtype=torch.float64), (0.0, 1.0), norm)
        moved = to_border(region, points, torch.float32)
        assert moved[0].tolist() == pytest.approx(ends, abs=1e-5) and moved[1].tolist() == [0.5, 0.5]
        assert region.contains(moved).all() and float(moved[2, 0]) > 0.95


def test_without_draws_or_time_it_is_the_first_attack():
    plain = random_relu_network(0, (4, 5, 3))
    both = [way.run(random_search(plain, 8, 0.1)).points for way in (Corners(5), AgainstVotes(Corners(5)))]
    assert torch.equal(*both)
    zeros = torch.zeros(3, dtype=torch.int64)
    search = search_of(peaked(), inputs(), EPSILON, zeros, seconds=0.0)
    assert torch.equal(fewest_votes(search, inputs()), inputs())
