"""Points where the bounds of subproblems end, tried as counterexamples, and short descents from the best of them."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from verifier.bounds.split.prepared import PreparedBall

# Points that are tried of a batch.
POINTS = 16
# Steps of descent from each of these points, and by how much they shrink.
DESCENT_STEPS, DESCENT_DECAY = 10, 0.7
# A point is proposed where its margin in float32 is below this share of the reach.
NEAR = 1e-6

# Tries points `(count, *input_shape)` of the ball; true once one of them is a replayed counterexample.
Attack = Callable[[Tensor], bool]


def attacked(ball: PreparedBall, attack: Attack, points: Tensor, rows: Tensor, descend: bool) -> bool:
    """Try the points `(batch, inputs)` of least margins; true once one is a counterexample.

    rows: `(batch,)`, which row each point is about. descend: whether descents go on from them.
    """
    margins = (ball.all_stages.outputs(points) * ball.rows[rows]).sum(dim=1)
    least = margins.argsort()[:POINTS]
    points, rows, margins = points[least], rows[least], margins[least]
    reach = torch.from_numpy(np.ldexp(ball.reach, -ball.output)).float()
    near = reach[rows] * NEAR
    if tried(ball, attack, points[margins <= near]):
        return True
    # Where points are unsafe by rounding only, descents go on from them.
    if not descend:
        return False
    points, margins = _descended(ball, points, ball.rows[rows])
    return tried(ball, attack, points[margins <= near])


def are_near(ball: PreparedBall, points: Tensor, rows: Tensor) -> Tensor:
    """Return a mask of the points `(batch, inputs)` whose margins are low enough to be tried."""
    margins = (ball.all_stages.outputs(points) * ball.rows[rows]).sum(dim=1)
    reach = torch.from_numpy(np.ldexp(ball.reach, -ball.output)).float()
    return margins <= reach[rows] * NEAR


def tried(ball: PreparedBall, attack: Attack, points: Tensor) -> bool:
    """Return whether one of the points `(count, inputs)` is a counterexample."""
    if not len(points):
        return False
    exact = torch.ldexp(points.to(torch.float64), torch.tensor(ball.question.units.stages[0]))
    return attack(exact.reshape(-1, *ball.question.network.input_shape))


def _descended(ball: PreparedBall, points: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return the best points and margins of a few signed steps of ever smaller size in the ball."""
    lower, upper = ball.ascent.lower, ball.ascent.upper
    radius = math.ldexp(float(ball.question.region.radius[0]), -ball.question.units.stages[0])
    best, least = points, torch.full((len(points),), torch.inf)
    with torch.enable_grad():
        for step in range(DESCENT_STEPS):
            at = points.detach().requires_grad_()
            margins = (ball.all_stages.outputs(at) * rows).sum(dim=1)
            (gradient,) = torch.autograd.grad(margins.sum(), at)
            better = margins.detach() < least
            best, least = torch.where(better[:, None], points, best), torch.minimum(margins.detach(), least)
            move = radius * DESCENT_DECAY**step
            points = torch.minimum(torch.maximum(points - move * gradient.sign(), lower), upper)
    return best, least
