"""How many steps of ascent a subproblem of a search over signs gets."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from verifier.bounds.split.dual_ascent import Lines
from verifier.bounds.split.own_planes import OwnPlanes
from verifier.bounds.split.plane_search import PlaneNumbers, climbed
from verifier.bounds.split.prepared import PreparedBall
from verifier.bounds.split.subproblems import Subproblems

# Subproblems with so many splits that are still open take so many more: they lie beside the border of the ball, where
# what is missing is little, and every split that is spared counts.
MORE_STEPS = ((12, 10), (32, 40))
# Ascent ends once all bounds pass this share of the margin's unit, its reach rounded up to a power of two.
GOAL = 1e-5
# Steps of points of their own, and as the mean of how many corners those before them count; open ones go on.
POINT_STEPS = ((8, 6), (8, 14))
MOVING = ("bounds", "slopes", "multipliers", "points")


def ascended(ball: PreparedBall, subproblems: Subproblems, steps: int) -> tuple[Subproblems, Lines]:
    """Return subproblems with the numbers of some steps of ascent, and of more after many splits, and their lines.

    Their bounds are those of these numbers. Where subproblems have planes of their own, points move, too.
    """
    rows, own = ball.rows[subproblems.rows], ball.own_planes
    lines = ball.split_lines(subproblems.signs, subproblems.rows, subproblems.boxes, ball.planes_of(subproblems.points))
    made = replace(subproblems, **{name: getattr(subproblems, name).clone() for name in MOVING})
    moving = torch.nonzero(made.bounds <= GOAL).squeeze(1)
    if own is not None:
        for each in POINT_STEPS:
            moving = moving[made.bounds[moving] <= GOAL]
            _climb(ball, own, made, moving, rows, lines, each)
        lines = replace(lines, planes=own.lines(made.points))
    elif len(moving):
        _ascend(ball, made, moving, rows, lines, steps)
    depths = (subproblems.signs != 0).sum(dim=1)
    for depth, more in MORE_STEPS:
        deep = torch.nonzero((made.bounds <= 0) & (depths >= depth)).squeeze(1)
        if len(deep):
            _ascend(ball, made, deep, rows, lines, more)
    return made, lines


def _ascend(ball: PreparedBall, made: Subproblems, places: Tensor, rows: Tensor, lines: Lines, steps: int) -> None:
    """Let the numbers of some subproblems ascend over lines as they are."""
    stage = ball.ascent.network.output
    found, made.slopes[places], moved = ball.ascent.ascend(
        stage, rows[places], lines[places], made.slopes[places], made.multipliers[places], steps, GOAL
    )
    assert moved is not None
    made.bounds[places], made.multipliers[places] = found.nan_to_num(-torch.inf, torch.inf, -torch.inf), moved


def _climb(
    ball: PreparedBall, own: OwnPlanes, made: Subproblems, places: Tensor, rows: Tensor, lines: Lines,
    steps: tuple[int, int],
) -> None:  # fmt: skip
    """Let the numbers and the points of some subproblems ascend."""
    if not len(places):
        return
    start = PlaneNumbers(made.slopes[places], made.multipliers[places], *own.parts(made.points[places]))
    found, numbers = climbed(
        ball.ascent, own.units, ball.ascent.network.output, rows[places], lines[places], start, steps, GOAL
    )
    assert numbers.multipliers is not None and numbers.thresholds is not None
    made.bounds[places] = found.nan_to_num(-torch.inf, torch.inf, -torch.inf)
    made.slopes[places], made.multipliers[places] = numbers.slopes, numbers.multipliers
    made.points[places] = torch.cat([numbers.points, numbers.thresholds], dim=1)
