"""Which region to ask about: the input's own, that of an attacked point, or the next one across a tight row.

On a plain LeNet the program of the input's own region (Bastani et al. 2016) is usually infeasible; that of the region
of an adversarial point always holds that point, so its optimum is never farther than the attack. Both bound the radius
of the network from above only.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from encoders.formulations.restrict import freeze
from encoders.network import Network
from encoders.region import Domain, domain_ends
from verifier.restriction.optimum import Optimum, nearest_in_box
from verifier.restriction.question import Question

# An optimum lies on the rows that are tight there up to the solver's tolerance; nearer than this they count as ties.
EDGE = 1e-6


def ask_own_region(
    network: Network, x: Tensor, target: int, domain: Domain, reach: float, alpha: float = 0.0
) -> Question:
    """Return the question for x `(1, *shape)` in its own region, ties decided by the first step's direction."""
    x = x.to(torch.float64)
    margin, gradient = _second_margin(network, x, target)
    lower, upper = _room(x, domain, reach)
    _, steps = nearest_in_box(gradient, margin, -lower[None], upper[None])
    direction = torch.from_numpy(steps).to(x.device).reshape_as(x)
    return Question(freeze(network, x, direction), x, target, lower, upper, reach, alpha)


def ask_region_of(
    network: Network, x: Tensor, point: Tensor, target: int, domain: Domain, reach: float, alpha: float = 0.0
) -> Question:
    """Return the question for x in the region of a point; ties go with the direction that leads to x."""
    x, point = x.to(torch.float64), point.to(torch.float64).reshape_as(x)
    lower, upper = _room(x, domain, reach)
    return Question(freeze(network, point, x - point), x, target, lower, upper, reach, alpha)


def next_region(question: Question, answer: Optimum) -> Question | None:
    """Return the same question in the region across the condition with the largest multiplier, None if there is none.

    The step taken is infinitely small: the network is frozen at the optimum, and what is tied there goes with the
    direction in which that condition falls. Hence the optimum is a point of the new region too.
    """
    across = next((row for row in answer.tight if row >= question.label_rows), None)
    if across is None or answer.step is None:
        return None
    x = question.centre
    normal = torch.from_numpy(-question.rows(np.array([across]))[0]).to(x.device).reshape_as(x)
    point = x + torch.from_numpy(answer.step).to(x.device).reshape_as(x)
    frozen = freeze(question.frozen.network, point, normal / normal.abs().sum(), EDGE)
    return Question(frozen, x, question.target, question.lower, question.upper, question.reach, question.alpha)


def _room(x: Tensor, domain: Domain, reach: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the least and greatest step of each coordinate."""
    below, above = ((end - x).flatten().cpu().numpy() for end in domain_ends(domain, x))
    return np.maximum(below, -reach), np.minimum(above, reach)


def _second_margin(network: Network, x: Tensor, target: int) -> tuple[Tensor, Tensor]:
    """Return (margin `(1,)` of the best other class over the target, its gradient `(1, n)`)."""
    point = x.detach().requires_grad_(True)
    with torch.enable_grad():
        outputs = network.evaluate(point)
        rest = outputs.detach().clone()
        rest[0, target] = -torch.inf
        margin = outputs[:, int(rest.argmax())] - outputs[:, target]
        (gradient,) = torch.autograd.grad(margin.sum(), point)
    return margin.detach(), gradient.flatten(1)
