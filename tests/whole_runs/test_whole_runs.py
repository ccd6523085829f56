"""Whole runs of small networks of every op, through every method and norm, against exact and one-sided oracles.

`-m slow` checks 10^5 brackets; the default suite a sample that holds every op, method and norm.
"""

from fractions import Fraction

import numpy as np
import pytest
import torch

from encoders import BallRegion, write_network
from encoders.ops import OPS, Affine, MaxPool2d, Mwd, Relu, Reshape
from encoders.region import NORMS
from tests.networks.chains import chain, hinge_network
from tests.oracles.definitions import DECIMALS, value_at
from tests.oracles.exact_radius import ExactOracle
from tests.oracles.polygons import least_margin
from tests.whole_runs.cases import draw_case
from tests.whole_runs.files import FORMS
from tests.whole_runs.runs import PAIRS, Tally, fuzz, run_case
from verifier import certify
from verifier.methods import METHODS

BRACKETS = 100_000
# Randomised ops answer as their means do, `tests/verifier/commands/test_certify_draws.py`.
WITHOUT_DRAWS = {name for name, op in OPS.items() if not op.randomised}
# Cases that between them hold all ops, and runs of each that are not refused.
SAMPLE = {
    2020: [("input-split", "inf"), ("interval", "inf")],
    2026: [("alpha-crown", "1"), ("auto", "2")],
    2042: [("lipschitz", "inf"), ("contraction", "inf")],
    2076: [("crown", "2"), ("alpha-crown", "inf")],
    2128: [("milp", "inf"), ("milp-cbc", "inf"), ("auto", "1")],
    2132: [("exact", "inf"), ("auto", "inf"), ("planes", "inf")],
    2133: [("crown", "inf"), ("interval", "2")],
    2193: [("restriction", "inf"), ("exact", "inf")],
    2212: [("crown", "1")],
    2298: [("crown", "1")],
    2307: [("lp", "inf"), ("interval", "2")],
    2468: [("interval", "1"), ("auto", "inf")],
}


def test_a_sample_holds_every_op_method_and_norm(tmp_path):
    tally = Tally()
    for seed, pairs in SAMPLE.items():
        folder = tmp_path / str(seed)
        folder.mkdir()
        run_case(seed, folder, tally, pairs=pairs, limit=3)
    assert tally.ops == WITHOUT_DRAWS
    assert {method for method, _ in tally.pairs} == set(METHODS)
    assert {norm for _, norm in tally.pairs} == set(NORMS)
    assert set(tally.forms) == set(FORMS)
    assert tally.brackets >= 80 and min(tally.witnesses, tally.checked, tally.resumed, tally.ties) >= 3
    assert {word for _, word in tally.words} == {"certified", "falsified", "open"}


@pytest.mark.slow
def test_a_hundred_thousand_brackets_hold_the_exact_radius():
    tally, failures = fuzz(range(10**6), BRACKETS)
    assert not failures
    assert tally.brackets >= BRACKETS
    assert tally.ops == WITHOUT_DRAWS and tally.pairs == set(PAIRS)
    assert min(tally.witnesses, tally.checked, tally.resumed, tally.ties) >= 100
    assert min(tally.forms[form] for form in FORMS) >= 10


@pytest.mark.parametrize("seed", range(30))
def test_definitions_have_the_values_of_networks(seed):
    case = draw_case(seed)
    expected = case.network.cast(torch.float64).evaluate(torch.from_numpy(case.x).double())
    for row in (0, 20):
        found = value_at(DECIMALS, case.network, torch.from_numpy(case.x[row]))
        size = max(abs(float(value)) for value in found)
        assert np.abs(expected[row].numpy() - found.astype(float)).max() <= 1e-9 * max(size, 1e-30)


@pytest.mark.parametrize("seed", range(10))
def test_the_least_margin_over_the_ball_of_the_exact_radius_is_zero(seed):
    """Two oracles: this one's radius, and `polygons.least_margin`, which is 0 there and positive just within."""
    network = hinge_network(seed, (2, 4, 3))
    oracle, centre = ExactOracle.of(network, -4.0, 5.0), [0.25, 0.5]
    reference = int(network.cast(torch.float64).evaluate(torch.tensor([centre]).double()).argmax())
    radius = oracle.distance(centre, reference, "inf")
    assert radius is None or radius > 0
    for share in (Fraction(999, 1000), Fraction(1)):
        reach = share * (4 if radius is None else radius)
        ends = [[Fraction(c) + sign * reach for c in centre] for sign in (-1, 1)]
        least = least_margin(network, *ends, reference)
        assert least == 0 if share == 1 and radius is not None else least > 0


