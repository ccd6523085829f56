"""The table of solvers, by the names of `--solver`. Only HiGHS keeps a model warm (`WarmModel`).

`worker:NAME` is any of them in a process of its own (`WorkerSolver`).
"""

from verifier.solvers.base import ColdModel, GrowingModel, IntegerSettings, Solution, Solver, Termination
from verifier.solvers.cvxpy_backend import CvxpySolver
from verifier.solvers.highs_backend import HighsSolver, WarmModel
from verifier.solvers.pulp_backend import PulpSolver
from verifier.solvers.worker import WorkerSolver

SOLVERS: dict[str, Solver] = {
    "highs": HighsSolver(),
    "highs-ipm": HighsSolver("ipm"),
    "cvxpy": CvxpySolver(),
    "pulp": PulpSolver(),
    "worker:highs": WorkerSolver(HighsSolver()),
}


def find_solver(name: str) -> Solver:
    """Return the solver of a name: highs, cvxpy, pulp, or cvxpy:NAME and pulp:NAME for another of their solvers.

    worker:NAME is the solver NAME in a worker process.

    Raises ValueError if it is unknown or not installed, naming those that are.
    """
    family, _, which = name.partition(":")
    if family == "worker" and name not in SOLVERS:
        return WorkerSolver(find_solver(which))
    makers = {"cvxpy": CvxpySolver, "pulp": PulpSolver}
    solver = makers[family](which) if which and family in makers else SOLVERS.get(name)
    problem = f"unknown solver {name!r}" if solver is None else solver.missing()
    if solver is None or problem is not None:
        installed = ", ".join(other for other, candidate in SOLVERS.items() if candidate.missing() is None)
        reason = problem if solver is None else f"solver {name!r} needs {problem}, which is not installed"
        raise ValueError(f"{reason}; installed: {installed or 'none'} (and cvxpy:NAME, pulp:NAME, worker:NAME)")
    return solver


__all__ = [
    "SOLVERS",
    "ColdModel",
    "CvxpySolver",
    "GrowingModel",
    "HighsSolver",
    "IntegerSettings",
    "PulpSolver",
    "Solution",
    "Solver",
    "Termination",
    "WarmModel",
    "WorkerSolver",
    "find_solver",
]
