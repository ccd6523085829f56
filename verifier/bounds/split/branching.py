"""Which unit divides a subproblem, and its two halves.

Candidates are the units whose line above costs the bound most; of these the one whose halves have the largest bounds
together, both cut off at the goal (Bunel et al. 2020; De Palma et al. 2021).
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from verifier.bounds.split.prepared import PreparedBall
from verifier.bounds.split.subproblems import Subproblems

# Splits whose halves are bounded before one is chosen.
CANDIDATES = 4


def chosen_splits(ball: PreparedBall, subproblems: Subproblems, losses: Tensor, goal: float) -> Tensor:
    """Return the unit to split of each subproblem, as its place among the open units; losses: `(batch, open units)`."""
    rows = ball.rows[subproblems.rows]
    losses = torch.where(subproblems.signs == 0, losses, -1.0)
    losses, candidates = losses.topk(min(CANDIDATES, losses.shape[1]), dim=1)
    count = candidates.shape[1]
    each = torch.arange(len(subproblems)).repeat_interleave(2 * count)
    signs = subproblems.signs[each].view(len(subproblems), count, 2, -1)
    places = candidates[:, :, None, None].expand(-1, -1, 2, 1)
    signs.scatter_(3, places, _both_signs().expand(len(subproblems), count, 2, 1))
    lines, stage = ball.split_lines(signs.flatten(0, 2)), ball.ascent.network.output
    bounds = ball.ascent.bound(stage, rows[each], lines, subproblems.slopes[each], subproblems.multipliers[each])
    together = bounds.clamp(max=goal).view(len(subproblems), count, 2).sum(dim=2).nan_to_num(-1e30, -1e30, -1e30)
    best = torch.where(losses >= 0, together, -torch.inf).argmax(dim=1, keepdim=True)
    return candidates.gather(1, best).squeeze(1)


def halves(subproblems: Subproblems, splits: Tensor, firsts: Tensor) -> Subproblems:
    """Return both halves of each subproblem, the one where the unit is at least zero first.

    splits: `(batch,)` places among the open units; firsts: the node of each first half, that of the second is the next.
    """
    both = subproblems[torch.arange(len(subproblems)).repeat_interleave(2)]
    signs = both.signs.clone().view(len(subproblems), 2, -1)
    signs.scatter_(2, splits[:, None, None].expand(-1, 2, 1), _both_signs()[0].expand(len(subproblems), 2, 1))
    return replace(both, nodes=(firsts[:, None] + torch.arange(2)).flatten(), signs=signs.flatten(0, 1))


def _both_signs() -> Tensor:
    return torch.tensor([1, -1], dtype=torch.int8).view(1, 1, 2, 1)
