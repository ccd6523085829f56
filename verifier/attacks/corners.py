"""Random extreme points of the ball: what a network that hides its gradients hides least.

Each is the least point of a random linear function: in the inf-norm a uniformly random corner of the box, in the
2-norm a random direction, in the 1-norm the random coordinates that fill the radius.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from verifier.attacks.ball import Ball
from verifier.attacks.base import Attack, Search
from verifier.attacks.oracle import ask
from verifier.attacks.randomness import as_seeds, signs, uniform


@dataclass(frozen=True)
class Corners(Attack):
    """Settings: how many points to try for each input."""

    norms: ClassVar[tuple[str, ...]] = ("inf", "2", "1")
    needs_gradient: ClassVar[bool] = False

    count: int = 100

    def propose(self, search: Search) -> Tensor:
        """Return the points with the least margin that were met."""
        ball = Ball.of(search.region, search.network.dtype)
        best, least = ball.centre.clone(), torch.full_like(ball.radius, torch.inf)
        seeds, rows = as_seeds(search.seeds, best.device), torch.arange(len(best), device=best.device)
        for number in range(self.count):
            if not len(rows) or search.budget.exhausted:
                break
            part = ball.at(rows)
            points = part.vertex(self._direction(seeds[rows], number, part))
            values = ask(search, rows, points)
            better = values < least[rows]
            best[rows[better]], least[rows[better]] = points[better], values[better]
            rows = rows[~(values <= 0)]
        return best.reshape(search.region.centre.shape)

    def _direction(self, seeds: Tensor, number: int, ball: Ball) -> Tensor:
        """Return normal numbers (Box and Muller), in the dtype of the balls; in the inf-norm signs say as much."""
        like = ball.centre
        if ball.norm == "inf":
            return signs(seeds, number, like.shape[1]).to(like.dtype)
        numbers = uniform(seeds, number, 2 * like.shape[1])
        radial, angular = numbers[:, ::2], numbers[:, 1::2]
        return ((-2 * radial.log()).sqrt() * torch.cos(2 * math.pi * angular)).to(like.dtype)
