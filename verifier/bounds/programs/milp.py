"""Integer programs over the exact rows of a network (Tjeng, Xiao, Tedrake 2019), for one ball and one rival or several.

The least margin is minimised where it is at most TOLERANCE of its unit, the size of the outputs that it compares: no
solution means that it is above that everywhere, for a network as for its multiples. Only the solver's dual bound or its
word "infeasible" proves, and that is its word: TRUSTED. Its points are proposals; where one does not replay the program
is solved again with smaller tolerances and, where curves were cut into segments, with more of them.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import scipy
import torch
from torch import Tensor

from encoders.formulations.relax import RelaxedNetwork, encode_exactly, estimate
from encoders.linear_model import Direction, LinearModel
from encoders.network import INPUT, Network
from encoders.region import BallRegion
from encoders.scaling import unit
from encoders.views.relaxation import sum_up
from verifier.bounds.linear.bounds import linear_bounds
from verifier.bounds.programs.lp import MOST_ENTRIES, UNBOUNDED
from verifier.bounds.programs.milp_rivals import some_below
from verifier.bounds.programs.tightening import Tightening, tighten
from verifier.budget import Budget
from verifier.solvers.base import IntegerSettings, Solution, Solver, Termination, with_rows

# A margin must be above this share of its unit to be proved: solvers hold rows to about 1e-7 of theirs.
TOLERANCE = 1e-6
# Beyond this many binaries a program is left alone: seconds become days.
MOST_BINARIES = 2_000
# (tolerance, segments of a curve) of each attempt; None: the solver's own.
ATTEMPTS: tuple[tuple[float | None, int], ...] = ((None, 4), (1e-8, 16), (1e-9, 64))
# The first attempt takes any point that goes this share of the way that linear bounds leave open.
TARGET_SHARE = 0.01

# Tries points `(count, *input_shape)`; true once one of them is a replayed counterexample.
Attack = Callable[[Tensor], bool]


@dataclass(frozen=True)
class MilpAnswer:
    """proved: by the word of every solver that was asked. falsified: the attack succeeded. Neither: open.

    binaries: of the last program; nodes: of the solvers' trees; seconds: of all programs; programs: how many were
    solved.
    """

    proved: bool
    falsified: bool
    reason: str
    binaries: int = 0
    nodes: int = 0
    seconds: float = 0.0
    programs: int = 0


class Effort:
    """Solves programs within a budget and counts what that took. most_nodes: of one program, None: any number."""

    def __init__(self, budget: Budget, most_nodes: int | None = None) -> None:
        self.budget, self.most_nodes = budget, most_nodes
        self.binaries = self.nodes = self.programs = 0
        self.seconds = 0.0

    def solve(self, solver: Solver, model: LinearModel, **settings: object) -> Solution:
        """Return the solver's answer; settings: of `IntegerSettings`."""
        self.binaries = int(model.integer.sum())
        started = time.perf_counter()
        limits = IntegerSettings(nodes=self.most_nodes, **settings)  # type: ignore[arg-type]
        solution = solver.solve(model, self.budget.remaining, limits)
        self.seconds += time.perf_counter() - started
        self.programs += 1
        self.nodes += int(solution.stats.get("nodes", 0))
        return solution

    def answer(self, proved: bool = False, falsified: bool = False, reason: str = "") -> MilpAnswer:
        """Return an answer with the counts so far."""
        return MilpAnswer(proved, falsified, reason, self.binaries, self.nodes, self.seconds, self.programs)


