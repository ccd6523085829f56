"""Splits name whole units; halves keep numbers that give their bounds, and these lie below what was sampled."""

from functools import cache

import numpy as np
import pytest
import torch

from tests.networks.batches import random_batch
from tests.networks.chains import hinge_network
from tests.seeds import seeds
from verifier.bounds.split import branching
from verifier.bounds.split.branching import Gains, divided
from verifier.bounds.split.prepared import PreparedBall, prepare
from verifier.bounds.split.question import split_question
from verifier.bounds.split.subproblems import Subproblems
from verifier.bounds.split.unit_boxes import first_slopes
from verifier.budget import Budget

GOAL, ROUNDING = 1e-5, 1e-4


@cache
def ball_of(seed: int) -> PreparedBall:
    network = hinge_network(seed, (3, 12, 10, 4))
    batch = random_batch(network, 1, seed)
    return prepare(split_question(network, batch.region(0.6), int(batch.classes[0])), 2, Budget())


def random_subproblems(ball: PreparedBall, count: int, generator: torch.Generator) -> Subproblems:
    """Return subproblems with a third of the signs given at random, their numbers after some ascent."""
    units = len(ball.open_units)
    signs = torch.randint(-2, 3, (count, units), generator=generator)
    signs = torch.where(signs.abs() == 2, signs.sign(), 0).to(torch.int8)
    rows = torch.randint(0, len(ball.rows), (count,), generator=generator)
    lines, slopes = ball.split_lines(signs, rows), first_slopes(ball.lines).expand(count, -1)
    bounds, slopes, multipliers = ball.ascent.ascend(
        ball.ascent.network.output, ball.rows[rows], lines, slopes, torch.zeros(count, units), 10, GOAL
    )
    assert multipliers is not None
    assert not bool(multipliers[signs == 0].any())
    points = torch.zeros(count, 0) if ball.own_planes is None else ball.own_planes.first[rows]
    return Subproblems(bounds, torch.arange(count), rows, torch.zeros_like(rows), signs, slopes, multipliers, points)


def losses_of(ball: PreparedBall, subproblems: Subproblems) -> torch.Tensor:
    lines = ball.split_lines(subproblems.signs, subproblems.rows)
    ended = ball.ascent.evaluate(
        ball.ascent.network.output, ball.rows[subproblems.rows], lines, subproblems.slopes, subproblems.multipliers
    )
    return ended.costs.clamp(max=0) * -lines.offset


