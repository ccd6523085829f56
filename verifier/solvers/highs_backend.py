"""HiGHS through its own interface, and a warm model that grows by rows (Huangfu, Hall 2018).

Known traps (versions up to 1.16): `threads` is never set, as changing it inside one process makes run() fail silently;
the clock behind `time_limit` runs on over the solves of one object; an LP's `objective_bound` may only be used with
the dual simplex, and not on MIPs, where it returns a wrong optimum.
"""

from __future__ import annotations

import functools
import importlib.util
import math
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy

from encoders.linear_model import LinearModel
from encoders.scaling import Scaling, scaling_of, uniform_scaling
from verifier.output import diverted_stdout
from verifier.solvers.base import IntegerSettings, Solution, Solver, Termination, with_rows

if TYPE_CHECKING:
    import highspy

HEURISTICS = (
    "mip_heuristic_run_rins",
    "mip_heuristic_run_rens",
    "mip_heuristic_run_root_reduced_cost",
    "mip_heuristic_run_feasibility_jump",
)
# How far the dual bound of a search that calls itself optimal may lie below its point; differences of sums round.
LEAST_GAP = 1e-9

_LOADING = threading.Lock()


class HighsSolver(Solver):
    """HiGHS: LP by the dual simplex or by an interior point method ("ipm"), MIP by branch and bound.

    A MIP may crash the process (HiGHS 3150): give it to a `WorkerSolver`.
    """

    integers = True

    def __init__(self, method: str = "simplex") -> None:
        self.method = method
        self.name = "highs" if method == "simplex" else f"highs-{method}"

    def missing(self) -> str | None:
        return None if importlib.util.find_spec("highspy") else "the package highspy"

    def solve_scaled(self, model: LinearModel, seconds: float, settings: IntegerSettings) -> Solution:
        warm = WarmModel(model, True, self.method, scaling=uniform_scaling(model, 0))
        if model.integer.any():
            warm.set_search(settings)
        return warm.solve(seconds)