class ExactRows:
    """The rows with binaries of a network on one ball (batch 1, on the processor), from proved boxes.

    binaries: of the rows that were encoded last, None before.
    """

    def __init__(self, network: Network, region: BallRegion) -> None:
        self.region = region
        self.bounds = linear_bounds(network, region)
        self.network = self.bounds.network
        self.tightening: Tightening | None = None
        self.binaries: int | None = None
        self._encoded: dict[int, RelaxedNetwork] = {}

    def tighten(self, row: np.ndarray, seconds: float) -> None:
        """Tighten the boxes by linear programs, those first that hold a row `(outputs,)` of the output back most."""
        self.tightening = tighten(self.bounds, row, seconds)
        self.bounds = linear_bounds(self.network, self.region, boxes=self.tightening.boxes)
        self._encoded.clear()

    def least(self, rows: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return (linear bounds `(rows,)` of rows `(rows, outputs)` on the ball, points `(rows, *shape)` or None)."""
        minimum = self.bounds.minimise(rows.unsqueeze(0), with_points=True)
        return minimum.bound[0], None if minimum.points is None else minimum.points[0]

    def greatest(self, rows: np.ndarray) -> np.ndarray:
        """Return upper bounds `(rows,)` of rows `(rows, outputs)` on the ball, finite where the outputs' boxes are.

        The smaller of the boxes' and the linear bounds', both rounded up.
        """
        box = self.bounds.boxes[self.network.output.name]
        lower, upper = (end.flatten().numpy() for end in (box.lower, box.upper))
        ends = np.where(rows == 0.0, 0.0, np.nextafter(np.where(rows > 0.0, rows * upper, rows * lower), np.inf))
        linear = -self.least(torch.from_numpy(-rows))[0].numpy()
        bounds: np.ndarray = np.fmin(sum_up(ends), linear)
        return bounds

    def program(self, relaxed: RelaxedNetwork, rows: np.ndarray, most: float, compare: bool = True) -> LinearModel:
        """Return the program that minimises the least of rows `(rows, outputs)` where it is at most `most`.

        compare: False: of several rows all that are at most `most` count as equal, which needs smaller constants.
        """
        if len(rows) == 1:
            return below(relaxed, rows[0], most)
        least = -float(self.greatest(-rows).max()) if compare else most
        return some_below(relaxed, rows, self.greatest(rows), least, most)

    def encoded(self, segments: int) -> RelaxedNetwork | str:
        """Return the rows with curves cut into so many segments, or why there is no program for a solver.

        They are the same for any number where nothing is curved.
        """
        for made in self._encoded.values():
            if made.direction is Direction.EXACT:
                return made
        if segments not in self._encoded:
            reason = too_large(self.network, segments)
            if reason is not None:
                return f"no program: it would need {reason}"
            try:
                self._encoded[segments] = encode_exactly(self.network, self.bounds.boxes, segments)
            except ValueError as error:
                return f"no program: {error}"
        relaxed = self._encoded[segments]
        self.binaries = relaxed.binaries
        if not (np.isfinite(relaxed.col_lower).all() and np.isfinite(relaxed.col_upper).all()):
            return UNBOUNDED
        if relaxed.binaries > MOST_BINARIES:
            return f"{relaxed.binaries:,} binaries, more than the {MOST_BINARIES:,} of the method"
        return relaxed

    def point(self, relaxed: RelaxedNetwork, primal: np.ndarray) -> Tensor:
        """Return the input `(1, *shape)` in a point of the program."""
        return torch.from_numpy(primal[relaxed.columns[INPUT]]).reshape(1, *self.network.input_shape)


def below(relaxed: RelaxedNetwork, row: np.ndarray, most: float) -> LinearModel:
    """Return the program that minimises a row `(outputs,)` of the output where it is at most `most`.

    The row as a constraint *and* as the objective: 1.5 to 2 times faster than without an objective, whose witnesses
    lie on the border.
    """
    model = relaxed.model(row)
    return with_rows(model, scipy.sparse.csr_array(model.cost[None, :]), np.array([-np.inf]), np.array([most]))


def too_large(network: Network, segments: int = ATTEMPTS[0][1]) -> str | None:
    """Return how large the rows of a network would be if that is too much, before anything of them exists."""
    rows, entries = estimate(network, "exact", segments)
    if entries <= MOST_ENTRIES:
        return None
    return f"up to {rows:,} rows with {entries:,} entries, more than the {MOST_ENTRIES:,} that are taken on"


def programs(least: Tensor, together: bool) -> list[list[int]]:
    """Return which rows go into each program, from lower bounds `(rows,)`: those not above zero, the least first."""
    open_rows = [number for number in least.argsort().tolist() if not float(least[number]) > 0]
    return ([open_rows] if open_rows else []) if together else [[number] for number in open_rows]


def stop_reason(solver: Solver, solution: Solution, effort: Effort) -> str:
    """Return in words why a solver's answer decides nothing."""
    words = solution.stats.get("status", str(solution.termination))
    return (
        f"{solver.name} stopped: {words} ({effort.binaries:,} binaries, {effort.nodes:,} nodes, "
        f"{effort.seconds:.1f} s in {effort.programs} programs)"
    )


class MilpSearch:
    """Asks solvers whether rows of the output may become <= 0 on one ball.

    solvers: the first is asked; each further one must agree with its proofs. effort: the limits, and what was spent.
    """

    def __init__(self, rows: ExactRows, attack: Attack, solvers: Sequence[Solver], effort: Effort) -> None:
        self.rows, self.attack, self.solvers, self.effort = rows, attack, tuple(solvers), effort

    def decide(self, rows: np.ndarray, least: float = -math.inf) -> MilpAnswer:
        """Return whether all rows `(rows, outputs)` of the output are above zero on the ball, by one program.

        least: a known lower bound of them.
        """
        solver, effort, reason = self.solvers[0], self.effort, ""
        for number, (tolerance, segments) in enumerate(ATTEMPTS):
            relaxed = self.rows.encoded(segments)
            if isinstance(relaxed, str):
                return effort.answer(reason=f"{reason}; {relaxed}" if reason else relaxed)
            if relaxed.is_empty:
                return effort.answer(proved=True)
            most = TOLERANCE * margin_unit(relaxed, rows)
            model = self.rows.program(relaxed, rows, most)
            # A point well below zero replays; the lowest there is, if the first did not.
            target = TARGET_SHARE * least if number == 0 and math.isfinite(least) and least < 0 else -math.inf
            solution = effort.solve(solver, model, tolerance=tolerance, target=target)
            if proves(model, solution, most):
                return self._confirmed(relaxed, model, most, tolerance)
            if solution.primal is None:
                return effort.answer(reason=stop_reason(solver, solution, effort))
            if self.attack(self.rows.point(relaxed, solution.primal)):
                return effort.answer(falsified=True)
            if solution.termination is Termination.STOPPED:
                return effort.answer(reason=stop_reason(solver, solution, effort))
            margin = float(model.cost @ solution.primal)
            reason = f"the point of {solver.name} with margin {margin:.2g} does not replay in the model"
            if self.effort.budget.exhausted:
                break
        return effort.answer(reason=f"{reason} ({effort.binaries:,} binaries, {effort.programs} programs)")

    def _confirmed(
        self, relaxed: RelaxedNetwork, model: LinearModel, most: float, tolerance: float | None
    ) -> MilpAnswer:
        """Return the first solver's proof if every further one repeats it."""
        first, effort = self.solvers[0], self.effort
        for solver in self.solvers[1:]:
            solution = effort.solve(solver, model, tolerance=tolerance)
            if proves(model, solution, most):
                continue
            if solution.primal is None:
                return effort.answer(reason=f"no second opinion: {stop_reason(solver, solution, effort)}")
            if self.attack(self.rows.point(relaxed, solution.primal)):
                return effort.answer(falsified=True)
            margin = float(model.cost @ solution.primal)
            words = f"{first.name} says that no point exists, {solver.name} has one with margin {margin:.2g}"
            return effort.answer(reason=f"the solvers contradict each other: {words}")
        return effort.answer(proved=True)


def margin_unit(relaxed: RelaxedNetwork, rows: np.ndarray) -> float:
    """Return the unit of rows `(rows, outputs)` of the output: a power of two no less than the largest of their terms.

    Terms by the boxes; the same power of two that a solver's units give the row.
    """
    places = relaxed.columns[relaxed.network.output.name]
    reach = np.maximum(np.abs(relaxed.col_lower[places]), np.abs(relaxed.col_upper[places]))
    return unit(float((np.abs(rows) * reach).max()))


def proves(model: LinearModel, solution: Solution, most: float) -> bool:
    """Return whether a solver says that no point of the program is at most `most`.

    Only of a model that holds all points of the network.
    """
    return model.direction.may_prove and (
        solution.termination is Termination.INFEASIBLE or (math.isfinite(solution.bound) and solution.bound > most)
    )
