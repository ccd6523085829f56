"""Exact answers: equal to brute force in rationals, on relus, leaky relus and absolute values, and on MWD networks."""

import math

import pytest
import torch
from torch import Tensor

from encoders import write_network
from encoders.ops import Affine, Relu, Sigmoid
from tests.answers import bracketed, decided
from tests.networks.batches import random_batch, subject_of
from tests.networks.chains import chain, hinge_network, random_relu_network
from tests.networks.mwd_chains import random_mwd_network
from tests.oracles.polygons import least_margin
from tests.seeds import few_or, seeds
from verifier import certify
from verifier.batch import Batch
from verifier.bounds.split import branching
from verifier.bounds.split.search import decide_ball
from verifier.budget import Budget
from verifier.methods import METHODS
from verifier.methods.exact import ExactMethod
from verifier.verdict import Outcome

F64 = torch.float64


@pytest.mark.parametrize("seed", seeds(60, 200))
def test_every_answer_is_that_of_brute_force(seed):
    network = hinge_network(seed)
    batch = random_batch(network, 1, seed)
    region = batch.region((0.05, 0.12, 0.2, 0.4)[seed // 3 % 4])
    decision = decided(ExactMethod(), batch, region, Budget())
    ends = region.enclosure()
    exact = least_margin(network, ends.lower[0].tolist(), ends.upper[0].tolist(), int(batch.classes[0]))
    if bool(decision.certified[0]):
        assert exact > 0
    elif decision.witnesses:
        assert exact <= 0
    else:
        assert abs(exact) < 1e-9, "only a tie within rounding may stay open"


@pytest.mark.parametrize("seed", seeds(10, 100))
def test_answers_with_several_splits_at_once_are_those_of_brute_force(seed, monkeypatch):
    """All subproblems are split at whatever refuted halves imply; what is proved is proved by its certificate."""
    monkeypatch.setattr(branching, "DEEP", 0)
    network = random_relu_network(seed, (2, 9, 8, 3))
    batch = random_batch(network, 1, seed)
    region = batch.region((0.1, 0.2, 0.3, 0.5)[seed % 4])
    answer = decide_ball(network, region, int(batch.classes[0]), _never, Budget(), most_subproblems=10_000)
    ends = region.enclosure()
    exact = least_margin(network, ends.lower[0].tolist(), ends.upper[0].tolist(), int(batch.classes[0]))
    assert answer.proved == (exact > 1e-9)
    if answer.certificate is not None:
        answer.certificate.check(network)


@pytest.mark.parametrize("count", few_or(4, 12))
def test_both_answers_occur_and_the_border_is_sharp(count):
    """At the exact radius, found by bisection on the oracle, the answer turns within 1e-6."""
    turned = 0
    for seed in range(count):
        network = hinge_network(seed)
        batch = random_batch(network, 1, seed)
        low, high = 0.0, 0.5
        for _ in range(24):
            middle = (low + high) / 2
            ends = batch.region(middle).enclosure()
            exact = least_margin(network, ends.lower[0].tolist(), ends.upper[0].tolist(), int(batch.classes[0]))
            low, high = (middle, high) if exact > 0 else (low, middle)
        if not 0.0 < low < 0.49:
            continue
        turned += 1
        inside = decided(ExactMethod(), batch, batch.region(low - 1e-6), Budget())
        outside = decided(ExactMethod(), batch, batch.region(high + 1e-6), Budget())
        assert bool(inside.certified[0]) and not bool(outside.certified[0])
        assert outside.witnesses
    assert turned >= count / 3


@pytest.mark.parametrize("seed", seeds(1, 4))
def test_deeper_networks_leave_nothing_open_and_agree_with_the_other_methods(seed, tmp_path):
    network = random_relu_network(seed, (4, 12, 10, 8, 4))
    write_network(network, tmp_path / "model.safetensors")
    x = torch.rand(12, 4, generator=torch.Generator().manual_seed(seed))
    data = (x.numpy(), network.evaluate(x).argmax(dim=1).numpy())
    found = {
        name: certify(tmp_path / "model.safetensors", data, [0.03, 0.1], method=name, clip=(0, 1), out=None)
        for name in ("exact", "lp", "auto")
    }
    for row in found["exact"].results:
        assert row.open == 0 and row.certified_checked == row.certified
    for index, bracket in found["exact"].brackets.items():
        for other in ("lp", "auto"):
            assert bracket.lower < found[other].brackets[index].upper
            assert found[other].brackets[index].lower < bracket.upper
            assert found[other].brackets[index].at(0.03) in (bracket.at(0.03), Outcome.OPEN)


def test_mwd_networks_are_decided_by_contraction():
    network = random_mwd_network(5, (2, 6, 3))
    if ExactMethod().refusal(network) is not None:
        network = random_mwd_network(6, (2, 6, 3))
    batch = random_batch(network, 5, 0)
    decision = decided(METHODS["exact"], batch, batch.region(0.02), Budget())
    contraction = decided(METHODS["contraction"], batch, batch.region(0.02), Budget())
    assert not bool((contraction.certified & ~decision.certified).any())


def test_what_it_cannot_decide_is_refused_or_left_open_with_a_reason():
    curved = chain((4,), Affine(torch.randn(3, 4)), Sigmoid(), Affine(torch.randn(2, 3)))
    assert "sigmoid" in (ExactMethod().refusal(curved) or "")
    wide = chain((4000,), Affine(torch.zeros(4000, 4000)), Relu(), Affine(torch.zeros(4000, 4000)))
    assert "4,000 hinge units" in (ExactMethod().refusal(wide) or "") and "entries" in (
        ExactMethod().refusal(wide) or ""
    )
    network = random_relu_network(1, (4, 30, 30, 3))
    batch = random_batch(network, 1, 1)
    winner = int(batch.classes[0])
    answer = decide_ball(network, batch.region(0.3), winner, _never, Budget(), most_subproblems=1)
    assert not answer.proved and not answer.falsified
    assert "subproblems of the region" in answer.reason and answer.open_units > 10
    stopped = decide_ball(network, batch.region(0.3), winner, _never, Budget(0.0), most_subproblems=100)
    assert "time limit" in stopped.reason and not stopped.proved
    assert not bool(decided(ExactMethod(), batch, batch.region(0.001), Budget(0.0)).certified.any())


def test_networks_without_hinges_and_of_huge_weights_get_an_answer_or_a_reason():
    """A linear network whose blank input ties, and one whose numbers no linear program takes."""
    torch.manual_seed(0)
    linear = chain((4,), Affine(torch.randn(3, 4)))
    blank = Batch(subject_of(linear), torch.zeros(1, 4, dtype=F64), torch.zeros(1, dtype=torch.int64), (0,), None, 1.0)
    decision = decided(ExactMethod(), blank, blank.region(0.1), Budget())
    assert not bool(decision.certified[0]) and (decision.witnesses or "tie" in decision.reasons[0])
    huge = chain((4,), Affine(torch.randn(6, 4) * 1e20), Relu(), Affine(torch.randn(3, 6)))
    batch = random_batch(huge, 3, 0)
    decision = decided(ExactMethod(subproblems=200), batch, batch.region(0.3), Budget(20.0))
    for row in range(3):
        assert bool(decision.certified[row]) or row in decision.witnesses or decision.reasons[row]


def test_a_ball_of_ties_ends_soon_and_says_so():
    """Without biases the input 0 ties in every class: no proof exists, and the search need not visit every piece."""
    torch.manual_seed(1)
    network = chain(
        (4,), Affine(torch.randn(8, 4)), Relu(), Affine(torch.randn(7, 8)), Relu(), Affine(torch.randn(3, 7))
    )
    centre = torch.full((1, 4), 0.05, dtype=F64)
    batch = Batch(subject_of(network), centre, network.evaluate(centre.float()).argmax(dim=1), (0,), None, 1.0)
    answer = decide_ball(network, batch.region(0.06), int(batch.classes[0]), _never, Budget(), most_subproblems=10**6)
    assert not answer.proved and "tie" in answer.reason and answer.programs <= 16


@pytest.mark.parametrize("count", few_or(5, 20))
def test_without_attacks_a_counterexample_stays_open_and_is_never_certified(count):
    """The proof does not lean on the attack: subproblems that hold a counterexample are never closed."""
    broken = 0
    for seed in range(count):
        network = hinge_network(seed)
        batch = random_batch(network, 1, seed)
        region = batch.region(0.5)
        ends = region.enclosure()
        exact = least_margin(network, ends.lower[0].tolist(), ends.upper[0].tolist(), int(batch.classes[0]))
        if exact > 0:
            continue
        broken += 1
        answer = decide_ball(network, region, int(batch.classes[0]), _never, Budget(), most_subproblems=4000)
        # The search was told that its points are no counterexamples: then only the model's rounding can be the reason.
        words = ("within rounding of a tie", "execution and real arithmetic disagree")
        assert not answer.proved and any(word in answer.reason for word in words)
    assert broken >= count / 2


def _never(points: Tensor) -> bool:
    assert points.dim() == 2 and math.isfinite(float(points.sum()))
    return False


@pytest.mark.parametrize("count", few_or(2, 6))
def test_brackets_close_around_the_exact_radius(count):
    closed = 0
    for seed in range(count):
        network = hinge_network(seed)
        batch = random_batch(network, 1, seed)
        findings = bracketed(METHODS["restriction"], batch, (0.1, 0.3, 0.9), Budget())
        findings = bracketed(ExactMethod(gap=1e-5, refinements=60), batch, (), Budget(), findings)
        bracket = findings.brackets[0]
        if math.isinf(bracket.upper):
            continue
        closed += 1
        assert bracket.upper - max(bracket.lower, 0.0) <= 1e-5
        for radius, safe in ((bracket.lower, True), (bracket.upper, False)):
            ends = batch.region(max(radius, 0.0)).enclosure()
            exact = least_margin(network, ends.lower[0].tolist(), ends.upper[0].tolist(), int(batch.classes[0]))
            assert (exact > 0) is safe
    assert closed >= count * 2 / 3