class WarmModel:
    """One HiGHS model that keeps its basis while rows are added and bounds change.

    Solves resume from the last basis, which adding rows and changing bounds leaves dual feasible. HiGHS sees the model
    in units of its own, by default those of the first model's numbers (`encoders.scaling`); all that is given and
    returned here is in the model's. scale: whether HiGHS scales rows and columns further.
    """

    def __init__(
        self,
        model: LinearModel,
        presolve: bool = False,
        method: str = "simplex",
        scale: bool = True,
        scaling: Scaling | None = None,
    ) -> None:
        self._library = _library()
        self._highs = self._library.Highs()
        self._set(output_flag=False, log_to_console=False, presolve="choose" if presolve else "off", parallel="off")
        if not model.integer.any():
            self._set(solver=method, simplex_strategy=1)
        if not scale:
            self._set(simplex_scale_strategy=0)
        self.model = model
        self.scaling = scaling_of(model) if scaling is None else scaling
        self._pass(self.scaling.scaled(model))

    @property
    def rows(self) -> int:
        """The number of rows now in the model."""
        return self.model.rows

    def add_rows(self, rows: scipy.sparse.csr_array, lower: np.ndarray, upper: np.ndarray) -> None:
        """Add rows `(k, columns)`; the basis is kept."""
        first = self.rows
        self.scaling = scaling = self.scaling.with_rows(rows)
        _check(
            self._highs.addRows(
                rows.shape[0], scaling.scaled_ends(lower, first), scaling.scaled_ends(upper, first), rows.nnz,
                rows.indptr[:-1].astype(np.int32), rows.indices.astype(np.int32), scaling.scaled_entries(rows, first),
            ),
            "addRows",
        )  # fmt: skip
        self.model = with_rows(self.model, rows, lower, upper)

    def change_column_bounds(self, columns: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> None:
        """Give the columns (indices) other bounds; the basis is kept."""
        old = self.model
        col_lower, col_upper = old.col_lower.copy(), old.col_upper.copy()
        col_lower[columns], col_upper[columns] = lower, upper
        # The constructor checks the new bounds before HiGHS sees them.
        self.model = replace(old, col_lower=col_lower, col_upper=col_upper)
        indices = columns.astype(np.int32)
        ends = (self.scaling.scaled_point(end, columns) for end in (lower, upper))
        _check(self._highs.changeColsBounds(len(indices), indices, *ends), "changeColsBounds")

    def change_cost(self, cost: np.ndarray) -> None:
        """Minimise another linear function; the basis is kept."""
        old = self.model
        self.model = LinearModel(
            cost, old.A, old.row_lower, old.row_upper, old.col_lower, old.col_upper, old.direction, old.integer
        )
        self.scaling = self.scaling.with_cost(cost)
        columns = np.arange(old.columns, dtype=np.int32)
        _check(self._highs.changeColsCost(len(columns), columns, self.scaling.scaled_cost(cost)), "changeColsCost")

    def change_model(self, model: LinearModel) -> None:
        """Take a model with the same sparsity pattern in place of the old one; the basis is kept.

        Only what differs is handed over: a whole model costs HiGHS's interface as long as solving it again.
        """
        old, self.model = self.model, model
        if not (np.array_equal(old.A.indptr, model.A.indptr) and np.array_equal(old.A.indices, model.A.indices)):
            raise ValueError("a warm model can only be changed to one of the same sparsity pattern")
        scaling = self.scaling
        changes = {"row": self._highs.changeRowsBounds, "col": self._highs.changeColsBounds}
        scales: dict[str, Callable[[np.ndarray], np.ndarray]]
        scales = {"row": scaling.scaled_ends, "col": scaling.scaled_point}
        for part, change in changes.items():
            ends = [(getattr(m, f"{part}_lower"), getattr(m, f"{part}_upper")) for m in (old, model)]
            places = np.flatnonzero((ends[0][0] != ends[1][0]) | (ends[0][1] != ends[1][1])).astype(np.int32)
            if len(places):
                new = (scales[part](end)[places] for end in ends[1])
                _check(change(len(places), places, *new), f"change of {part} bounds")
        if not np.array_equal(old.cost, model.cost):
            self.change_cost(model.cost)
        entries = np.flatnonzero(old.A.data != model.A.data)
        rows = np.searchsorted(model.A.indptr, entries, side="right") - 1
        scaled = scaling.scaled_entries(model.A)[entries]
        values = zip(rows.tolist(), model.A.indices[entries].tolist(), scaled.tolist(), strict=True)
        for row, column, value in values:
            _check(self._highs.changeCoeff(row, column, value), "changeCoeff")

    def set_search(self, settings: IntegerSettings) -> None:
        """Tell HiGHS how to search among integers: to the end (no relative gap), without primal heuristics.

        Each heuristic is off by its own flag: on networks of 2 x 24 and 3 x 100 units that was 2 to 14 times faster,
        and `mip_heuristic_effort` = 0 alone changed nothing.
        """
        self._set(mip_rel_gap=0.0, mip_abs_gap=max(settings.gap, LEAST_GAP), **dict.fromkeys(HEURISTICS, False))
        if settings.tolerance is not None:
            self._set(mip_feasibility_tolerance=settings.tolerance, primal_feasibility_tolerance=settings.tolerance)
        if settings.nodes is not None:
            self._set(mip_max_nodes=settings.nodes)
        if math.isfinite(settings.target):
            self._set(objective_target=settings.target)
        if settings.start is not None:
            start = self._library.HighsSolution()
            start.col_value, start.value_valid = settings.start.tolist(), True
            # A start that HiGHS does not take costs nothing but its help.
            self._highs.setSolution(start)

    def solve(self, seconds: float = math.inf, cutoff: float = math.inf) -> Solution:
        """Return what is known after at most about `seconds`; LPs stop once the minimum is known to be >= cutoff."""
        if seconds <= 0:
            return Solution(Termination.STOPPED, stats={"status": "no time was given"})
        limit = math.inf if math.isinf(seconds) else self._highs.getRunTime() + seconds
        self._set(time_limit=limit)
        if not self.model.integer.any():
            self._set(objective_bound=self.scaling.scaled_value(cutoff))
        self._highs.run()
        return self._solution()

    def _set(self, **options: Any) -> None:
        for name, value in options.items():
            _check(self._highs.setOptionValue(name, value), f"option {name}")

    def _pass(self, model: LinearModel) -> None:
        library = self._library
        lp: highspy.HighsLp = library.HighsLp()
        lp.num_col_, lp.num_row_ = model.columns, model.rows
        lp.col_cost_, lp.col_lower_, lp.col_upper_ = model.cost, model.col_lower, model.col_upper
        lp.row_lower_, lp.row_upper_ = model.row_lower, model.row_upper
        matrix = lp.a_matrix_
        matrix.format_ = library.MatrixFormat.kRowwise
        matrix.num_col_, matrix.num_row_ = model.columns, model.rows
        matrix.start_, matrix.index_, matrix.value_ = model.A.indptr, model.A.indices, model.A.data
        if model.integer.any():
            kinds = (library.HighsVarType.kContinuous, library.HighsVarType.kInteger)
            lp.integrality_ = [kinds[int(flag)] for flag in model.integer]
        _check(self._highs.passModel(lp), "passModel")

    def _solution(self) -> Solution:
        status, library, model = self._highs.getModelStatus(), self._library, self.model
        kind = library.HighsModelStatus
        info, solution = self._highs.getInfo(), self._highs.getSolution()
        scaling, is_mip = self.scaling, bool(model.integer.any())
        stats = {
            "status": self._highs.modelStatusToString(status),
            "iterations": info.simplex_iteration_count,
            "seconds": self._highs.getRunTime(),
        }
        if is_mip:
            stats["nodes"] = int(info.mip_node_count)
        primal = None
        if info.primal_solution_status == library.SolutionStatus.kSolutionStatusFeasible and solution.value_valid:
            primal = scaling.point(np.array(solution.col_value))
        dual = scaling.row_dual(np.array(solution.row_dual)) if solution.dual_valid and not is_mip else None
        bound = -math.inf if dual is None else model.dual_bound(dual)
        if is_mip and math.isfinite(info.mip_dual_bound):
            bound = scaling.value(float(info.mip_dual_bound))
        terminations = {
            kind.kOptimal: Termination.OPTIMAL,
            kind.kInfeasible: Termination.INFEASIBLE,
            kind.kUnbounded: Termination.UNBOUNDED,
            kind.kObjectiveBound: Termination.CUTOFF,
            kind.kObjectiveTarget: Termination.TARGET,
        }
        termination = terminations.get(status, Termination.STOPPED)
        ray = None
        if termination is Termination.INFEASIBLE:
            primal, bound = None, math.inf
            if not is_mip:
                _, exists, values = self._highs.getDualRay()
                ray = scaling.ray(np.array(values)) if exists else None
        return Solution(termination, primal, dual, bound, stats, ray)


def _library() -> Any:
    """Return highspy, its banner printed: since 1.16 the first model of a process prints one before it takes options.

    It goes to standard error: standard output belongs to results. One thread at a time: a descriptor that two turn away
    is turned back to where the other had turned it.
    """
    with _LOADING:
        return _loaded()


@functools.cache
def _loaded() -> Any:
    import highspy

    # The first solver of a process prints who made it.
    with diverted_stdout(discard=True):
        highspy.Highs()
    return highspy


def _check(status: Any, call: str) -> None:
    if getattr(status, "name", "") == "kError":
        raise RuntimeError(f"HiGHS refused {call}; the model holds something that it cannot take")