@pytest.mark.parametrize("few", [True, False])
@pytest.mark.parametrize("seed", seeds(4, 20))
def test_halves_split_a_whole_unit_and_their_numbers_give_their_bounds(seed, few, monkeypatch):
    monkeypatch.setattr(branching, "FEW", 32 if few else 0)
    ball, generator = ball_of(seed), torch.Generator().manual_seed(seed)
    subproblems, gains = random_subproblems(ball, 6, generator), Gains(len(ball.open_units))
    if bool((subproblems.signs != 0).all(dim=1).any()):
        pytest.skip("a subproblem has no unit left")
    division = divided(ball, subproblems, losses_of(ball, subproblems), GOAL, gains)
    splits, both = division.splits, division.halves
    each = torch.arange(len(subproblems))
    assert len(both) == 12 and not bool(subproblems.signs[each, splits].any())
    for half, sign in ((both[::2], 1), (both[1::2], -1)):
        expected = subproblems.signs.clone()
        expected[each, splits] = sign
        assert torch.equal(half.signs, expected)
        assert torch.equal(half.rows, subproblems.rows) and torch.equal(half.nodes, subproblems.nodes)
        assert bool((half.bounds >= subproblems.bounds - ROUNDING).all())
        lines, rows = ball.split_lines(half.signs, half.rows), ball.rows[half.rows]
        again = ball.ascent.bound(ball.ascent.network.output, rows, lines, half.slopes, half.multipliers)
        raised = half.bounds > subproblems.bounds
        torch.testing.assert_close(again[raised], half.bounds[raised], rtol=1e-4, atol=1e-5)
    assert bool((gains.scores[splits] > 0).all())
    # Worked on one by one, it is the same.
    monkeypatch.setattr(branching, "MOST_NUMBERS", 1)
    alone = divided(ball, subproblems, losses_of(ball, subproblems), GOAL, Gains(len(ball.open_units)))
    parts = alone.halves
    assert torch.equal(alone.splits, splits) and torch.equal(parts.signs, both.signs)
    # Ascent ends once all of a piece are past the goal.
    torch.testing.assert_close(parts.bounds.clamp(max=GOAL), both.bounds.clamp(max=GOAL), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("alone", [True, False])
def test_refuted_halves_are_closed_at_other_units_than_the_split(alone, monkeypatch):
    """Each pair of a subproblem and a unit comes once, its numbers close it, and its sign is the one that was tried."""
    monkeypatch.setattr(branching, "DEEP", 1)
    monkeypatch.setattr(branching, "MOST_NUMBERS", 1 if alone else 1 << 23)
    count = 0
    for seed in range(6):
        ball, generator = ball_of(seed), torch.Generator().manual_seed(seed)
        subproblems = random_subproblems(ball, 12, generator)
        subproblems = subproblems[(subproblems.signs == 0).any(dim=1) & (subproblems.bounds <= 0)]
        if not len(subproblems):
            continue
        division = divided(ball, subproblems, losses_of(ball, subproblems), GOAL, Gains(len(ball.open_units)))
        refuted, of, units = division.refuted, division.of, division.units
        pairs = list(zip(of.tolist(), units.tolist(), strict=True))
        assert len(set(pairs)) == len(pairs) == len(refuted) and pairs == sorted(pairs, key=lambda pair: pair[0])
        assert not bool((units == division.splits[of]).any()) and not bool(subproblems.signs[of, units].any())
        expected, each = subproblems.signs[of].clone(), torch.arange(len(of))
        expected[each, units] = refuted.signs[each, units]
        assert torch.equal(refuted.signs, expected) and bool((refuted.signs[each, units] != 0).all())
        lines, rows = ball.split_lines(refuted.signs, refuted.rows), ball.rows[refuted.rows]
        again = ball.ascent.bound(ball.ascent.network.output, rows, lines, refuted.slopes, refuted.multipliers)
        assert bool((again > 0).all())
        count += len(pairs)
    assert count > 10


@pytest.mark.parametrize("seed", seeds(4, 20))
def test_bounds_of_subproblems_lie_below_their_sampled_margins(seed):
    """Points of the ball have the signs of one subproblem of every split: its bound is no more than their margin."""
    ball, generator = ball_of(seed), torch.Generator().manual_seed(seed + 100)
    lower, upper = ball.ascent.lower, ball.ascent.upper
    points = lower + torch.rand(200, len(lower), generator=generator) * (upper - lower)
    read = torch.zeros(len(points), len(ball.open_units))

    def at_hinge(k, value):
        own = ball.ascent.units[k]
        read[:, own] = value
        return torch.maximum(value, ball.ascent.left[own] * value)

    network = ball.ascent.network
    network.forward(network.output, points, at_hinge)
    given = torch.rand(read.shape, generator=generator) < 0.5
    signs = torch.where(given, torch.where(read >= 0, 1, -1), 0).to(torch.int8)
    margins = ball.all_stages.outputs(points) @ ball.rows.T
    for row in range(len(ball.rows)):
        rows, slopes = ball.rows[[row]].expand(len(points), -1), first_slopes(ball.lines).expand(len(points), -1)
        lines = ball.split_lines(signs, torch.full((len(points),), row))
        bounds, slopes, multipliers = ball.ascent.ascend(
            network.output, rows, lines, slopes, torch.zeros_like(slopes), 20, GOAL
        )
        assert bool((bounds <= margins[:, row] + ROUNDING).all())
        # What is proved in float64 is no more than what was sampled either.
        assert multipliers is not None
        proved = ball.proved(np.full(len(points), row), signs, slopes.numpy(), ball.exact_multipliers(multipliers))
        assert bool((margins[:, row][torch.from_numpy(proved)] > 0).all())


def test_scores_are_products_of_mean_gains():
    gains = Gains(3)
    gains.note(torch.tensor([0, 0, 2]), torch.tensor([[0.2, 1.0], [0.4, 0.0], [0.5, 0.5]]))
    expected = torch.tensor(
        [(0.3 + branching.NO_GAIN) * (0.5 + branching.NO_GAIN), 0.0, (0.5 + branching.NO_GAIN) ** 2]
    )
    torch.testing.assert_close(gains.scores, expected)
