"""Trees of units narrow boxes, within their limits, and searches that start anew on these boxes answer as before."""

from fractions import Fraction

import numpy as np
import pytest

from tests.networks.batches import random_batch
from tests.networks.chains import hinge_network
from tests.oracles.certified_claims import CASES, is_true
from tests.oracles.polygons import least_margin
from tests.oracles.without_planes import without_planes
from tests.seeds import seeds
from verifier.bounds.split import plane_search, search
from verifier.bounds.split.prepared import PreparedBall, prepare
from verifier.bounds.split.question import split_question
from verifier.budget import Budget
from verifier.certificates.sign_tree import LEAF


def prepared(seed: int, splits: int, budget: Budget | None = None) -> PreparedBall:
    network = hinge_network(seed, (2, 8, 6, 3))
    batch = random_batch(network, 1, seed)
    question = split_question(network, batch.region(CASES[seed]), int(batch.classes[0]))
    # Planes leave little to trees on so few inputs.
    with without_planes():
        return prepare(question, 20, budget or Budget(), None, splits)


def widths(ball: PreparedBall) -> np.ndarray:
    lower, upper = ball.program.unit_ends(np.arange(ball.program.units))
    return (upper - lower)[0]


@pytest.mark.parametrize("seed", CASES)
def test_more_splits_leave_no_wider_boxes_and_each_tree_has_at_most_so_many(seed):
    plain, few, many = (prepared(seed, splits) for splits in (0, 1, 12))
    assert not plain.boxes.trees and few.boxes.trees and many.boxes.trees
    assert (widths(few) <= widths(plain)).all()
    assert (widths(many) <= widths(plain)).all() and widths(many).sum() < widths(few).sum() < widths(plain).sum()
    for trees, most in ((few.boxes.trees, 1), (many.boxes.trees, 12)):
        for each in trees:
            ends = np.flatnonzero(np.where(each.splits == LEAF, -1, 1).cumsum() < 0)
            assert len(ends) and (each.splits != LEAF).sum() <= most * len(each.places)


def test_no_time_leaves_no_trees():
    ball = prepared(13, 12, Budget(0.0))
    assert not ball.boxes.trees


@pytest.mark.parametrize("seed", CASES)
def test_a_search_that_starts_anew_on_narrower_boxes_counts_on_and_proves(seed, monkeypatch):
    monkeypatch.setattr(search, "LEVELS", ((0, 0, 0), (20, 2, 8), (20, 12, None)))
    monkeypatch.setattr(plane_search, "MOST_WORK", 0)
    network = hinge_network(seed, (2, 8, 6, 3))
    batch = random_batch(network, 1, seed)
    asked = network, batch.region(CASES[seed]), int(batch.classes[0])
    whole = search.decide_ball(*asked, lambda points: False, Budget(), 4000)
    assert whole.certificate is not None and whole.certificate.unit_trees
    whole.certificate.check(network)
    assert is_true(whole.certificate, network)
    # A search that stops and goes on at each batch gets as far.
    paused, most = search.BallSearch(*asked), 0
    answer = None
    while answer is None or not answer.proved:
        most += 3
        assert most < 4000
        answer = paused.run(lambda points: False, Budget(), most)
        assert answer.proved or "open" in answer.reason
    assert answer.certificate is not None
    answer.certificate.check(network)


@pytest.mark.parametrize("seed", seeds(3, 30))
def test_answers_agree_with_polygons_on_both_sides_of_the_radius(seed, monkeypatch):
    monkeypatch.setattr(search, "LEVELS", ((0, 0, 0), (20, 5, None)))
    network = hinge_network(100 + seed, (2, 8, 6, 3))
    batch = random_batch(network, 1, seed)
    winner = int(batch.classes[0])
    for radius in (0.05, 0.2, 0.5):
        region = batch.region(radius)
        box = region.enclosure()
        ends = ([Fraction(value) for value in end.flatten().tolist()] for end in (box.lower, box.upper))
        least = least_margin(network, *ends, winner)
        answer = search.decide_ball(network, region, winner, lambda points: False, Budget(), 3000)
        assert answer.proved <= (least > 0), radius
        if least > 1e-4:
            assert answer.proved
