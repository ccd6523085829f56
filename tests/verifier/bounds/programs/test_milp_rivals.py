"""All rivals in one integer program: the answers of one program each, and rows that mean "one of them is small"."""

import dataclasses
import math
from fractions import Fraction

import numpy as np
import pytest
import torch

from encoders.network import INPUT
from tests.answers import bracketed, decided
from tests.networks.batches import random_batch
from tests.networks.chains import hinge_network, random_relu_network
from tests.oracles.ball_margin import exact_margin
from tests.programs.fake_solver import FakeSolver, with_solvers
from tests.seeds import seeds
from verifier.batch import Batch
from verifier.bounds.programs.milp import TOLERANCE, Effort, ExactRows, MilpSearch
from verifier.bounds.programs.milp_radius import RadiusSearch, completed, distance_program
from verifier.bounds.programs.milp_rivals import some_below
from verifier.budget import Budget
from verifier.methods.milp import MilpMethod
from verifier.solvers import HighsSolver, Solution, Termination

ONE, TOGETHER = MilpMethod(), MilpMethod(together=True)
CBC = MilpMethod("pulp", name="milp-cbc", together=True)
# What solvers let rows and binaries miss, times the size of the numbers here.
SOLVER = 1e-5


def differences(batch: Batch, classes: int) -> np.ndarray:
    """Return y_c - y_k for all rivals k as rows `(classes - 1, classes)`."""
    reference = int(batch.classes[0])
    return np.eye(classes)[[reference]] - np.delete(np.eye(classes), reference, axis=0)


class Replay:
    """Looks at points in float64, where one counts that a rival is within SOLVER of, and keeps the nearest distance."""

    def __init__(self, exact: ExactRows, rows: np.ndarray) -> None:
        self.exact, self.rows, self.distance = exact, rows, math.inf

    def __call__(self, points: torch.Tensor) -> float:
        margins = self.exact.network.evaluate(points).numpy() @ self.rows.T
        steps = (points - self.exact.region.centre).abs().flatten(1).amax(dim=1)
        beaten = steps[torch.from_numpy(margins.min(axis=1) <= SOLVER)].tolist()
        self.distance = min([self.distance, *beaten])
        return self.distance

    def attack(self, points: torch.Tensor) -> bool:
        return math.isfinite(self(points))


@pytest.mark.parametrize("seed", seeds(2, 16))
def test_one_program_for_all_rivals_has_the_sign_of_one_program_each(seed):
    """Of all rivals, those included that linear bounds would have settled."""
    network = random_relu_network(seed, (4, 14, 10, 6))
    batch = random_batch(network, 2, seed)
    for row in range(2):
        one = batch.at(torch.tensor([row]))
        rows = differences(one, 6)
        for radius in (0.03, 0.1, 0.25):
            exact = ExactRows(network, one.region(radius))
            search = MilpSearch(exact, Replay(exact, rows).attack, ONE.solvers, Effort(Budget()))
            together, each = search.decide(rows), [search.decide(rows[[k]]) for k in range(5)]
            assert together.programs == 1 and together.proved is not together.falsified
            assert together.falsified is any(answer.falsified for answer in each)
            assert together.proved is all(answer.proved for answer in each)


@pytest.mark.parametrize("seed", seeds(2, 8))
def test_the_least_radius_of_one_program_for_all_rivals_is_that_of_one_program_each(seed):
    network = random_relu_network(seed, (3, 12, 8, 5))
    batch = random_batch(network, 1, seed)
    exact, rows = ExactRows(network, batch.region(0.4)), differences(batch, 5)
    found = []
    for together in (False, True):
        effort = Effort(Budget())
        search = RadiusSearch(exact, Replay(exact, rows), ONE.solvers[0], effort, 1e-4, together)
        found.append(search.minimise(torch.from_numpy(rows), 0.0, None, math.inf))
        assert effort.programs == 1 or not together
    each, all_of_them = found
    if math.isinf(each.upper):
        assert math.isinf(all_of_them.upper) and each.lower == all_of_them.lower
        return
    assert each.upper == pytest.approx(all_of_them.upper, abs=1e-4)
    assert each.lower == pytest.approx(all_of_them.lower, abs=1e-4)
    assert 0.0 <= all_of_them.upper - all_of_them.lower <= 1e-4


