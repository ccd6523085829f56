"""Bounds by linear programs over the convex rows of a network (Salman et al. 2019), proved from the multipliers.

The solver's optimum is never read: its multipliers are put into our own arrays and the bound is computed again,
rounded outward (`verifier.certificates.dual_bound`). As the rows hold in real arithmetic too
(`encoders.formulations.relax`), what is above zero is a proof, whatever the solver did.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from encoders.formulations.relax import RelaxedNetwork, estimate, relax
from encoders.linear_model import LinearModel
from encoders.network import INPUT, Network
from encoders.region import BallRegion
from verifier.bounds.linear.bounds import linear_bounds
from verifier.budget import Budget
from verifier.certificates.dual_bound import proves_empty, safe_bound
from verifier.solvers.base import Solution, Termination
from verifier.solvers.highs_backend import WarmModel

# Entries beyond which no program is built: its arrays alone would take a gigabyte, and its solution hours.
MOST_ENTRIES = 20_000_000
UNBOUNDED = "no program: a value of the network has no bound on this ball"
# A solver stops early once its objective is this far above zero, in units of the row's size (`Scaling.value_unit`), so
# that what its tolerances hide cannot matter.
CUTOFF = 1e-5


@dataclass(frozen=True, eq=False)
class LpBound:
    """bound: proved in real arithmetic; infinite where no point exists. Proposals: the input (`point`, flat) where the
    solver ended, and its multipliers.
    """

    bound: float
    point: np.ndarray | None = None
    row_dual: np.ndarray | None = None


class MarginProgram:
    """The rows of one network on one region, kept warm while the minimised row changes."""

    def __init__(self, relaxed: RelaxedNetwork) -> None:
        self.relaxed = relaxed
        self._warm: WarmModel | None = None

    def minimise(self, row: np.ndarray, seconds: float = math.inf) -> LpBound:
        """Return a lower bound of a row `(outputs,)` of the output; the solver stops once it is well above zero."""
        model = self.relaxed.model(row)
        if self._warm is None:
            self._warm = WarmModel(model)
        else:
            self._warm.change_model(model)
        solution = self._warm.solve(seconds, CUTOFF * self._warm.scaling.value_unit)
        result = self._proved(model, solution)
        if solution.termination is Termination.CUTOFF and result.bound <= 0:
            result = self._proved(model, self._warm.solve(seconds))
        return result

    def _proved(self, model: LinearModel, solution: Solution) -> LpBound:
        bound = -math.inf if solution.row_dual is None else safe_bound(model, solution.row_dual)
        if solution.ray is not None and proves_empty(model, solution.ray):
            bound = math.inf
        point = None if solution.primal is None else solution.primal[self.relaxed.columns[INPUT]]
        return LpBound(bound, point, solution.row_dual)


@dataclass(frozen=True, eq=False)
class LpAnswer:
    """proved: every rival lies strictly below the reference class. points: `(rows, *input_shape)`, proposals.

    open_units: how many hinge units have a sign that the boxes leave open. reason: why there is no program.
    """

    proved: bool
    points: Tensor | None
    open_units: int
    reason: str | None = None


def lp_margins(network: Network, region: BallRegion, reference: int, rivals: Tensor, budget: Budget) -> LpAnswer:
    """Bound y_reference - y_k over one ball for the given rivals, from the least promising on, until one fails.

    Boxes are those of the linear bounds.
    """
    bounds = linear_bounds(network, region)
    rows = torch.zeros(1, len(rivals), network.output_shape[0], dtype=torch.float64)
    rows[0, :, reference] = 1.0
    rows[0, torch.arange(len(rivals)), rivals] = -1.0
    least = bounds.minimise(rows).bound[0]
    relaxed = relax(bounds.network, bounds.boxes)
    units = sum(len(found.lines[1]) for found in relaxed.relaxations.values() if found.lines is not None)
    if not (np.isfinite(relaxed.col_lower).all() and np.isfinite(relaxed.col_upper).all()):
        return LpAnswer(False, None, units, UNBOUNDED)
    program = MarginProgram(relaxed)
    points: list[np.ndarray] = []
    for number in least.argsort().tolist():
        if float(least[number]) > 0:
            break
        if budget.exhausted:
            return LpAnswer(False, _stacked(points, network), units)
        found = program.minimise(rows[0, number].numpy(), budget.remaining)
        if found.point is not None:
            points.append(found.point)
        if not found.bound > 0:
            return LpAnswer(False, _stacked(points, network), units)
    return LpAnswer(True, None, units)


def size_refusal(network: Network, name: str) -> str | None:
    """Return why the program of a network would be too large, before anything of it exists."""
    rows, entries = estimate(network)
    if entries <= MOST_ENTRIES:
        return None
    return (
        f"method {name!r} would need a linear program of about {rows:,} rows with {entries:,} entries for each input, "
        f"more than the {MOST_ENTRIES:,} it takes on"
    )


def _stacked(points: list[np.ndarray], network: Network) -> Tensor | None:
    if not points:
        return None
    return torch.from_numpy(np.stack(points)).reshape(-1, *network.input_shape)
