"""Votes of draws: their counts, what breaks one, and how often that is said in error."""

import pytest
import torch

from encoders.ops import Affine, RandomAffine
from tests.networks.chains import chain
from verifier.votes import BROKEN, KEPT, OPEN, Votes, votes_at

F64 = torch.float64


def coin(x: float) -> torch.Tensor:
    return torch.tensor([[x]], dtype=F64)


def coins():
    """Return a network of two classes that gives class 0 where x + z > 0, z ~ N(0, 1)."""
    weight = torch.tensor([[1.0], [0.0]], dtype=F64)
    spread = torch.tensor([1.0, 0.0], dtype=F64)
    return chain(
        (1,), RandomAffine(weight, torch.zeros(2, dtype=F64), deviation=0 * weight, bias_deviation=spread), dtype=F64
    )


def test_a_vote_is_of_the_probability_of_a_draw():
    # P(x + z > 0) at -1, 0, 1 is .1587, .5 and .8413.
    points = torch.tensor([[-1.0], [0.0], [1.0]], dtype=F64)
    votes = votes_at(coins(), points, 4000, seed=1)
    shares = (votes.choosing + votes.deciding)[:, 0] / 4000
    assert shares.tolist() == pytest.approx([0.1587, 0.5, 0.8413], abs=5 * (0.25 / 4000) ** 0.5)
    assert int(votes.choosing.sum(dim=1)[0]) == 1000
    zeros = torch.zeros(3, dtype=torch.int64)
    assert votes.outcomes(zeros).tolist()[::2] == [BROKEN, KEPT]
    assert votes.outcomes(1 - zeros).tolist()[::2] == [KEPT, BROKEN]
    assert votes.winners[[0, 2]].tolist() == [1, 0]
    assert votes.share(zeros) == pytest.approx(float(shares.mean()))


def test_an_even_vote_is_called_broken_or_kept_no_more_often_than_the_confidence_says():
    said = 0
    for seed in range(150):
        outcome = votes_at(coins(), coin(0.0), 60, seed).outcomes(torch.zeros(1, dtype=torch.int64), 0.9)
        said += int(outcome) != OPEN
    # Of 150 at most a tenth, within three standard errors of it.
    assert said <= 15 + 3 * (150 * 0.1 * 0.9) ** 0.5


def test_the_rival_is_the_strongest_of_the_draws_that_choose_and_others_do_not_count():
    choosing = torch.tensor([[5, 9, 2]])
    assert Votes(choosing, torch.tensor([[10, 40, 50]])).outcomes(torch.tensor([0])).tolist() == [BROKEN]
    # The third class has most of the deciding draws, but was not chosen: it breaks nothing, and nothing is kept.
    assert Votes(torch.tensor([[5, 9, 2]]), torch.tensor([[30, 5, 99]])).outcomes(torch.tensor([0])).tolist() == [OPEN]
    assert Votes(torch.tensor([[5, 9, 2]]), torch.tensor([[30, 5, 9]])).outcomes(torch.tensor([0])).tolist() == [KEPT]
    assert Votes(choosing, torch.tensor([[0, 0, 50]])).outcomes(torch.tensor([0])).tolist() == [OPEN]


def test_a_class_that_is_not_the_vote_is_not_kept_because_a_weak_rival_was_chosen():
    """Of 4 draws one chooses: where it gives the label itself, any class may be the rival."""
    probability = torch.tensor([0.35, 0.05, 0.6], dtype=F64)
    generator = torch.Generator().manual_seed(3)
    said = 0
    for _ in range(200):
        draws = torch.multinomial(probability, 40, replacement=True, generator=generator)
        counts = [torch.bincount(part, minlength=3)[None] for part in (draws[:1], draws[1:])]
        said += int(Votes(*counts).outcomes(torch.tensor([0]))) == KEPT
    assert said <= 10


def test_the_draws_are_none_of_those_of_an_attack_with_the_same_seed():
    first = coins().draw(torch.Generator().manual_seed(5)).evaluate(coin(0.0))
    threshold = -first[0, 0]
    votes = [votes_at(coins(), (threshold + step)[None, None], 4, 5).choosing.tolist() for step in (-1e-9, 1e-9)]
    assert votes[0] == votes[1], "the first draw changes class there, the draw that chooses does not"


def test_draws_without_a_value_vote_for_nobody():
    huge = torch.full((2, 1), torch.finfo(F64).max, dtype=F64)
    network = chain(
        (1,), RandomAffine(huge / 4, deviation=huge / 100), Affine(torch.full((2, 2), 1e3, dtype=F64)), dtype=F64
    )
    votes = votes_at(network, coin(1.0), 8, seed=0)
    assert int(votes.deciding.sum()) == 0
    assert votes.outcomes(torch.tensor([0])).tolist() == [OPEN]


def test_what_has_no_vote_is_refused():
    with pytest.raises(ValueError, match="no random op"):
        votes_at(chain((1,), Affine(torch.ones(2, 1))), torch.ones(1, 1), 10, 0)
    with pytest.raises(ValueError, match="at least 4 draws"):
        votes_at(coins(), coin(1.0), 3, 0)
