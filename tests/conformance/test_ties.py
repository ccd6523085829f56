"""A tie is a counterexample, and is decided without rounding: the cases that were left open, by their right values."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch

from encoders.formats import open_runtime, read_network
from encoders.ops import AddConstant, Affine, Mwd, Relu, Sigmoid
from encoders.region import BallRegion
from tests.answers import bracketed
from tests.conftest import REPOSITORY
from tests.networks.batches import batch_of
from tests.networks.chains import chain
from verifier import certify
from verifier.bounds.interval import reaches_at, refute_at
from verifier.budget import Budget
from verifier.certificates.counterexample import ClaimError, check_witness
from verifier.commands.check import check
from verifier.methods import METHODS
from verifier.verdict import Outcome
from verifier.witnesses.confirm import confirm, own_ties

CASES = REPOSITORY / "tests" / "cases" / "ties"


def around(x: np.ndarray, domain=None) -> BallRegion:
    """Return the ball of radius 0 around an input."""
    return BallRegion(torch.from_numpy(x[None].astype(np.float64)), torch.zeros(1, dtype=torch.float64), domain)


def case(name: str):
    """Return (network, inputs, labels) of a case."""
    data = np.load(CASES / f"{name}.npz")
    return read_network(CASES / f"{name}.onnx"), data["x"], data["y"]


@pytest.mark.parametrize("epsilon", [0.0, 1e-6, 0.2])
def test_two_identical_rows_tie_everywhere_and_are_falsified_at_any_radius(epsilon):
    found = certify(CASES / "tied.onnx", CASES / "tied.npz", [epsilon], clip=(0, 1)).to_json()
    assert [found["results"][0][name] for name in ("certified", "falsified", "open")] == [0, 6, 0]


@pytest.mark.parametrize("method", ["auto", "exact"])
def test_inputs_whose_outputs_are_all_zero_tie_at_radius_zero(method, tmp_path):
    """Ten of the twelve: the outputs of inputs 5 and 10 are (0, .06, 0), which nothing within .001 reaches."""
    network, x, _ = case("axes")
    flat = (network.evaluate(x) == 0).all(dim=1)
    assert int(flat.sum()) == 10
    arguments = (CASES / "axes.onnx", CASES / "axes.npz", [0.0, 0.001])
    found = certify(*arguments, clip=(0, 1), method=method, out=tmp_path)
    for result in found.to_json()["results"]:
        assert [result[name] for name in ("certified", "falsified", "open")] == [2, 10, 0]
    checked = check(tmp_path, allow_uncertified=True)
    assert not checked.refused and checked.witnesses == 10


def test_an_input_that_ties_has_upper_zero_and_no_lower_end():
    network, x, y = case("axes")
    batch = batch_of(network, torch.from_numpy(x[:1]), torch.from_numpy(y[:1]), open_runtime(CASES / "axes.onnx"))
    (bracket,) = bracketed(METHODS["auto"], batch, [0.1], Budget()).brackets
    assert bracket.upper == 0.0 and bracket.lower < 0.0
    assert bracket.at(0.0) is Outcome.FALSIFIED
    witness = own_ties(batch, "attack")[0].witness
    assert witness.tie and witness.distance == 0.0


def test_the_checker_accepts_an_exact_tie_and_refuses_its_neighbours():
    network, x, _ = case("tied")
    runtime = open_runtime(CASES / "tied.onnx")
    check_witness(network, runtime, around(x[0], (0.0, 1.0)), x[0], 0, 0.0)
    # Class 0 is above class 1 by 2^-60: a tie in float32, none in real arithmetic.
    near = chain(
        (1,), Affine(torch.ones(2, 1, dtype=torch.float64)), AddConstant(torch.tensor([2.0**-60, 0.0]).double())
    )
    at = np.ones(1)
    with pytest.raises(ClaimError, match=r"in real arithmetic it is not shown to be unsafe$"):
        check_witness(near, lambda v: np.ones((1, 2)), around(at), at, 0, 0.0)


def test_the_checker_says_why_it_cannot_decide():
    hidden = chain((1,), Sigmoid(), Affine(torch.tensor([[1.0], [1.0]])), Sigmoid(), Affine(torch.eye(2)))
    at = np.ones(1, dtype=np.float32)
    with pytest.raises(
        ClaimError, match=r"shown to be unsafe: node '0-sigmoid' \(sigmoid\) leaves the rational numbers"
    ):
        check_witness(hidden, lambda v: np.ones((1, 2)), around(at), at, 0, 0.0)


@pytest.mark.parametrize("seed", range(20))
def test_points_on_a_boundary_are_decided_as_fractions_decide_them(seed):
    """y_0 - y_1 = w . x - w . p, computed beside: at floats near p no enclosure tells its sign."""
    generator = torch.Generator().manual_seed(seed)
    weight, p = torch.randn(3, generator=generator), torch.rand(3, generator=generator)
    bias = -(weight * p).sum()
    hinges = torch.cat([torch.eye(3), -torch.eye(3)])
    last = torch.cat([weight, -weight])[None] * torch.tensor([[1.0], [0.0]])
    network = chain((3,), Affine(hinges), Relu(), Affine(last, torch.stack([bias, torch.tensor(0.0)])))
    steps = torch.randint(-3, 4, (30, 3), generator=generator) * torch.finfo(torch.float32).eps / 4
    points = torch.cat([p[None], p + steps])
    found = refute_at(network, points, torch.zeros(len(points), dtype=torch.int64))
    expected = [
        sum(Fraction(float(a)) * Fraction(float(b)) for a, b in zip(weight, point, strict=True)) + Fraction(float(bias))
        <= 0
        for point in points
    ]
    assert found.refuted.tolist() == expected
    assert not found.undecided and sum(expected) > 0


def test_a_point_whose_order_is_unknown_says_why_and_counts_as_execution_only():
    hidden = chain((1,), Sigmoid(), Affine(torch.tensor([[1.0], [1.0]])), Sigmoid(), Affine(torch.eye(2)))
    batch = batch_of(hidden, torch.full((1, 1), 0.5), torch.tensor([0]))
    (shown,) = confirm(batch, batch.region(0.1), torch.full((1, 1), 0.55), "attack")
    assert shown.witness is None and shown.execution_only is not None
    assert "0-sigmoid" in (shown.reason or "")


def test_a_target_is_reached_by_an_exact_tie():
    network, x, _ = case("tied")
    points = torch.from_numpy(x[:2])
    assert reaches_at(network, points, torch.tensor([1, 0])).tolist() == [True, True]
    assert reaches_at(network, points, torch.tensor([2, 2])).tolist() == [False, False]


def test_infinite_and_undefined_outputs_are_no_counterexamples():
    network = chain((1,), Affine(torch.tensor([[1.0], [1.0]]), torch.tensor([1.0, 0.0])))
    for odd in (math.nan, math.inf, -math.inf):
        batch = batch_of(
            network, torch.full((1, 1), 0.5), torch.tensor([0]), lambda x, odd=odd: np.full((len(x), 2), odd)
        )
        assert own_ties(batch, "attack")[0].witness is None
        (shown,) = confirm(batch, batch.region(0.1), torch.full((1, 1), 0.55), "attack")
        assert shown.witness is None


def test_a_mixed_last_mwd_layer_is_undecided_by_name_only_where_its_intervals_are():
    op = Mwd(torch.ones(2, 1), torch.tensor([[0.0], [1.0]]), torch.tensor([False, True]))
    network = chain((1,), op)
    # exp(-x^2) against 1 - exp(-(x - 1)^2): 1 > .63 at 0, .37 > 0 at 1.
    found = refute_at(network, torch.tensor([[0.0], [1.0]]), torch.tensor([0, 1]))
    assert found.refuted.tolist() == [False, True] and not found.undecided
