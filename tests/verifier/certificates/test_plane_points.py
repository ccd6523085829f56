"""Leaves with planes of their own prove what is true alone, whatever points name these; odd points are refused."""

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from encoders.network import INPUT, Network
from tests.networks.batches import random_batch
from tests.networks.chains import hinge_network
from tests.oracles.certified_claims import CASES, PAST, kept_and_read, passes
from tests.oracles.exact_checker import holds_exactly
from tests.oracles.node_values import exact_values
from tests.seeds import seeds
from verifier.bounds.split import search
from verifier.bounds.split.prepared import prepare
from verifier.bounds.split.question import split_question
from verifier.budget import Budget
from verifier.certificates.certificate import Certificate
from verifier.certificates.error import CertificateError
from verifier.certificates.plane_points import PlanePoints
from verifier.certificates.planes import PlaneMaker
from verifier.certificates.sign_leaves import SignLeaves
from verifier.certificates.sign_tree import SplitTree


@cache
def case(seed: int) -> tuple[Network, Certificate]:
    """Return a network and the certificate of a search near its exact radius whose leaves have points."""
    network = hinge_network(seed, (2, 8, 6, 3))
    batch = random_batch(network, 1, seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(search, "LEVELS", ((0, 0, 0), (20, 0, None)))
        answer = search.decide_ball(
            network, batch.region(CASES[seed]), int(batch.classes[0]), lambda points: False, Budget(), 4000
        )
    assert answer.certificate is not None, answer.reason
    return network, answer.certificate


@pytest.mark.parametrize("seed", CASES)
def test_certificates_whose_leaves_have_points_pass_are_true_and_come_back_from_files(seed: int, tmp_path: Path):
    network, certificate = case(seed)
    assert certificate.planes is None and all(tree.points is not None for tree in certificate.trees)
    short, again = kept_and_read(certificate, network, tmp_path)
    for tree, read in zip(short.trees, again.trees, strict=True):
        assert tree.points is not None and read.points is not None
        for name in ("units", "points", "thresholds"):
            assert np.array_equal(getattr(tree.points, name), getattr(read.points, name)), name


def altered(tree: SplitTree, generator: np.random.Generator, leaves_share: bool) -> SplitTree:
    """Return a tree whose sets have other points, or whose leaves take other sets."""
    points = tree.points
    assert points is not None
    if leaves_share:
        return replace(tree, sets=generator.integers(0, len(tree.slopes), tree.leaves).astype(np.int32))
    made = random_points(points.units, len(points), points.points.shape[1], generator)
    return replace(tree, points=made)


def random_points(units: np.ndarray, rows: int, inputs: int, generator: np.random.Generator) -> PlanePoints:
    """Return points and thresholds of all magnitudes."""
    thresholds = generator.integers(-9000, 17000, (rows, len(units)))
    thresholds[generator.random(thresholds.shape) < 0.1] = generator.choice([-32768, 32767])
    return PlanePoints(units, generator.integers(0, 256, (rows, inputs)).astype(np.uint8), thresholds.astype(np.int16))


@pytest.mark.parametrize("seed", CASES)
def test_no_points_of_leaves_prove_what_is_false(seed: int):
    network, certificate = case(seed)
    generator = np.random.default_rng(seed)
    false = replace(certificate, radius=certificate.radius + PAST)
    for number in range(8):
        trees = tuple(altered(tree, generator, number % 2 == 0) for tree in certificate.trees)
        assert not passes(replace(false, trees=trees), network)
        # On the true ball either verdict of the two checkers is right.
        passes(replace(certificate, trees=trees), network)


@pytest.mark.parametrize("sizes", [(2, 8, 6, 3), (3, 9, 2)])
@pytest.mark.parametrize("seed", seeds(4, 40))
def test_bounds_of_leaves_with_random_points_lie_below_margins_in_rationals(seed: int, sizes: tuple[int, ...]):
    """Each point of the ball lies in the leaf of its signs, so that this leaf's bound is at most its margin."""
    network, generator = hinge_network(seed, sizes), np.random.default_rng(seed)
    batch = random_batch(network, 1, seed)
    ball = prepare(split_question(network, batch.region(0.5), int(batch.classes[0])), 3, Budget())
    program, inputs = ball.program, ball.program.boxes[INPUT].lower.numel()
    low, high = (end.flatten().numpy() for end in (program.boxes[INPUT].lower, program.boxes[INPUT].upper))
    places = low + generator.random((6, inputs)) * (high - low)
    units = np.flatnonzero(generator.random(program.boxes[program.hinges[0].name].lower.numel()) < 0.8)
    values = [
        exact_values(program.network, place) for place in torch.from_numpy(places).reshape(6, *network.input_shape)
    ]
    read = [[float(value) for hinge in program.hinges for value in exact[hinge.source]] for exact in values]
    signs = np.where(generator.random((6, program.units)) < 0.5, np.where(np.array(read) >= 0, 1, -1), 0)
    leaves = SignLeaves(
        program, ball.question.rows, np.arange(program.units), generator.integers(0, len(ball.rows), 6),
        signs.astype(np.int8), maker=PlaneMaker(program, units),
    )  # fmt: skip
    for scale in (0.0, 0.1, 1.0):
        bounds = leaves.bounds(
            generator.random((6, program.units)), scale * generator.normal(size=(6, program.units)), None,
            random_points(units, 6, inputs, generator),
        )  # fmt: skip
        for exact, of, bound in zip(values, leaves.of.tolist(), bounds.tolist(), strict=True):
            output = exact[program.network.output.name]
            margin = output[ball.question.winner] - output[ball.question.rivals[of]]
            assert bound <= margin


def test_odd_points_of_sets_are_refused():
    network, certificate = case(13)
    (first, *others), winner = certificate.trees, certificate.winner
    points = first.points
    assert points is not None
    odd = (
        None,
        points[1:],
        replace(points, units=points.units[1:]),
        replace(points, units=points.units[::-1]),
        replace(points, units=np.zeros_like(points.units)),
        replace(points, units=points.units + 1000),
        replace(points, points=points.points.astype(np.float32)),
        replace(points, points=points.points[:, 1:]),
        replace(points, thresholds=points.thresholds[:, 1:]),
        replace(points, thresholds=points.thresholds.astype(object)),
    )
    for each in odd:
        with pytest.raises(CertificateError, match="planes of leaves"):
            replace(certificate, trees=(replace(first, points=each), *others)).check(network)
    both = replace(certificate, planes=points[np.zeros(len(certificate.trees), dtype=np.int64)])
    with pytest.raises(CertificateError, match="in all trees or in none"):
        both.check(network)
    assert not holds_exactly(both, network) and winner == certificate.winner
