"""DeepFool: step to the nearest linearised decision boundary until it is crossed (Moosavi-Dezfooli et al. 2016).

At x_i with margins m_k = score_c - score_k and gradients g_k, the nearest boundary is l = argmin_k |m_k| / ||g_k||_q,
and the step to it, in the 2-norm, r_i = -m_l g_l / ||g_l||_2^2 (Algorithm 2; the binary case is one margin). The minus
is essential: Liu and Sha (2019) print the step without it, which doubles the margin of a linear function each time.
x_{i+1} = x + (1 + overshoot) sum_i r_i. Steps stay in the domain: what a coordinate at its edge cannot do, the others
do (`step_to_halfspace`); where no edge is met that is the published step. Exact on linear networks, in one step.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from verifier.attacks.base import Attack, Search
from verifier.attacks.halfspace import step_to_halfspace
from verifier.attacks.nearest import Nearest


@dataclass(frozen=True)
class DeepFool(Attack):
    """Settings of DeepFool.

    steps: linearisations; overshoot: share by which the sum of the steps is lengthened; candidates: how many of the
    best other classes are looked at in each step; segment_steps: halvings of the segment from the input to the point
    found, which the published method does not do (0).
    """

    norms: ClassVar[tuple[str, ...]] = ("inf", "2", "1")
    minimal: ClassVar[bool] = True

    steps: int = 50
    overshoot: float = 0.02
    candidates: int = 10
    segment_steps: int = 0

    def propose(self, search: Search) -> Tensor:
        """Return the first point beyond a boundary for each input, else the one with the least margin."""
        nearest = Nearest(search)
        rows, x = nearest.all_rows(), nearest.centre
        total = torch.zeros_like(x).flatten(1)
        for _ in range(self.steps):
            if not len(rows) or search.budget.exhausted:
                break
            model = nearest.linearise(rows, x, self.candidates)
            margins, gradients = model.nearest_boundary(nearest.norm)
            total = total + step_to_halfspace(gradients, margins, *nearest.rooms(x), nearest.norm)
            # Done: beyond a boundary, or nowhere to go.
            going = torch.nonzero((model.margins[:, 0] > 0) & ~model.vanishing()).squeeze(1)
            rows, total = rows[going], total[going]
            x = nearest.clamp(nearest.centre[rows] + ((1.0 + self.overshoot) * total).reshape_as(x[going]))
        if len(rows) and not search.budget.exhausted:
            nearest.evaluate(rows, x)
        nearest.pull(self.segment_steps)
        return nearest.points
