"""The restriction's program with the frozen network as separation oracle (Bastani et al. 2016, section 4, made lazy).

Solve with the label rows alone (the first step has a closed form); one forward pass finds the violated conditions; one
batched vector-Jacobian product makes the rows of the worst of them; they join a warm HiGHS model; repeat until none is
violated. The radius only rises, so the search may stop once it passes a cutoff. Two masters hold the rows:

    BallMaster     variables d and epsilon, rows |d_i| <= epsilon: the program as it stands
    RadiusMaster   fixed epsilon as bounds of d, and the largest t with row . d + value >= t |row|_1 for all rows;
                   t is concave in epsilon, and Newton's method from below ends where it reaches 0

A zero of the second is a solution of the first. It has no ball rows and is the faster one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol

import numpy as np
import scipy

from encoders.linear_model import Direction, LinearModel
from encoders.scaling import exponents, uniform_scaling
from verifier.budget import Budget
from verifier.restriction.optimum import Optimum, Outcome, first_step
from verifier.restriction.question import Question
from verifier.solvers import ColdModel, GrowingModel, Solution, Solver, Termination, WarmModel

# A row is violated below this share of its unit; HiGHS keeps rows to 1e-7 of their scaled values.
TOLERANCE = 1e-7
# Rows added in one round: 50 to 200 cost the same, all violated ones up to four times more.
BATCH_ROWS = 100
# The slack t that counts as 0, in units of the input (`Question.input_unit`), and multipliers that do.
LEVEL_TOLERANCE = 1e-9
# A rise of t with epsilon below this is none.
FLAT = 1e-12
ROUNDS = 1000
# The bound of epsilon from below, as a share of the first step's: short of it, lest it take the rows' multipliers.
BELOW = 0.999


class Master(Protocol):
    """Holds rows and finds the nearest step that keeps them, by one LP at a time.

    radius: a lower bound of the optimum; settled: whether it is the optimum over the rows so far, and step keeps them.
    """

    radius: float
    step: np.ndarray
    settled: bool

    def add(self, rows: np.ndarray, values: np.ndarray) -> None:
        """Take in rows `(k, n)`, scaled to |row|_1 = 1, with their values at d = 0."""

    def solve(self, cutoff: float, budget: Budget) -> Outcome:
        """Solve one LP and update radius and step; FOUND, or why there is nothing further to solve."""

    def multipliers(self) -> np.ndarray:
        """Return those of all rows in the order of adding, >= 0."""


class BallMaster:
    """Minimises epsilon over d and epsilon; with a solver given, by that solver from the start each time."""

    def __init__(self, question: Question, radius: float, solver: Solver | None = None) -> None:
        n = question.inputs
        self.radius, self.step, self.settled = radius, np.zeros(n), True
        self._inputs, self._solution = n, Solution(Termination.STOPPED)
        identity, minus = scipy.sparse.eye_array(n, format="csr"), scipy.sparse.csr_array(-np.ones((n, 1)))
        # Where the domain leaves less room than the first step's radius, no ball row is needed.
        above, below = np.flatnonzero(question.upper > radius), np.flatnonzero(-question.lower > radius)
        sides = [[identity[above], minus[above]], [-identity[below], minus[below]]]
        ball = scipy.sparse.csr_array(scipy.sparse.vstack(list(map(scipy.sparse.hstack, sides)), format="csr"))
        self._ball_rows = ball.shape[0]
        model = LinearModel(
            np.append(np.zeros(n), 1.0), ball, np.full(ball.shape[0], -math.inf), np.zeros(ball.shape[0]),
            np.append(question.lower, BELOW * radius), np.append(question.upper, question.reach),
            Direction.INNER,
        )  # fmt: skip
        self._model: GrowingModel = _warm(model, question) if solver is None else ColdModel(model, solver)

    def add(self, rows: np.ndarray, values: np.ndarray) -> None:
        block = scipy.sparse.csr_array(np.hstack([rows, np.zeros((len(rows), 1))]))
        self._model.add_rows(block, -values, np.full(len(rows), math.inf))

    def solve(self, cutoff: float, budget: Budget) -> Outcome:
        solution = self._model.solve(budget.remaining, cutoff)
        if solution.termination is Termination.CUTOFF:
            return Outcome.BEYOND
        if solution.termination is Termination.INFEASIBLE:
            return Outcome.INFEASIBLE
        if solution.termination is not Termination.OPTIMAL or solution.primal is None:
            return Outcome.STOPPED
        self._solution = solution
        self.step, self.radius = solution.primal[: self._inputs], float(solution.primal[-1])
        return Outcome.FOUND

    def multipliers(self) -> np.ndarray:
        dual = self._solution.row_dual
        return np.zeros(0) if dual is None else dual[self._ball_rows :]


class RadiusMaster:
    """Raises epsilon by Newton's method until all rows can be kept."""

    def __init__(self, question: Question, radius: float) -> None:
        n = question.inputs
        self.radius, self.step, self.settled = radius, np.zeros(n), False
        self._lower, self._upper, self._reach = question.lower, question.upper, question.reach
        self._solution = Solution(Termination.STOPPED)
        # t stays <= 0, as the radius is never too large; its bound lies above, so that the multipliers are the rows'.
        low, high = self._bounds()
        self._level = LEVEL_TOLERANCE * question.input_unit
        self._model = _warm(
            LinearModel(
                np.append(np.zeros(n), -1.0), scipy.sparse.csr_array((0, n + 1)), np.zeros(0), np.zeros(0),
                np.append(low, -1e6 * question.input_unit), np.append(high, question.input_unit), Direction.INNER,
            ),
            question,
        )  # fmt: skip

    def add(self, rows: np.ndarray, values: np.ndarray) -> None:
        block = scipy.sparse.csr_array(np.hstack([rows, -np.ones((len(rows), 1))]))
        self._model.add_rows(block, -values, np.full(len(rows), math.inf))

    def solve(self, cutoff: float, budget: Budget) -> Outcome:
        # Rows are asked for after every Newton step: solving out for each set of rows takes a quarter longer.
        solution = self._model.solve(budget.remaining)
        if solution.termination is not Termination.OPTIMAL or solution.primal is None:
            return Outcome.STOPPED
        self._solution, self.step = solution, solution.primal[:-1]
        level = float(solution.primal[-1])
        self.settled = level >= -self._level
        if self.settled:
            return Outcome.FOUND
        slope = self._slope()
        if slope <= FLAT or self.radius - level / slope > self._reach:
            return Outcome.INFEASIBLE
        self.radius -= level / slope
        if self.radius >= cutoff:
            return Outcome.BEYOND
        self._model.change_column_bounds(np.arange(len(self._lower)), *self._bounds())
        return Outcome.FOUND

    def multipliers(self) -> np.ndarray:
        return np.zeros(0) if self._solution.row_dual is None else self._solution.row_dual

    def _bounds(self) -> tuple[np.ndarray, np.ndarray]:
        return np.maximum(self._lower, -self.radius), np.minimum(self._upper, self.radius)

    def _slope(self) -> float:
        """Return the rise of t with epsilon: the reduced costs at the bounds that move with epsilon."""
        assert self._solution.row_dual is not None
        model = self._model.model
        reduced = (model.cost - model.A.T @ self._solution.row_dual)[:-1]
        # min -t falls with an upper bound where the reduced cost is negative, with a lower one where positive.
        rising = np.where(self._upper > self.radius, np.minimum(reduced, 0.0), 0.0)
        falling = np.where(-self._lower > self.radius, np.maximum(reduced, 0.0), 0.0)
        return float(falling.sum() - rising.sum())


