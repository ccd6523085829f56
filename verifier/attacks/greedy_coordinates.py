"""One coordinate after the other, to an end of the domain: greedy by what the gradient promises.

In each step the coordinate that is still as it was and has the greatest |g_i| room_i, with g the gradient of the class
margin and room_i how far the coordinate can move against it, goes all the way. After JSMA (Papernot et al. 2016), which
moves two at once in one direction, by the product of the slopes of the target's score and of the sum of the others;
here both directions are open and the promise is that of the margin. At the end changes are taken back, the first ones
first, where the point stays unsafe without them. Points count by how many coordinates they change.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from verifier.attacks.base import Search
from verifier.attacks.nearest import Nearest, NearestAttack


@dataclass(frozen=True)
class GreedyCoordinates(NearestAttack):
    """Settings: steps: coordinates that change, at most; take_back: how many of the changes are tried without."""

    norms: ClassVar[tuple[str, ...]] = ("inf", "2", "1")

    steps: int = 100
    take_back: int = 30

    def begin(self, search: Search) -> Nearest:
        return Nearest(search, norm="0")

    def approach(self, nearest: Nearest) -> None:
        """Offer the points of the walk, then those with changes taken back."""
        rows, x, order = nearest.all_rows(), nearest.centre.flatten(1).clone(), []
        shape, count = nearest.centre.shape, len(nearest.distances)
        untouched = torch.ones_like(x, dtype=torch.bool)
        for _ in range(min(self.steps, x.shape[1])):
            if not len(rows) or nearest.search.budget.exhausted:
                break
            values, _, gradients = nearest.differentiate(rows, x[rows].reshape(-1, *shape[1:]))
            below, above = nearest.rooms(x[rows].reshape(-1, *shape[1:]))
            room = torch.where(gradients > 0, below, above)
            promise = torch.where(untouched[rows], gradients.abs() * room, 0.0)
            best, where = promise.max(dim=1)
            # An end that lies infinitely far is nowhere to go to.
            going = torch.nonzero((values > 0) & (best > 0) & best.isfinite()).squeeze(1)
            rows, where = rows[going], where[going]
            x[rows, where] -= (gradients.sign() * room)[going, where]
            untouched[rows, where] = False
            order.append(where.new_full((count,), -1).index_copy(0, rows, where))
        if len(rows) and not nearest.search.budget.exhausted:
            nearest.evaluate(rows, nearest.clamp(x[rows].reshape(-1, *shape[1:])))
        self._take_back(nearest, order)

    def _take_back(self, nearest: Nearest, order: list[Tensor]) -> None:
        """Offer the points found without one more of their changes, in turn."""
        for coordinates in order[: self.take_back]:
            rows = torch.nonzero(nearest.found & (coordinates >= 0)).squeeze(1)
            if not len(rows) or nearest.search.budget.exhausted:
                break
            points, centre = nearest.points[rows].flatten(1), nearest.centre[rows].flatten(1)
            where = coordinates[rows, None]
            points = points.scatter(1, where, centre.gather(1, where))
            nearest.evaluate(rows, points.reshape_as(nearest.centre[rows]))
