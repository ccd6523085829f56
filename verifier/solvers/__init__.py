"""The table of solvers, by the names of `--solver`. Only HiGHS keeps a model warm (`WarmModel`)."""

from verifier.solvers.base import ColdModel, GrowingModel, Solution, Solver, Termination
from verifier.solvers.cvxpy_backend import CvxpySolver
from verifier.solvers.highs_backend import HighsSolver, WarmModel
from verifier.solvers.pulp_backend import PulpSolver

SOLVERS: dict[str, Solver] = {
    "highs": HighsSolver(),
    "highs-ipm": HighsSolver("ipm"),
    "cvxpy": CvxpySolver(),
    "pulp": PulpSolver(),
}


def find_solver(name: str) -> Solver:
    """Return the solver of a name: highs, cvxpy, pulp, or cvxpy:NAME and pulp:NAME for another of their solvers.

    Raises ValueError if it is unknown or not installed, naming those that are.
    """
    family, _, which = name.partition(":")
    makers = {"cvxpy": CvxpySolver, "pulp": PulpSolver}
    solver = makers[family](which) if which and family in makers else SOLVERS.get(name)
    problem = f"unknown solver {name!r}" if solver is None else solver.missing()
    if solver is None or problem is not None:
        installed = ", ".join(other for other, candidate in SOLVERS.items() if candidate.missing() is None)
        reason = problem if solver is None else f"solver {name!r} needs {problem}, which is not installed"
        raise ValueError(f"{reason}; installed: {installed or 'none'} (and cvxpy:NAME, pulp:NAME)")
    return solver


__all__ = [
    "SOLVERS",
    "ColdModel",
    "CvxpySolver",
    "GrowingModel",
    "HighsSolver",
    "PulpSolver",
    "Solution",
    "Solver",
    "Termination",
    "WarmModel",
    "find_solver",
]
