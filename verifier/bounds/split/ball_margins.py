"""Margins on whole balls by ascent, without splits: each unit's box has slopes of its own, then each rival.

With boxes of the units fixed, the best slopes of a bound are those of one linear program (Salman et al. 2019). Boxes
are bounded layer by layer, each end by slopes that are best for it, where one set of slopes for all ends of a layer
is a compromise. The gradient is closed (`verifier.bounds.split.dual_ascent`); what the slopes prove is evaluated in
float64 with every rounding bounded, on the processor; ascent runs where the ball lies. Not covered: other norms,
networks held as ops.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from encoders.network import Network
from encoders.passes import expand_max_pools
from encoders.region import BallRegion
from verifier.bounds.split.operators import COST, MOST_ENTRIES
from verifier.bounds.split.prepared import prepare
from verifier.bounds.split.question import split_question
from verifier.bounds.split.unit_boxes import first_slopes
from verifier.budget import Budget
from verifier.certificates.scope import multiplications, stage_sizes
from verifier.certificates.sign_leaves import leaf_bounds
from verifier.certificates.split_program import split_refusal

# Of the steps for rivals, the share that the ends of boxes get: half of them give nearly all.
BOX_SHARE = 0.5


@dataclass(frozen=True, eq=False)
class BallMargins:
    """lower: `(classes,)` float64, proved bounds of y_c - y_k; infinite for c. points: `(classes, *input_shape)`, where
    the linear functions of the input below them are least; the centre for c.
    """

    lower: Tensor
    points: Tensor


def takes_ascent(network: Network, region: BallRegion) -> bool:
    """Return whether margins on these balls are bounded by ascent: hinges between matrices."""
    return region.norm == "inf" and has_matrices(network)


def has_matrices(network: Network) -> bool:
    """Return whether a network has hinges between matrices that are not too large, and one vector of outputs."""
    if split_refusal(network) is not None or len(network.output_shape) != 1:
        return False
    plain = expand_max_pools(network)
    return stage_sizes(plain)[1] <= min(COST * multiplications(plain), MOST_ENTRIES)


def ball_margins(
    network: Network, region: BallRegion, winner: int, steps: int, budget: Budget, planes: bool = False
) -> BallMargins:
    """Return the margins of a class on one ball (batch 1) that `takes_ascent`, rigorous in float64, where it lies.

    planes: whether the first hinge gets planes in place of its lines above, for boxes and rivals: dearer than the rest.
    """
    question = split_question(network, region.unscaled, winner)
    ball = prepare(question, round(BOX_SHARE * steps), budget, planes=planes)
    rows, nothing = ball.rows, torch.zeros(len(ball.rows), len(ball.open_units))
    stage, lines = ball.ascent.network.output, ball.split_lines(nothing.to(torch.int8), torch.arange(len(rows)))
    slopes = first_slopes(ball.lines).expand(len(rows), -1)
    slopes = ball.ascent.ascend(stage, rows, lines, slopes, None, steps, torch.inf)[1]
    ends = ball.ascent.evaluate(stage, rows, lines, slopes, None).points
    signs, open_units = ball.on_all_units(nothing).numpy(), ball.open_units.numpy()
    numbers = slopes.numpy(), nothing.numpy()
    above = None if ball.planes is None else ball.planes.proved
    bounds = leaf_bounds(ball.program, question.rows, signs, open_units, *numbers, planes=above)
    lower = torch.full((len(rows) + 1,), torch.inf, dtype=torch.float64)
    lower[list(question.rivals)] = torch.from_numpy(bounds)
    points = region.centre.cpu().repeat(len(rows) + 1, *[1] * (region.centre.dim() - 1))
    exact = torch.ldexp(ends.to(torch.float64), torch.tensor(question.units.stages[0]))
    points[list(question.rivals)] = exact.reshape(-1, *region.centre.shape[1:])
    return BallMargins(lower.to(region.centre.device), points.to(region.centre.device))
