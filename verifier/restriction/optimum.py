"""What a linear program of the restriction answers, and the closed form that every lazy solution starts with."""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from verifier.attacks.halfspace import step_to_halfspace
from verifier.restriction.question import Question


class Outcome(enum.StrEnum):
    """How the search for the nearest point of a question ended."""

    FOUND = "found"
    INFEASIBLE = "infeasible"  # the region, cut to the reach, holds no such point: nothing about the network
    BEYOND = "beyond"  # the nearest one lies at the cutoff or farther
    STOPPED = "stopped"  # time or the solver ran out: nothing is known
    FULL = "out of memory"  # the device's memory does not hold the input alone: nothing is known


@dataclass(frozen=True, eq=False)
class Optimum:
    """The nearest point of a question, where one was found.

    radius: the optimum, or a lower bound of it (infinite where infeasible); step: d `(n,)` or None. tight: numbers of
    the rows that carry a multiplier, the largest first. rounds, rows: what the lazy forms needed.
    """

    outcome: Outcome
    radius: float
    step: np.ndarray | None = None
    tight: tuple[int, ...] = ()
    rounds: int = 0
    rows: int = 0
    word: str = field(default="", compare=False)


def first_step(question: Question) -> tuple[float, np.ndarray]:
    """Return (radius, step) with the one row of the label that is farthest from holding: a lower bound, closed form.

    The smallest epsilon with sum_i |g_i| min(epsilon, room_i) >= margin: a sort and prefix sums. The radius is infinite
    where the rooms do not suffice. Starting with no label row instead, as the paper does, gives step 0.
    """
    row = int(np.argmin(question.at_centre[: question.label_rows]))
    gradient = question.rows(np.array([row]))
    missing = np.array([-question.at_centre[row]])
    if missing[0] <= 0:
        return 0.0, np.zeros(question.inputs)
    radii, steps = nearest_in_box(-gradient, missing, -question.lower[None], question.upper[None])
    return float(radii[0]), steps[0]


def nearest_in_box(
    gradients: np.ndarray | Tensor, amounts: np.ndarray | Tensor, below: np.ndarray | Tensor, above: np.ndarray | Tensor
) -> tuple[np.ndarray, np.ndarray]:
    """Return (radii `(batch,)`, steps `(batch, n)`): the least |r|_inf with <g, r> <= -m and -below <= r <= above.

    The radius is infinite where no r in the box does it; the step then is the corner that comes nearest.
    """
    g, m, low, high = (torch.as_tensor(value, dtype=torch.float64) for value in (gradients, amounts, below, above))
    steps = step_to_halfspace(g, m, low, high, "inf")
    reached = -(g * steps).sum(dim=1) >= m - 1e-9 * m.abs().clamp(min=1e-300)
    radii = torch.where(reached, steps.abs().amax(dim=1), math.inf)
    return radii.cpu().numpy(), steps.cpu().numpy()
