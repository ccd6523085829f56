"""CBC and any other solver that PuLP can call, for cross-checks (Mitchell, O'Sullivan, Dunning 2011).

PuLP hands the model over as an MPS file with 13 digits, so optima agree to about 1e-9 of their size; to give a solver
all digits, write the file with `encoders.formats.linear_program`. The solver is a process of its own that only its own
time limit ends: under `WorkerSolver` it is killed at the deadline.
"""

from __future__ import annotations

import importlib.util
import math
import warnings
from typing import Any

import numpy as np

from encoders.linear_model import LinearModel
from verifier.solvers.base import IntegerSettings, Solution, Solver, Termination

CBC = "PULP_CBC_CMD"
# By how much a point must be better for CBC to look for it (its option `increment`).
INCREMENT = 1e-5


class PulpSolver(Solver):
    """PuLP with one of its solvers, by PuLP's name."""

    integers = True

    def __init__(self, solver: str = CBC) -> None:
        self.solver = solver
        self.name = "pulp" if solver == CBC else f"pulp:{solver}"

    def missing(self) -> str | None:
        if not importlib.util.find_spec("pulp"):
            return "the package pulp (pip install 'robustness-verifier[solvers]')"
        import pulp

        installed = pulp.listSolvers(onlyAvailable=True)
        if self.solver in installed:
            return None
        return f"PuLP's solver {self.solver} (PuLP finds here: {', '.join(installed)})"

    def solve_scaled(self, model: LinearModel, seconds: float, settings: IntegerSettings) -> Solution:
        with warnings.catch_warnings():
            # PuLP 3.3 warns about the names that 4.0 will change.
            warnings.simplefilter("ignore", DeprecationWarning)
            return self._solve(model, seconds, settings)

    def _solve(self, model: LinearModel, seconds: float, settings: IntegerSettings) -> Solution:
        import pulp

        problem = pulp.LpProblem("model", pulp.LpMinimize)
        kinds = np.where(model.integer, pulp.LpInteger, pulp.LpContinuous)
        x = [
            pulp.LpVariable(f"x{j}", low, high, kind)
            for j, (low, high, kind) in enumerate(zip(model.col_lower, model.col_upper, kinds.tolist(), strict=True))
        ]
        problem += pulp.LpAffineExpression(zip(x, model.cost.tolist(), strict=True))
        names: list[list[tuple[str, float]]] = []
        for i in range(model.rows):
            names.append([])
            for sense, end in _sides(float(model.row_lower[i]), float(model.row_upper[i])):
                part = slice(model.A.indptr[i], model.A.indptr[i + 1])
                terms = zip([x[j] for j in model.A.indices[part]], model.A.data[part].tolist(), strict=True)
                name = f"r{i}{'lge'[sense + 1]}"
                problem += pulp.LpConstraint(pulp.LpAffineExpression(terms), sense, name, end)
                names[-1].append((name, end))
        options: dict[str, Any] = {} if math.isinf(seconds) else {"timeLimit": seconds}
        if self.solver == CBC and model.integer.any():
            options |= _cbc_options(settings)
        problem.solve(pulp.getSolver(self.solver, msg=False, **options))
        return self._solution(model, problem, x, names)

    def _solution(
        self, model: LinearModel, problem: Any, x: list[Any], names: list[list[tuple[str, float]]]
    ) -> Solution:
        import pulp

        stats = {"status": pulp.LpStatus[problem.status], "solution": pulp.LpSolution[problem.sol_status]}
        if problem.status == pulp.LpStatusInfeasible:
            return Solution(Termination.INFEASIBLE, bound=math.inf, stats=stats)
        if problem.status == pulp.LpStatusUnbounded:
            return Solution(Termination.UNBOUNDED, stats=stats)
        primal = np.array([np.nan if v.varValue is None else v.varValue for v in x])
        has_point = bool(np.isfinite(primal).all()) and problem.sol_status > 0
        if problem.status != pulp.LpStatusOptimal or problem.sol_status != pulp.LpSolutionOptimal or not has_point:
            return Solution(Termination.STOPPED, primal if has_point else None, stats=stats)
        if model.integer.any():
            # PuLP passes no dual bound on: "optimal" is CBC's word that nothing is better by more than its increment.
            value = float(model.cost @ primal)
            return Solution(Termination.OPTIMAL, primal, None, value - INCREMENT * max(1.0, abs(value)), stats)
        dual = np.array([sum(problem.constraints[name].pi or 0.0 for name, _ in row) for row in names])
        return Solution(Termination.OPTIMAL, primal, dual, model.dual_bound(dual), stats)


def _cbc_options(settings: IntegerSettings) -> dict[str, Any]:
    """Return how PuLP passes the settings on to CBC, which takes no target, gap or start from here.

    CBC's preprocessing of integers stays off: with it CBC 2.10.3 (of PuLP 3.3) called points optimal that are not (2.27
    where -0.56 is least) in 13 of 100 small programs, all of networks of absolute values; without it in none.
    """
    options = ["preprocess off"]
    if settings.tolerance is not None:
        options += [f"{kind}Tolerance {settings.tolerance:g}" for kind in ("primal", "integer")]
    found: dict[str, Any] = {"gapRel": 0.0, "options": options}
    return found if settings.nodes is None else {**found, "maxNodes": settings.nodes}


def _sides(lower: float, upper: float) -> list[tuple[int, float]]:
    """Return (PuLP's sense: -1 <=, 0 =, 1 >=, right-hand side) of each finite end."""
    if lower == upper:
        return [(0, lower)]
    return [(sense, end) for sense, end in ((1, lower), (-1, upper)) if math.isfinite(end)]
