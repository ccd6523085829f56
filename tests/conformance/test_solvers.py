"""One suite for every backend of the table, and what HiGHS alone can do."""

import math

import numpy as np
import pytest
from scipy.sparse import csr_array

from tests.programs.linear_models import CORNER, INFEASIBLE, model
from verifier.solvers import SOLVERS, Termination, WarmModel, find_solver
from verifier.solvers.cvxpy_backend import CvxpySolver

# Interior point and first-order solvers end within about 1e-7; PuLP hands over 13 digits.
TOLERANCE = 1e-5


@pytest.fixture(params=SOLVERS)
def solver(request):
    return SOLVERS[request.param]


def test_value_point_and_dual_of_a_corner(solver):
    solution = solver.solve(CORNER)
    assert solution.termination is Termination.OPTIMAL
    assert solution.primal == pytest.approx([3, 1], abs=TOLERANCE)
    assert solution.row_dual == pytest.approx([-2, 0], abs=TOLERANCE)
    assert solution.bound == pytest.approx(-11, abs=TOLERANCE)


def test_weak_duality_is_tight_and_the_point_feasible_on_random_models(solver):
    random = np.random.default_rng(1)
    for _ in range(10):
        matrix, x = random.normal(size=(5, 4)), random.uniform(-1, 1, size=4)
        value = matrix @ x
        lower = np.array([value[0], -math.inf, value[2] - 1, value[3] - 0.1, -math.inf])
        upper = np.array([value[0], value[1], math.inf, value[3] + 0.2, value[4] + 1])
        some = model(random.normal(size=4), matrix, lower, upper, -np.ones(4), np.ones(4))
        solution = solver.solve(some)
        assert solution.termination is Termination.OPTIMAL
        assert some.violation(solution.primal) <= TOLERANCE
        # Both sides of strong duality: a wrong sign of any multiplier would open a gap.
        assert solution.bound == pytest.approx(some.cost @ solution.primal, abs=TOLERANCE)


def test_infeasible_is_said_only_of_infeasible_models(solver):
    solution = solver.solve(INFEASIBLE)
    assert solution.termination is Termination.INFEASIBLE
    assert solution.primal is None and solution.bound == math.inf


@pytest.mark.parametrize("size", [1e25, 1e-25, 1e300, 1e-300])
def test_bounds_beyond_the_solvers_own_infinity_and_zero_are_solved(solver, size):
    """HiGHS takes 1e20 for infinity and 1e-9 for zero; in units of the model there is neither."""
    solution = solver.solve(model([-1, 0], [[1, -1]], [-math.inf], [0], [0, 0], [size, size]))
    assert solution.termination is Termination.OPTIMAL
    assert solution.primal[0] == pytest.approx(size, rel=TOLERANCE)
    assert solution.bound == pytest.approx(-size, rel=TOLERANCE)


def test_a_zero_second_limit_is_stopped_and_nothing_more(solver):
    for some in (CORNER, INFEASIBLE):
        solution = solver.solve(some, seconds=0.0)
        assert solution.termination is Termination.STOPPED
        assert solution.primal is None and solution.bound == -math.inf


def test_integers_are_solved_or_refused_by_name(solver):
    some = model([-1, -1], [[2, 2]], [-math.inf], [3], [0, 0], [5, 5], [True, True])
    if not solver.integers:
        with pytest.raises(ValueError, match="integer"):
            solver.solve(some)
        return
    solution = solver.solve(some)
    assert solution.termination is Termination.OPTIMAL and some.cost @ solution.primal == pytest.approx(-1)


def test_other_solvers_of_cvxpy_and_pulp_are_reached_by_name():
    for name in ("cvxpy:SCIPY", "cvxpy:HIGHS", "pulp:HiGHS"):
        solver = find_solver(name)
        assert solver.name == name
        assert solver.solve(CORNER).primal == pytest.approx([3, 1], abs=TOLERANCE)


def test_an_unknown_or_missing_solver_names_the_installed_ones():
    for name in ("gurobi", "cvxpy:MOSEK", "pulp:CPLEX_PY"):
        with pytest.raises(ValueError, match=r"installed: highs, highs-ipm, cvxpy, pulp"):
            find_solver(name)


def test_an_inaccurate_end_is_stopped():
    status = CvxpySolver()._solution(CORNER, "infeasible_inaccurate", None, {})
    assert status.termination is Termination.STOPPED and status.bound == -math.inf


def test_a_warm_model_takes_rows_and_bounds_and_needs_few_iterations():
    random = np.random.default_rng(2)
    n = 60
    start = model(np.ones(n), random.random((40, n)), np.ones(40), np.full(40, math.inf), np.zeros(n), np.ones(n))
    warm = WarmModel(start)
    first = warm.solve()
    row = csr_array(random.random((1, n)) * (first.primal > 1e-9))
    warm.add_rows(row, (row @ first.primal) + 0.05, np.array([math.inf]))
    second = warm.solve()
    cold = SOLVERS["highs"].solve(warm.model)
    assert second.termination is Termination.OPTIMAL
    assert warm.model.cost @ second.primal == pytest.approx(warm.model.cost @ cold.primal, abs=1e-9)
    assert second.bound > first.bound
    assert second.stats["iterations"] < max(5, first.stats["iterations"] / 2)
    warm.change_column_bounds(np.arange(3), np.zeros(3), np.zeros(3))
    third = warm.solve()
    assert third.primal[:3].tolist() == [0, 0, 0] and third.bound >= second.bound - 1e-9
    with pytest.raises(ValueError, match="not bounded"):
        warm.change_column_bounds(np.array([0]), np.array([0.0]), np.array([math.inf]))


def test_a_warm_model_that_becomes_infeasible_says_so_and_recovers():
    warm = WarmModel(CORNER)
    warm.solve()
    warm.add_rows(csr_array(np.ones((1, 2))), np.array([20.0]), np.array([math.inf]))
    assert warm.solve().termination is Termination.INFEASIBLE
    warm.change_column_bounds(np.array([0]), np.array([0.0]), np.array([0.0]))
    assert warm.solve().termination is Termination.INFEASIBLE


def test_a_warm_model_stops_once_its_bound_passes_the_cutoff():
    random = np.random.default_rng(4)
    some = model(
        np.ones(50), random.random((80, 50)), np.full(80, 8.0), np.full(80, math.inf), np.zeros(50), np.ones(50)
    )
    full = WarmModel(some).solve()
    optimum = some.cost @ full.primal
    stopped = WarmModel(some).solve(cutoff=0.5 * optimum)
    assert stopped.termination is Termination.CUTOFF
    assert stopped.stats["iterations"] < full.stats["iterations"]
    assert WarmModel(some).solve(cutoff=2 * optimum).termination is Termination.OPTIMAL


def test_a_time_limit_counts_from_each_solve():
    warm = WarmModel(CORNER)
    for _ in range(3):
        assert warm.solve(seconds=5.0).termination is Termination.OPTIMAL
