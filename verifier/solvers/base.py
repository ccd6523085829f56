"""What a solver answers: three separate facts, so that "stopped" can never be read as "infeasible"."""

from __future__ import annotations

import enum
import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Protocol

import numpy as np
import scipy

from encoders.linear_model import LinearModel
from encoders.scaling import Scaling, scaling_of


class Termination(enum.StrEnum):
    """Why a solver stopped."""

    OPTIMAL = "optimal"
    INFEASIBLE = "infeasible"
    UNBOUNDED = "unbounded"
    CUTOFF = "cutoff"  # the optimum is at least the value that the caller named
    TARGET = "target"  # a point was found whose value is at most the one that the caller named
    STOPPED = "stopped"  # a limit, an inaccurate end, or a failure; nothing is known about feasibility


@dataclass(frozen=True, eq=False)
class Solution:
    """What is known after a solver stopped.

    termination: why. primal: a point of the model within the solver's tolerance, or None. row_dual: multipliers, the
    change of the optimum with each row's end, or None. bound: a proved lower bound of the minimum, in float64 (from
    the multipliers by weak duality, infinity on the solver's word that the model is infeasible). stats: the solver's
    own words and counts. ray: multipliers that refute all points of an infeasible model (Farkas), or None.
    """

    termination: Termination
    primal: np.ndarray | None = None
    row_dual: np.ndarray | None = None
    bound: float = -math.inf
    stats: dict[str, Any] = field(default_factory=dict)
    ray: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class IntegerSettings:
    """What a search with integer columns is told besides its model; programs without any take no notice.

    tolerance: on rows and on integrality, in the units of `encoders.scaling`, None: the solver's own. nodes: at most,
    None: any number. target: a point of at most this value ends the search. start: a point `(columns,)` to start from.
    gap: the search may end once bound and point are this close. A solver may ignore the last three.
    """

    tolerance: float | None = None
    nodes: int | None = None
    target: float = -math.inf
    start: np.ndarray | None = None
    gap: float = 0.0


PLAIN = IntegerSettings()


class Solver(ABC):
    """A backend that takes a finished model and solves it once, in units in which all numbers are of size 1.

    integers: whether it takes integer columns. Its library is imported on first use. Backends implement `missing` and
    `solve_scaled`.
    """

    name: str
    integers: ClassVar[bool] = False

    @abstractmethod
    def missing(self) -> str | None:
        """Return what is not installed, or None if the solver can run here."""

    def solve(self, model: LinearModel, seconds: float = math.inf, settings: IntegerSettings = PLAIN) -> Solution:
        """Return what is known after at most about `seconds`, in the model's own units."""
        early = self.stopped_before_start(model, seconds)
        if early is not None:
            return early
        scaling = scaling_of(model)
        solution = self.solve_scaled(scaling.scaled(model), seconds, scaled_settings(settings, scaling))
        return unscaled(solution, scaling)

    def solve_scaled(self, model: LinearModel, seconds: float, settings: IntegerSettings) -> Solution:
        """Return the answer to a model whose numbers are of size 1, in its units, given some time."""
        raise NotImplementedError(f"{type(self).__name__} has no `solve_scaled`")

    def stopped_before_start(self, model: LinearModel, seconds: float) -> Solution | None:
        """Return the answer to a request without time; raise ValueError for integers that are not supported."""
        if model.integer.any() and not self.integers:
            raise ValueError(f"solver {self.name!r} takes no integer columns; use highs or pulp")
        if seconds <= 0:
            return Solution(Termination.STOPPED, stats={"status": "no time was given"})
        return None


class GrowingModel(Protocol):
    """A model that takes more rows and is solved again."""

    def add_rows(self, rows: scipy.sparse.csr_array, lower: np.ndarray, upper: np.ndarray) -> None:
        """Add rows `(k, columns)` with their ends."""

    def solve(self, seconds: float = math.inf, cutoff: float = math.inf) -> Solution:
        """Return what is known after at most about `seconds`, or once the minimum is known to be >= cutoff."""


class ColdModel:
    """A growing model for any solver: each solve starts anew, and the cutoff is looked at afterwards."""

    def __init__(self, model: LinearModel, solver: Solver) -> None:
        self.model, self.solver = model, solver

    def add_rows(self, rows: scipy.sparse.csr_array, lower: np.ndarray, upper: np.ndarray) -> None:
        """Add rows `(k, columns)` with their ends."""
        self.model = with_rows(self.model, rows, lower, upper)

    def solve(self, seconds: float = math.inf, cutoff: float = math.inf) -> Solution:
        """Return the answer of the solver, CUTOFF where it proves a minimum of at least the cutoff."""
        solution = self.solver.solve(self.model, seconds)
        if solution.termination is Termination.OPTIMAL and solution.bound >= cutoff:
            return replace(solution, termination=Termination.CUTOFF)
        return solution


def unscaled(solution: Solution, scaling: Scaling) -> Solution:
    """Return a solution of the scaled model as one of the model itself."""
    return replace(
        solution,
        primal=None if solution.primal is None else scaling.point(solution.primal),
        row_dual=None if solution.row_dual is None else scaling.row_dual(solution.row_dual),
        bound=scaling.value(solution.bound),
        ray=None if solution.ray is None else scaling.ray(solution.ray),
    )


def scaled_settings(settings: IntegerSettings, scaling: Scaling) -> IntegerSettings:
    """Return the settings for the scaled model."""
    start = None if settings.start is None else scaling.scaled_point(settings.start)
    gap, target = (scaling.scaled_value(value) for value in (settings.gap, settings.target))
    return replace(settings, start=start, gap=gap, target=target)


def with_rows(model: LinearModel, rows: scipy.sparse.csr_array, lower: np.ndarray, upper: np.ndarray) -> LinearModel:
    """Return the model with more rows at its end."""
    return replace(
        model,
        A=scipy.sparse.csr_array(scipy.sparse.vstack([model.A, rows], format="csr")),
        row_lower=np.concatenate([model.row_lower, lower]),
        row_upper=np.concatenate([model.row_upper, upper]),
    )