MASTERS: dict[str, Callable[[Question, float], Master]] = {"ball": BallMaster, "radius": RadiusMaster}


def solve_lazily(
    question: Question,
    form: str = "radius",
    cutoff: float = math.inf,
    budget: Budget | None = None,
    solver: Solver | None = None,
) -> Optimum:
    """Return the nearest point of the question; form: a row of MASTERS; solver: another than warm HiGHS, in ball form.

    BEYOND as soon as the radius, which only rises, reaches the cutoff.
    """
    budget = Budget() if budget is None else budget
    radius, step = first_step(question)
    if radius > question.reach:
        return Optimum(Outcome.INFEASIBLE, math.inf, word="the label row alone")
    if radius >= cutoff:
        return Optimum(Outcome.BEYOND, radius, word="closed form")
    master = MASTERS[form](question, radius) if solver is None else BallMaster(question, radius, solver)
    added = np.zeros(0, dtype=np.int64)
    free = np.ones(len(question.at_centre), dtype=bool)
    for count in range(ROUNDS):
        values = question.values(step)
        values = values / question.units
        worst = np.flatnonzero((values < -TOLERANCE) & free)
        worst = worst[np.argsort(values[worst], kind="stable")][:BATCH_ROWS]
        if count == 0:
            worst = np.union1d(np.arange(question.label_rows), worst)
        elif not len(worst) and master.settled:
            return Optimum(Outcome.FOUND, master.radius, step, _tight(added, master), count, len(added))
        if len(worst) and not _add(question, master, worst):
            return Optimum(Outcome.INFEASIBLE, math.inf, rounds=count, rows=len(added), word="a constant row")
        free[worst], added = False, np.concatenate([added, worst])
        outcome = Outcome.STOPPED if budget.exhausted else master.solve(cutoff, budget)
        if outcome is not Outcome.FOUND:
            bound = math.inf if outcome is Outcome.INFEASIBLE else master.radius
            return Optimum(outcome, bound, None, _tight(added, master), count + 1, len(added))
        step = np.clip(master.step, question.lower, question.upper)
    return Optimum(Outcome.STOPPED, master.radius, rounds=ROUNDS, rows=len(added), word="too many rounds")


def _add(question: Question, master: Master, numbers: np.ndarray) -> bool:
    """Give the master the chosen rows; False if one of them has no coefficients, so that no step can help it."""
    rows = question.rows(numbers)
    scale = np.abs(rows).sum(axis=1)
    least, values = TOLERANCE * question.units[numbers] / question.input_unit, question.at_centre[numbers]
    if ((scale < least) & (values < -TOLERANCE * question.units[numbers])).any():
        return False
    scale = np.maximum(scale, least)
    master.add(rows / scale[:, None], question.at_centre[numbers] / scale)
    return True


def _tight(added: np.ndarray, master: Master) -> tuple[int, ...]:
    """Return the numbers of the added rows with a multiplier, the largest first."""
    multipliers = master.multipliers()
    if len(multipliers) != len(added):
        return ()
    order = np.argsort(-multipliers, kind="stable")
    return tuple(int(added[i]) for i in order if multipliers[i] > LEVEL_TOLERANCE)


def _warm(model: LinearModel, question: Question) -> WarmModel:
    # Rows are scaled here; HiGHS' own scaling cost a third more on LeNet.
    exponent = int(exponents(np.array([question.input_unit]))[0])
    return WarmModel(model, scale=False, scaling=uniform_scaling(model, exponent))
