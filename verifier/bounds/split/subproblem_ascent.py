"""How many steps of ascent a subproblem of a search over signs gets."""

from __future__ import annotations

import torch
from torch import Tensor

from verifier.bounds.split.dual_ascent import Lines
from verifier.bounds.split.prepared import PreparedBall
from verifier.bounds.split.subproblems import Subproblems

# Subproblems with so many splits that are still open take so many more: they lie beside the border of the ball, where
# what is missing is little, and every split that is spared counts.
MORE_STEPS = ((12, 10), (32, 40))
# Ascent ends once all bounds pass this share of the margin's unit, its reach rounded up to a power of two.
GOAL = 1e-5


def ascended(
    ball: PreparedBall, subproblems: Subproblems, rows: Tensor, lines: Lines, steps: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return (bounds, slopes, multipliers) after some steps of ascent, and more for subproblems of many splits."""
    ascent, stage = ball.ascent, ball.ascent.network.output
    bounds, slopes, multipliers = (
        numbers.clone() for numbers in (subproblems.bounds, subproblems.slopes, subproblems.multipliers)
    )

    def ascend(places: Tensor, count: int) -> None:
        found, slopes[places], moved = ascent.ascend(
            stage, rows[places], lines[places], slopes[places], multipliers[places], count, GOAL
        )
        assert moved is not None
        bounds[places], multipliers[places] = found.nan_to_num(-torch.inf, torch.inf, -torch.inf), moved

    moving = torch.nonzero(bounds <= GOAL).squeeze(1)
    if len(moving):
        ascend(moving, steps)
    depths = (subproblems.signs != 0).sum(dim=1)
    for depth, more in MORE_STEPS:
        deep = torch.nonzero((bounds <= 0) & (depths >= depth)).squeeze(1)
        if len(deep):
            ascend(deep, more)
    return bounds, slopes, multipliers
