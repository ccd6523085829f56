"""Any LP solver that cvxpy knows, for cross-checks (Diamond, Boyd 2016; Agrawal et al. 2018)."""

from __future__ import annotations

import importlib.util
import math
import warnings
from typing import Any

import numpy as np

from encoders.linear_model import LinearModel
from verifier.solvers.base import IntegerSettings, Solution, Solver, Termination

# How each solver is told its time limit.
TIME_LIMITS: dict[str, str] = {
    "CLARABEL": "time_limit",
    "SCS": "time_limit_secs",
    "OSQP": "time_limit",
    "HIGHS": "time_limit",
}


class CvxpySolver(Solver):
    """cvxpy with one of its solvers, named in capitals; "inaccurate" ends count as stopped."""

    def __init__(self, solver: str = "CLARABEL") -> None:
        self.solver = solver
        self.name = "cvxpy" if solver == "CLARABEL" else f"cvxpy:{solver}"

    def missing(self) -> str | None:
        if not importlib.util.find_spec("cvxpy"):
            return "the package cvxpy (pip install 'robustness-verifier[solvers]')"
        import cvxpy

        installed = cvxpy.installed_solvers()
        if self.solver in installed:
            return None
        return f"cvxpy's solver {self.solver} (cvxpy finds here: {', '.join(installed)})"

    def solve_scaled(self, model: LinearModel, seconds: float, settings: IntegerSettings) -> Solution:
        import cvxpy

        options: dict[str, Any] = {}
        if math.isfinite(seconds):
            if self.solver not in TIME_LIMITS:
                raise ValueError(f"no time limit is known for cvxpy's {self.solver}; give none, or use highs")
            options[TIME_LIMITS[self.solver]] = seconds
        x = cvxpy.Variable(model.columns)
        equal = model.row_lower == model.row_upper
        groups = {
            "equal": equal,
            "lower": ~equal & np.isfinite(model.row_lower),
            "upper": ~equal & np.isfinite(model.row_upper),
        }
        constraints: dict[str, Any] = {
            "equal": model.A[equal] @ x == model.row_lower[equal],
            "lower": model.A[groups["lower"]] @ x >= model.row_lower[groups["lower"]],
            "upper": model.A[groups["upper"]] @ x <= model.row_upper[groups["upper"]],
        }
        present = {name: constraint for name, constraint in constraints.items() if groups[name].any()}
        bounds = [x >= model.col_lower, x <= model.col_upper]
        problem = cvxpy.Problem(cvxpy.Minimize(model.cost @ x), [*present.values(), *bounds])
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                problem.solve(solver=self.solver, **options)
        except cvxpy.SolverError as error:
            return Solution(Termination.STOPPED, stats={"status": str(error)})
        return self._solution(model, problem.status, x.value, {n: (groups[n], c) for n, c in present.items()})

    def _solution(
        self, model: LinearModel, status: str, primal: np.ndarray | None, rows: dict[str, tuple[np.ndarray, Any]]
    ) -> Solution:
        stats = {"status": status}
        if status == "infeasible":
            return Solution(Termination.INFEASIBLE, bound=math.inf, stats=stats)
        if status == "unbounded":
            return Solution(Termination.UNBOUNDED, stats=stats)
        if status != "optimal" or primal is None:
            return Solution(Termination.STOPPED, stats=stats)
        dual = np.zeros(model.rows)
        for name, (mask, constraint) in rows.items():
            # cvxpy's multipliers of inequalities are positive; of equalities they enter the Lagrangian with a plus.
            dual[mask] += np.atleast_1d(constraint.dual_value) * (1.0 if name == "lower" else -1.0)
        return Solution(Termination.OPTIMAL, np.asarray(primal), dual, model.dual_bound(dual), stats)
