"""Integer programs as a method: equal to brute force and our own search, TRUSTED, and open whenever a solver fails."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from encoders import write_network
from encoders.formulations.relax import estimate
from encoders.network import INPUT, Network
from encoders.ops import Affine, MaxPool2d, Relu, Reshape, Sigmoid, Tanh
from encoders.region import BallRegion
from tests.answers import Seen, bracketed, decided
from tests.networks.batches import random_batch
from tests.networks.chains import chain, hinge_network, random_relu_network
from tests.networks.mwd_chains import random_mwd_network
from tests.networks.open_cases import RADII, open_case
from tests.oracles.ball_margin import exact_margin
from tests.programs.fake_solver import FakeSolver, with_solvers
from tests.seeds import few_or, seeds
from verifier import certify
from verifier.answers import Answer
from verifier.batch import Batch
from verifier.bounds.programs import milp
from verifier.bounds.programs.lp import MOST_ENTRIES
from verifier.bounds.programs.milp import Effort, ExactRows, MilpSearch, below
from verifier.bounds.programs.milp_radius import completed, distance_program
from verifier.budget import Budget
from verifier.methods import METHODS
from verifier.methods.exact import ExactMethod
from verifier.methods.milp import MilpMethod
from verifier.metrics import robustness_at
from verifier.solvers import HighsSolver, Solution, Termination
from verifier.verdict import Bracket, Outcome, Strength

F64 = torch.float64
# What a solver's tolerances and the method's own leave open around a tie.
NEAR_TIE = 1e-5
MILP, CBC = MilpMethod(), MilpMethod("pulp", name="milp-cbc")


@pytest.mark.parametrize("seed", seeds(12, 48))
def test_every_answer_is_that_of_brute_force(seed):
    network = hinge_network(seed)
    batch = random_batch(network, 1, seed)
    radius = RADII[seed // 3 % 4]
    exact = exact_margin(network, batch, radius)
    for method in (MILP, CBC) if seed < 12 else (MILP,):
        decision = decided(method, batch, batch.region(radius), Budget())
        if bool(decision.certified[0]):
            assert exact > 0
        elif decision.witnesses:
            assert exact <= 0
        else:
            assert abs(exact) < NEAR_TIE and decision.reasons[0]


@pytest.mark.parametrize("seed", seeds(1, 4))
def test_deeper_networks_get_the_answers_of_our_own_search(seed):
    network = random_relu_network(seed, (4, 12, 10, 8, 4))
    batch = random_batch(network, 12, seed)
    for radius in (0.03, 0.1):
        region = batch.region(radius)
        ours, theirs = (decided(m, batch, region, Budget()) for m in (ExactMethod(), MILP))
        assert ours.certified.tolist() == theirs.certified.tolist()
        assert set(ours.witnesses) == set(theirs.witnesses)
        assert not theirs.reasons


def grid_margin(network: Network, batch: Batch, region: BallRegion, count: int = 201) -> float:
    """Return the least margin on a dense grid of a two-dimensional ball."""
    ends = region.enclosure()
    axes = [torch.linspace(float(ends.lower[0, i]), float(ends.upper[0, i]), count, dtype=F64) for i in range(2)]
    points = torch.cartesian_prod(*axes).reshape(-1, *network.input_shape)
    outputs = network.cast(F64).evaluate(points)
    own = outputs[:, int(batch.classes[0])]
    others = outputs.clone()
    others[:, int(batch.classes[0])] = -math.inf
    return float((own - others.amax(dim=1)).min())


def test_curved_networks_are_proved_through_outer_rows_and_broken_only_by_replay():
    proved = broken = 0
    for seed in range(8):
        generator = torch.Generator().manual_seed(seed)
        first, second = torch.randn(4, 2, generator=generator) * 2, torch.randn(3, 4, generator=generator)
        network = chain((2,), Affine(first, -first.sum(dim=1) / 2), (Sigmoid(), Tanh())[seed % 2], Affine(second))
        batch = random_batch(network, 1, seed)
        for radius in (0.1, 0.3):
            decision = decided(MILP, batch, batch.region(radius), Budget())
            least = grid_margin(network, batch, batch.region(radius))
            assert not (bool(decision.certified[0]) and least <= 0)
            assert not (decision.witnesses and least > 0.01)
            proved, broken = proved + int(decision.certified[0]), broken + len(decision.witnesses)
    assert proved >= 4 and broken >= 2


def test_networks_with_maximum_pools_are_decided():
    settled = 0
    for seed in range(6):
        generator = torch.Generator().manual_seed(seed)
        weight = torch.randn(16, 2, generator=generator)
        pool = MaxPool2d((2, 2), (2, 2))
        network = chain(
            (2,), Affine(weight, 0.3 * torch.randn(16, generator=generator)), Reshape((1, 4, 4)), pool, Reshape((4,)),
            Relu(), Affine(torch.randn(3, 4, generator=generator)),
        )  # fmt: skip
        batch = random_batch(network, 1, seed)
        decision = decided(MILP, batch, batch.region(0.2), Budget())
        least = grid_margin(network, batch, batch.region(0.2))
        settled += bool(decision.certified[0]) or bool(decision.witnesses)
        assert bool(decision.certified[0]) is (least > 0) or abs(least) < 0.01
    assert settled == 6


@pytest.mark.parametrize("seed", seeds(2, 5))
def test_tiny_mwd_networks_get_the_answers_of_contraction(seed):
    network = random_mwd_network(seed, (2, 4, 3))
    batch = random_batch(network, 1, seed)
    for radius in (0.02, 0.1):
        exact, found = (decided(m, batch, batch.region(radius), Budget()) for m in (METHODS["exact"], MILP))
        assert exact.certified.tolist() == found.certified.tolist()
        assert set(exact.witnesses) == set(found.witnesses)


@pytest.mark.parametrize("count", few_or(2, 6))
@pytest.mark.parametrize("method", [MILP, CBC], ids=["milp", "milp-cbc"])
def test_minimised_radii_bracket_the_exact_one(method, count):
    closed = 0
    for seed in range(count):
        network = hinge_network(seed)
        batch = random_batch(network, 1, seed)
        findings = bracketed(METHODS["restriction"], batch, (0.1, 0.3, 0.9), Budget())
        if math.isinf(findings.brackets[0].upper):
            continue
        bracket = bracketed(method, batch, (), Budget(), findings).brackets[0]
        closed += 1
        assert bracket.lower == -1.0 and bracket.upper - bracket.trusted <= 1e-4
        assert exact_margin(network, batch, bracket.trusted) > 0
        assert exact_margin(network, batch, bracket.upper) <= 0
    assert closed >= count * 2 / 3


def test_a_radius_is_found_without_any_witness_to_start_from():
    """Within the largest requested radius, where our own attacks were not even asked."""
    found = 0
    for seed in range(6):
        network = hinge_network(seed)
        batch = random_batch(network, 1, seed)
        bracket = bracketed(MILP, batch, (0.02, 0.4), Budget()).brackets[0]
        if math.isinf(bracket.upper):
            assert bracket.trusted >= 0.4
            continue
        found += 1
        assert bracket.upper - bracket.trusted <= 1e-4
        assert exact_margin(network, batch, bracket.upper) <= 0 < exact_margin(network, batch, bracket.trusted)
    assert found >= 3


def test_a_start_from_a_witness_satisfies_the_exact_rows_of_hinges():
    for seed in range(9):
        network = hinge_network(seed, (2, 8, 6, 3))
        batch = random_batch(network, 1, seed)
        rows = ExactRows(network, batch.region(0.3))
        relaxed = rows.encoded(4)
        centre = rows.region.centre.flatten().numpy()
        inputs, difference = relaxed.columns[INPUT], np.array([1.0, -1.0, 0.0])
        generator = torch.Generator().manual_seed(seed)
        for _ in range(5):
            x = rows.region.lower + torch.rand(1, 2, generator=generator) * (rows.region.upper - rows.region.lower)
            y = rows.network.evaluate(x)[0].numpy()
            # The row as the point has it: then it is one of the program, whatever its class.
            model = distance_program(below(relaxed, difference, difference @ y), inputs, centre, 0.0, 0.3)
            distance = float(np.abs(x.flatten().numpy() - centre).max())
            start = completed(relaxed, model, x, distance)
            assert start is not None and model.violation(start) <= 1e-7
            assert start[relaxed.columns[INPUT]] == pytest.approx(x.flatten().numpy()) and start[-1] == distance
            assert set(start[model.integer].tolist()) <= {0.0, 1.0}


# ------------------------------------------------------------------------------------ what solvers may do wrong


@pytest.mark.parametrize(
    "answer",
    [
        Solution(Termination.STOPPED, stats={"status": "the worker process of highs died (signal SIGSEGV)"}),
        Solution(Termination.STOPPED, stats={"status": "the worker process of highs was killed after 1 s"}),
        Solution(Termination.STOPPED, stats={"status": "Time limit reached"}, bound=-0.5),
        Solution(Termination.UNBOUNDED, stats={"status": "unbounded"}),
        Solution(Termination.OPTIMAL, None, None, 1e-9, stats={"status": "a bound within tolerance"}),
    ],
    ids=lambda s: s.stats["status"],
)
def test_what_a_solver_does_not_prove_stays_open_with_the_reason(answer):
    _, batch, radius = open_case()
    decision = decided(with_solvers(FakeSolver(lambda *_: answer)), batch, batch.region(radius), Budget())
    assert not bool(decision.certified[0]) and not decision.witnesses
    assert answer.stats["status"] in decision.reasons[0] and "binaries" in decision.reasons[0]


def test_a_point_that_does_not_replay_is_asked_for_again_with_smaller_tolerances_and_then_open():
    _, batch, radius = open_case()

    def point(model, _):
        middle = (model.col_lower + model.col_upper) / 2
        return Solution(Termination.OPTIMAL, middle, None, -1.0)

    solver = FakeSolver(point)
    decision = decided(with_solvers(solver), batch, batch.region(radius), Budget())
    assert not bool(decision.certified[0]) and not decision.witnesses
    assert "does not replay" in decision.reasons[0]
    assert [asked.tolerance for asked in solver.asked] == [None, 1e-8, 1e-9]
    assert math.isfinite(solver.asked[0].target) and math.isinf(solver.asked[1].target)


def test_a_bound_above_the_tolerance_or_infeasible_proves_and_the_second_must_agree():
    _, batch, radius = open_case()
    region = batch.region(radius)
    yes = FakeSolver(lambda *_: Solution(Termination.INFEASIBLE, bound=math.inf))
    high = FakeSolver(lambda *_: Solution(Termination.STOPPED, bound=0.1))
    no = FakeSolver(lambda model, _: Solution(Termination.OPTIMAL, model.col_lower, None, -1.0))
    silent = FakeSolver(lambda *_: Solution(Termination.STOPPED, stats={"status": "crashed"}))
    assert bool(decided(with_solvers(yes), batch, region, Budget()).certified[0])
    assert bool(decided(with_solvers(yes, high), batch, region, Budget()).certified[0])
    contradicted = decided(with_solvers(yes, no), batch, region, Budget())
    assert not bool(contradicted.certified[0]) and "contradict each other" in contradicted.reasons[0]
    unheard = decided(with_solvers(yes, silent), batch, region, Budget())
    assert not bool(unheard.certified[0]) and "no second opinion" in unheard.reasons[0]


def test_a_second_opinion_of_cbc_agrees_with_highs():
    _, batch, radius = open_case()
    both = MilpMethod("highs", "pulp")
    assert bool(decided(both, batch, batch.region(radius), Budget()).certified[0])


def test_a_wrong_bound_on_the_radius_never_makes_a_contradiction():
    """A solver that says far too much against a witness that replays: the bracket stays, with the reason."""
    network = hinge_network(0)
    batch = random_batch(network, 1, 0)
    findings = bracketed(METHODS["restriction"], batch, (0.9,), Budget())
    upper = findings.brackets[0].upper
    assert math.isfinite(upper)
    truth = HighsSolver()

    def liar(model, settings):
        found = truth.solve(model, 10.0, settings)
        return found if found.primal is None else dataclasses.replace(found, bound=float(found.primal[-1]) + 0.05)

    before = dataclasses.replace(findings.brackets[0], lower=0.0, upper=0.9)
    worse = bracketed(with_solvers(FakeSolver(liar)), batch, (), Budget(), before)
    assert worse.brackets[0].lower == 0.0 and worse.brackets[0].trusted < worse.brackets[0].upper
    assert worse.brackets[0].upper == pytest.approx(upper, abs=1e-4)
    assert "counterexample" in worse.reasons[0]


def test_trusted_proofs_never_count_as_certified(tmp_path):
    network, batch, radius = open_case()
    bracket = bracketed(METHODS["milp"], batch, [radius], Budget()).brackets[0]
    assert bracket.at(radius) is Outcome.OPEN and bracket.only_trusted_at(radius)
    row = robustness_at(radius, [bracket], 1)
    assert (row.certified, row.trusted, row.open, row.certified_accuracy) == (0, 1, 1, 0.0)
    assert METHODS["milp"].strength is Strength.TRUSTED and METHODS["exact"].strength is Strength.CHECKED
    write_network(network, tmp_path / "model.safetensors")
    data = (batch.centres.float().numpy(), batch.classes.numpy())
    found = certify(tmp_path / "model.safetensors", data, [0.0, radius], method="milp", clip=(0, 1), out=None)
    assert [result.certified_checked for result in found.results] == [1, 0]
    assert [result.trusted for result in found.results] == [0, 1]


# ------------------------------------------------------------------------------------ limits and refusals


def test_a_missing_solver_is_named_and_a_solver_without_integers_refused():
    network = hinge_network(0)
    assert "GUROBI" in (MilpMethod("pulp:GUROBI_CMD").refusal(network) or "")
    assert "unknown solver 'nothing'" in (MilpMethod("highs", "nothing").refusal(network) or "")
    assert "integer" in (MilpMethod("cvxpy").refusal(network) or "")
    assert MILP.refusal(network) is None and CBC.refusal(network) is None


def test_networks_without_exact_rows_or_too_large_are_refused_before_anything_is_built():
    wide = chain((4000,), Affine(torch.zeros(4000, 4000)), Relu(), Affine(torch.zeros(4000, 4000)))
    assert "entries" in (MILP.refusal(wide) or "")
    for network in (random_mwd_network(0), chain((2,), Affine(torch.eye(2)), Sigmoid())):
        reason = MILP.refusal(network)
        if reason is not None:
            assert "needs exact rows" in reason and not all("exact" in node.op.views() for node in network.nodes)


def test_networks_whose_exact_rows_alone_are_too_large_are_refused_with_their_size(monkeypatch):
    """Before a ball is known; and at the ball, once more segments would make them too large."""
    wide = chain((1, 800, 800), MaxPool2d((3, 3), (1, 1)))
    rows, entries = estimate(wide, "exact")
    # 798^2 windows: 28 entries each in the relaxation, 83 in the exact rows.
    assert estimate(wide)[1] == 798**2 * 28 < MOST_ENTRIES < 798**2 * 83 == entries
    assert f"{rows:,} rows with {entries:,} entries" in (MILP.refusal(wide) or "")
    generator = torch.Generator().manual_seed(0)
    first, second = torch.randn(6, 2, generator=generator), torch.randn(3, 6, generator=generator)
    network = chain((2,), Affine(first), Tanh(), Affine(second))
    most = estimate(network, "exact", 16)[1] - 1
    monkeypatch.setattr(milp, "MOST_ENTRIES", most)
    assert estimate(network)[1] < estimate(network, "exact")[1] < most and MILP.refusal(network) is None
    exact = ExactRows(network, random_batch(network, 1, 0).region(0.1))
    assert not isinstance(exact.encoded(4), str)
    monkeypatch.setattr(milp, "encode_exactly", None)
    assert f"with {most + 1:,} entries, more than the {most:,}" in exact.encoded(16)


def test_the_reason_of_an_open_requested_ball_outlives_that_of_the_radius():
    """A solver that names its question: the ball's stays while the ball is open, else the radius's is the one."""
    _, batch, radius = open_case()

    def answer(model, settings):
        question = "ball" if settings.gap == 0.0 else "radius"
        return Solution(Termination.STOPPED, stats={"status": f"asked about the {question}"})

    def reason_of(solver: FakeSolver, *epsilons: float) -> str:
        findings = bracketed(with_solvers(solver), batch, epsilons, Budget(), Bracket(lower=0.0, upper=0.9))
        assert [s.gap > 0.0 for s in solver.asked][-1]
        return findings.reasons[0]

    assert "asked about the ball" in reason_of(FakeSolver(answer), radius)
    assert "asked about the radius" in reason_of(FakeSolver(answer))
    yes = Solution(Termination.INFEASIBLE, bound=math.inf)
    proves_balls = FakeSolver(lambda model, settings: yes if settings.gap == 0.0 else answer(model, settings))
    assert "asked about the radius" in reason_of(proves_balls, radius)


def test_limits_leave_open_with_the_reason(monkeypatch):
    _, batch, radius = open_case()
    region = batch.region(radius)
    out_of_time = decided(MILP, batch, region, Budget(0.0))
    assert not bool(out_of_time.certified[0]) and out_of_time.reasons == {0: "time limit"}
    hard = random_relu_network(3, (6, 40, 40, 40, 3))
    several = random_batch(hard, 1, 3)
    decision = decided(MilpMethod(nodes=1), several, several.region(0.3), Budget(20.0))
    if not decision.witnesses:
        assert "nodes" in decision.reasons[0] and not bool(decision.certified[0])
    monkeypatch.setattr(milp, "MOST_BINARIES", 3)
    decision = decided(MILP, batch, region, Budget())
    assert not bool(decision.certified[0]) and "binaries, more than the 3" in decision.reasons[0]
    findings = bracketed(MILP, batch, (), Budget(), Bracket(lower=0.0, upper=0.4))
    assert findings.brackets[0].lower == 0.0 and "binaries" in findings.reasons[0]


def test_a_solver_of_a_larger_radius_does_not_weaken_what_others_proved_at_a_requested_one():
    network = hinge_network(0)
    batch = random_batch(network, 1, 0)
    proved = Bracket().raise_lower(0.01, "crown", Strength.CHECKED).lower_upper(0.4, "attack")
    bracket = bracketed(MILP, batch, (0.01,), Budget(), proved).brackets[0]
    assert (bracket.lower, bracket.lower_method, bracket.strength) == (0.01, "crown", Strength.CHECKED)
    assert bracket.at(0.01) is Outcome.CERTIFIED
    assert bracket.upper - bracket.trusted <= 1e-4 and bracket.trusted_method == "milp"


def test_a_witness_within_a_trusted_end_is_noted_as_a_refutation():
    """Whoever finds it: the answer names the pair, and the proof of the lower end keeps its certificate."""
    network = hinge_network(0)
    batch = random_batch(network, 1, 0)
    yes = FakeSolver(lambda *_: Solution(Termination.INFEASIBLE, bound=math.inf))
    proof = Answer.proved(0.0, "crown", Strength.CHECKED, object())
    trusting = bracketed(with_solvers(yes), batch, (0.9,), Budget(), Seen([proof]))
    assert trusting.brackets[0].trusted >= 0.9 and trusting.answers[0].certificate is proof.certificate
    (answer,) = bracketed(METHODS["restriction"], batch, (0.9,), Budget(), trusting).answers
    assert answer.at(0.9) is Outcome.FALSIFIED and answer.bracket.trusted < answer.bracket.upper <= 0.9
    assert answer.refuted[0] == "milp" and answer.certificate is proof.certificate


def test_rows_that_cannot_be_built_leave_open_with_the_reason(monkeypatch):
    _, batch, radius = open_case()

    def refuse(*_):
        raise ValueError("mwd has rows with binaries on bounded boxes only")

    monkeypatch.setattr(milp, "encode_exactly", refuse)
    decision = decided(MILP, batch, batch.region(radius), Budget())
    assert not bool(decision.certified[0]) and "no program: mwd has rows" in decision.reasons[0]


def test_an_answer_counts_what_it_cost():
    network, batch, radius = open_case()
    rows = ExactRows(network, batch.region(radius))
    search = MilpSearch(rows, lambda _: False, MILP.solvers, Effort(Budget()))
    reference = int(batch.classes[0])
    answers = [search.decide(np.eye(3)[[reference]] - np.eye(3)[[k]]) for k in range(3) if k != reference]
    assert all(answer.proved for answer in answers)
    assert answers[1].programs == 2 and answers[1].seconds > 0 and answers[1].binaries > 0


@pytest.mark.parametrize("name", ["lp", "milp", "exact"])
def test_the_units_that_boxes_leave_open_are_counted_alike(name):
    network, batch, radius = open_case()
    counted = int(ExactRows(network, batch.region(radius)).encoded(4).binaries)
    decision = decided(METHODS[name], batch, batch.region(radius), Budget())
    assert counted > 0
    # Our own search begins with boxes of its own, which may leave a unit more or less.
    assert decision.open_units[0] == (counted if name != "exact" else pytest.approx(counted, abs=2))


def test_out_of_time_has_a_reason_in_the_portfolio():
    _, batch, radius = open_case()
    portfolio = decided(METHODS["milp"], batch, batch.region(radius), Budget(0.0))
    assert portfolio.reasons == {0: "time limit"}