@pytest.mark.parametrize("seed", seeds(4, 12))
def test_one_program_for_all_rivals_has_the_sign_of_brute_force(seed):
    network = hinge_network(seed, (2, 5, 4, 4))
    batch = random_batch(network, 1, seed)
    radius = (0.05, 0.2, 0.4)[seed // 3 % 3]
    exact = exact_margin(network, batch, radius)
    assert abs(exact) > SOLVER
    for method in (TOGETHER, CBC):
        decision = decided(method, batch, batch.region(radius), Budget())
        assert bool(decision.certified[0]) is (exact > 0) and bool(decision.witnesses) is (exact <= 0)


@pytest.mark.parametrize("seed", seeds(1, 4))
def test_brackets_of_one_program_for_all_rivals_are_those_of_one_program_each(seed):
    network = random_relu_network(seed, (3, 10, 8, 5))
    batch = random_batch(network, 2, seed)
    found = []
    for method in (ONE, TOGETHER):
        found.append(bracketed(method, batch, (0.05, 0.3), Budget()).brackets)
    for each, all_of_them in zip(*found, strict=True):
        if math.isinf(each.upper):
            assert math.isinf(all_of_them.upper) and min(each.trusted, all_of_them.trusted) >= 0.3
            continue
        for bracket in (each, all_of_them):
            assert bracket.upper - bracket.trusted <= 1e-4
        assert max(each.trusted, all_of_them.trusted) < min(each.upper, all_of_them.upper)
        assert each.upper == pytest.approx(all_of_them.upper, abs=1e-4)


@pytest.mark.parametrize("seed", seeds(3, 12))
def test_with_the_input_fixed_the_optimum_is_the_least_margin_or_there_is_none(seed):
    network = hinge_network(seed, (2, 6, 5, 4))
    batch = random_batch(network, 1, seed)
    exact = ExactRows(network, batch.region(0.3))
    relaxed, rows = exact.encoded(4), differences(batch, 4)
    generator = torch.Generator().manual_seed(seed)
    places = relaxed.columns[INPUT]
    for _ in range(3):
        share = torch.rand(1, 2, generator=generator)
        x = exact.region.lower + share * (exact.region.upper - exact.region.lower)
        margins = rows @ exact.network.evaluate(x)[0].numpy()
        for most in (margins.min() + 0.1, margins.min() - 0.1):
            for compare in (True, False):
                model = exact.program(relaxed, rows, most, compare)
                lower, upper = model.col_lower.copy(), model.col_upper.copy()
                lower[places] = upper[places] = x.flatten().numpy()
                answer = HighsSolver().solve(dataclasses.replace(model, col_lower=lower, col_upper=upper), 10.0)
                if most < margins.min():
                    assert answer.termination is Termination.INFEASIBLE
                else:
                    expected = margins.min() if compare else most
                    assert answer.termination is Termination.OPTIMAL
                    assert model.cost @ answer.primal == pytest.approx(expected, abs=SOLVER)


@pytest.mark.parametrize("seed", range(4))
def test_constants_are_rounded_up_and_bounds_of_rows_hold(seed):
    network = hinge_network(seed, (2, 6, 5, 4))
    batch = random_batch(network, 1, seed)
    exact = ExactRows(network, batch.region(0.3))
    relaxed, rows = exact.encoded(4), differences(batch, 4)
    share = torch.rand(200, 2, generator=torch.Generator().manual_seed(seed))
    x = exact.region.lower + share * (exact.region.upper - exact.region.lower)
    margins = exact.network.evaluate(x).numpy() @ rows.T
    greatest = exact.greatest(rows)
    assert (margins <= greatest).all() and (-margins <= exact.greatest(-rows)).all()
    generator = np.random.default_rng(seed)
    for _ in range(50):
        ends, least = generator.normal(size=3) * 3.0, -float(generator.random())
        model = some_below(relaxed, rows, ends, least, TOLERANCE)
        for end, constant in zip(ends.tolist(), model.row_upper[-4:-1].tolist(), strict=True):
            # With its binary at 0 and m at its least the row allows all that is possible.
            assert Fraction(least) + Fraction(constant) >= Fraction(end) and constant > 0


def test_a_start_that_several_rivals_beat_satisfies_the_program():
    tried = 0
    for seed in range(9):
        network = hinge_network(seed, (2, 8, 6, 4))
        batch = random_batch(network, 1, seed)
        exact = ExactRows(network, batch.region(0.4))
        relaxed, centre = exact.encoded(4), exact.region.centre.flatten().numpy()
        generator = torch.Generator().manual_seed(seed)
        x = exact.region.lower + torch.rand(1, 2, generator=generator) * (exact.region.upper - exact.region.lower)
        # Rows against the class that is last at this point: all three are below zero.
        worst = int(exact.network.evaluate(x)[0].argmin())
        rows = np.eye(4)[[worst]] - np.delete(np.eye(4), worst, axis=0)
        beaten = exact.program(relaxed, rows, 0.0, compare=False)
        model = distance_program(beaten, relaxed.columns[INPUT], centre, 0.0, 0.4)
        start = completed(relaxed, model, x, float(np.abs(x.flatten().numpy() - centre).max()))
        assert start is not None and model.violation(start) <= 1e-7
        assert start[beaten.columns - 3 : beaten.columns].tolist() == [1.0, 0.0, 0.0]
        tried += 1
    assert tried == 9


@pytest.mark.parametrize(("seed", "radius", "count"), [(4, 0.17, 4), (22, 0.17, 4), (23, 0.08, 3)])
def test_all_open_rivals_are_asked_about_once_and_named_when_they_stay_open(seed, radius, count):
    network = random_relu_network(seed, (4, 14, 10, 6))
    batch = random_batch(network, 1, seed)
    region = batch.region(radius)
    least, _ = ExactRows(network, region).least(torch.from_numpy(differences(batch, 6)))
    assert int((least <= 0).sum()) == count
    stopped = FakeSolver(lambda *_: Solution(Termination.STOPPED, stats={"status": "crashed"}))
    decision = decided(with_solvers(stopped, together=True), batch, region, Budget())
    assert len(stopped.asked) == 1 and not bool(decision.certified[0])
    assert "crashed" in decision.reasons[0] and decision.reasons[0].split(":")[0].count(",") == count - 1
    proved = decided(TOGETHER, batch, region, Budget())
    assert bool(proved.certified[0]) or proved.witnesses
