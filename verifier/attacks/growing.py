"""The fast gradient sign method with a growing radius: the smallest radius of a grid at which it breaks an input.

x_k = the least point, over the ball of radius k r / K, of the linearisation at the centre; k = 1, 2, ... until the
class changes (Liu, Sha 2019, section 4; Goodfellow et al. 2015 for one radius). One gradient serves the whole grid.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from verifier.attacks.ball import Ball
from verifier.attacks.base import Attack, Search
from verifier.attacks.criteria import slopes
from verifier.attacks.oracle import ask
from verifier.attacks.revival import second_directions
from verifier.attacks.source import Source, SourceMaker


@dataclass(frozen=True)
class Growing(Attack):
    """Settings: the grid has `grid` radii up to that of the search; loss: a row of `LOSSES`."""

    norms: ClassVar[tuple[str, ...]] = ("inf", "2", "1")
    minimal: ClassVar[bool] = True

    grid: int = 64
    loss: str = "cross-entropy"
    source: SourceMaker = Source

    def propose(self, search: Search) -> Tensor:
        """Return for each input the point of the smallest grid radius that is unsafe, else that of the greatest."""
        dtype, shape = search.network.dtype, search.region.centre.shape
        best = Ball.of(search.region, dtype).centre
        if search.budget.exhausted or not len(search):
            return best.reshape(shape)
        gradient = self._gradient(search, best)
        rows = torch.nonzero(ask(search, slice(None), best) > 0).squeeze(1)
        for number in range(1, self.grid + 1):
            if not len(rows) or search.budget.exhausted:
                break
            part = search.region[rows]
            points = Ball.of(part.with_radius(part.radius * (number / self.grid)), dtype).vertex(gradient[rows])
            best[rows] = points
            rows = rows[ask(search, rows, points) > 0]
        return best.reshape(shape)

    def _gradient(self, search: Search, centre: Tensor) -> Tensor:
        def at(scores: Tensor, rows: Tensor | slice = slice(None)) -> Tensor:
            targets = None if search.targets is None else search.targets[rows]
            return slopes(self.loss, scores, search.classes[rows], targets)

        _, gradient = self.source(search.network).differentiate(centre.reshape(search.region.centre.shape), at)
        search.record.count_gradients(slice(None))
        rows = torch.arange(len(search), device=centre.device)
        return second_directions(search, rows, centre, gradient.flatten(1), at, 0)