def test_distances_to_a_half_plane_are_those_of_the_dual_norms():
    """x_0 + 2 x_1 <= 2 seen from (3, 2): the margin 3 + 4 - 2 = 5 over 3, 2 and the root of 5."""
    oracle = ExactOracle.of(
        chain((2,), Affine(torch.tensor([[1.0, 2.0], [0.0, 0.0]]), torch.tensor([-2.0, 0.0]))), -9.0, 9.0
    )
    found = [oracle.distance([3.0, 2.0], 0, norm) for norm in NORMS]
    assert found == [Fraction(5, 3), Fraction(5), Fraction(5, 2)]


def test_distances_end_at_corners_of_the_domain():
    """In [0, 1]^2 only (0, 0) is unsafe for x_0 + x_1: from (1, 1/2) it is 1, root of 5/4 and 3/2 away."""
    oracle = ExactOracle.of(chain((2,), Affine(torch.tensor([[1.0, 1.0], [0.0, 0.0]]))), 0.0, 1.0)
    assert [oracle.distance([1.0, 0.5], 0, norm) for norm in NORMS] == [Fraction(1), Fraction(5, 4), Fraction(3, 2)]


def test_maxima_cut_the_domain_where_their_winners_change():
    """max(x_0, x_1) against 3/4, and |x - (1, 0)| in the inf-norm against 1/2, from (0, 0) and from (1, 1/4)."""
    pooled = chain((1, 1, 2), MaxPool2d((1, 2), (1, 1)), Reshape((1,)), Affine(torch.tensor([[-1.0], [0.0]]), torch.tensor([0.75, 0.0])))  # fmt: skip # noqa: E501
    assert ExactOracle.of(pooled, 0.0, 1.0).distance([0.0, 0.0], 0, "2") == Fraction(9, 16)
    distances = Mwd(torch.tensor([[1.0, 1.0]]), torch.tensor([[1.0, 0.0]]), torch.tensor([True]), None, "linear")
    away = chain((2,), distances, Affine(torch.tensor([[-1.0], [0.0]]), torch.tensor([0.5, 0.0])))
    assert ExactOracle.of(away, 0.0, 1.0).distance([1.0, 0.25], 0, "inf") == Fraction(1, 4)


def test_an_input_that_ties_has_distance_zero():
    oracle = ExactOracle.of(chain((1,), Affine(torch.tensor([[1.0], [1.0]])), Relu()), 0.0, 1.0)
    assert [oracle.distance([0.5], 1, norm) for norm in NORMS] == [0, 0, 0]


def caught(seeds, pairs, word: str) -> set[int]:
    """Return the cases that fail with a word in the message."""
    return {seed for seed, message in fuzz(seeds, pairs=pairs, limit=5)[1].items() if word in message}


def test_proofs_of_balls_that_are_too_large_are_caught(monkeypatch):
    """Both oracles notice a method that looks at a ball a little smaller than the one it proves."""
    enclosure = BallRegion.enclosure
    monkeypatch.setattr(BallRegion, "enclosure", lambda self: enclosure(self.with_radius(0.8 * self.radius)))
    found = caught([2002, 2003], [("interval", "inf")], "UNSOUND")
    assert {draw_case(seed).oracle is None for seed in found} == {True, False}


def test_witnesses_that_are_farther_than_they_say_are_caught(monkeypatch):
    distance = BallRegion.distance
    monkeypatch.setattr(BallRegion, "distance", lambda self, points: 0.99 * distance(self, points))
    assert caught([2003], [("auto", "2")], "witness")


@pytest.mark.parametrize("method", ["alpha-crown", "auto"])
def test_slopes_before_a_layer_whose_bounds_are_constant_leave_nothing_to_optimise(method, tmp_path):
    """Found by the fuzzer: relu, then mwd, whose linear bounds are its box, so that the loss has no gradient."""
    distances = Mwd(torch.tensor([[1.0], [1.0]]), torch.tensor([[0.0], [1.0]]), torch.tensor([True, True]))
    front = Affine(torch.tensor([[1.0]]), torch.tensor([-0.5]))
    network = chain((1,), front, Relu(), distances, Affine(torch.eye(2)))
    write_network(network, tmp_path / "model.safetensors")
    x = torch.tensor([[0.9]])
    certify(
        tmp_path / "model.safetensors", (x, network.evaluate(x).argmax(dim=1)), [0.5], method=method, clip=(0.0, 1.0)
    )
