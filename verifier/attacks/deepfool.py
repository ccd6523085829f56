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

from verifier.attacks.halfspace import step_to_halfspace
from verifier.attacks.nearest import Nearest, NearestAttack


@dataclass(frozen=True)
class DeepFool(NearestAttack):
    """Settings of DeepFool.

    steps: linearisations; overshoot: share by which the sum of the steps is lengthened; candidates: how many of the
    best other classes are looked at in each step; clipped_steps: how many of the first steps do not heed the domain but
    are cut to it, as is usual: they look at more boundaries on the way, and some inputs need very many of them (in the
    1-norm there are none). The published method does neither of the others (0): projections, of the input on the
    boundary linearised at the point found; segment_steps, halvings of the segment to it.
    """

    norms: ClassVar[tuple[str, ...]] = ("inf", "2", "1")

    steps: int = 50
    overshoot: float = 0.02
    candidates: int = 10
    clipped_steps: int = 0
    projections: int = 0
    segment_steps: int = 0

    def approach(self, nearest: Nearest) -> None:
        """Offer the first point beyond a boundary for each input."""
        search = nearest.search
        rows, x = nearest.all_rows(), nearest.centre
        total = torch.zeros_like(x).flatten(1)
        for number in range(self.steps):
            if not len(rows) or search.budget.exhausted:
                break
            model = nearest.linearise(rows, x, self.candidates)
            margins, gradients = model.nearest_boundary(nearest.norm)
            rooms = nearest.rooms(x)
            if number < self.clipped_steps and nearest.norm != "1":
                rooms = (torch.full_like(total, torch.inf),) * 2
            elif number == self.clipped_steps:
                # What the domain cut off is forgotten.
                total = (x - nearest.centre[rows]).flatten(1) / (1.0 + self.overshoot)
            total = total + step_to_halfspace(gradients, margins, *rooms, nearest.norm)
            # Done: beyond a boundary, or nowhere to go.
            going = torch.nonzero((model.margins[:, 0] > 0) & ~model.vanishing()).squeeze(1)
            rows, total = rows[going], total[going]
            x = nearest.clamp(nearest.centre[rows] + ((1.0 + self.overshoot) * total).reshape_as(x[going]))
        if len(rows) and not search.budget.exhausted:
            nearest.evaluate(rows, x)
        nearest.polish(self.projections)
        nearest.pull(self.segment_steps)
