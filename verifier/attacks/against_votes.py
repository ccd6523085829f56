"""Attacks of the vote of draws: they go on where the mean of a network is broken and most of its draws are not.

Attacks of a network that draws are of the network of the means, and end where it breaks: at its boundary, where draws
are of two minds, or where most of them keep the class. So a point is moved away from the input to the border of the
ball, and while the vote withstands there, descents that take all their steps follow: along gradients of the mean, then
along mean gradients of fresh draws (EOT), on the margin and on the cross-entropy. Of all points that is proposed at
which the class is least ahead, by draws that are neither descended on nor judge the result (`verifier.votes`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from encoders.region import BallRegion
from verifier.attacks.base import Attack, Search, clip
from verifier.attacks.descent import Descent
from verifier.attacks.expectation import Expectation
from verifier.attacks.source import Source
from verifier.attacks.steps import Adaptive, Steepest
from verifier.votes import BROKEN, votes_at

# Draws that say how far the class is ahead, their seed, and how sure they must be for an input to be left alone: a vote
# that is just broken by these draws is often open by others.
LOOKS, SEED, SURE = 100, 1 << 30, 0.999
# Draws in a step of EOT.
DRAWS = 20


def _to_the_end(rule: Steepest | Adaptive, loss: str, restarts: int, draws: int | None) -> Descent:
    source = Source if draws is None else Expectation(draws)
    return Descent(40, rule, loss, restarts=restarts, sources=(source,), until_broken=False)


# In turn, on what the vote still withstands; the third is `eot`, the others are cheaper or see another loss.
ROUNDS: tuple[Attack, ...] = (
    _to_the_end(Steepest(0.1), "margin", 2, None),
    _to_the_end(Adaptive(), "cross-entropy", 1, None),
    _to_the_end(Steepest(0.1), "margin", 2, DRAWS),
    _to_the_end(Adaptive(), "cross-entropy", 2, DRAWS),
)


@dataclass(frozen=True)
class AgainstVotes(Attack):
    """Settings: the attack that is first, of the mean or of draws. Of a network that draws nothing it is all."""

    norms: ClassVar[tuple[str, ...]] = ("inf", "2", "1")

    first: Attack

    def propose(self, search: Search) -> Tensor:
        """Return for each input the point tried at which the class is least ahead among draws."""
        points = self.first.proposed(search)
        return fewest_votes(search, points) if search.network.randomised else points


def fewest_votes(search: Search, points: Tensor) -> Tensor:
    """Return points of the balls at which draws prefer the class least, from given ones `(batch, *shape)` on.

    In the dtype of the network; of points that are equally good the first, so that it is never behind those given.
    Those are also looked at where they lie, the others only on the border. Raises ValueError where nothing is drawn.
    """
    best, _ = clip(search.region, points, search.network.dtype)
    ahead, settled = _looked(search, best)
    for attack in (None, *ROUNDS):
        rows = torch.nonzero(~settled).squeeze(1)
        if not len(rows) or search.budget.exhausted:
            break
        part = search.at(rows)
        tried = to_border(part.region, best[rows] if attack is None else attack.proposed(part), search.network.dtype)
        values, broken = _looked(part, tried)
        better = values < ahead[rows]
        best[rows[better]], ahead[rows[better]] = tried[better], values[better]
        settled[rows] |= broken
    return best


def _looked(search: Search, points: Tensor) -> tuple[Tensor, Tensor]:
    """Return (by how many of LOOKS draws the class is ahead, whether its vote is surely broken) at points."""
    votes = votes_at(search.network, points, LOOKS, SEED)
    search.record.count_queries(slice(None), LOOKS)
    counts, own = votes.choosing + votes.deciding, search.classes[:, None]
    ahead = counts.gather(1, own).squeeze(1) - counts.scatter(1, own, -1).amax(dim=1)
    return ahead, votes.outcomes(search.classes, SURE) == BROKEN


def to_border(region: BallRegion, points: Tensor, dtype: torch.dtype) -> Tensor:
    """Return points moved away from the centres to the border of their balls, cut to the domain, in a dtype."""
    away = (points.double() - region.centre).flatten(1)
    size = torch.linalg.vector_norm(away, ord=float(region.norm), dim=1)
    # What did not move has no direction to go on in.
    factor = torch.where(size > 0, region.radius / size.clamp(min=torch.finfo(torch.float32).tiny), 1.0).clamp(min=1.0)
    return region.clip(region.centre + (away * factor[:, None]).reshape(region.centre.shape), dtype)
