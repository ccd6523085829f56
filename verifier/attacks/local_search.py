"""Greedy search over pixels, from outputs alone: LocalSearch and the single pixel.

LocalSearch (Narodytska, Kasiviswanathan 2017): in every round some pixels are tried, the neighbours of the last
change and random ones, each at both ends of the ball; those that lower the margin most are changed together. Theirs
sets pixels to values outside the picture's range and counts how many; here they stay in the ball.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from verifier.attacks.ball import Ball
from verifier.attacks.base import Attack, Search
from verifier.attacks.oracle import Picture, ask
from verifier.attacks.randomness import as_seeds, uniform


@dataclass(frozen=True)
class LocalSearch(Attack):
    """Settings: rounds; candidates: pixels tried in a round; together: at most so many are changed in a round.

    reach: neighbours are at most so many pixels away in each direction.
    """

    norms: ClassVar[tuple[str, ...]] = ("inf", "2", "1")
    needs_gradient: ClassVar[bool] = False

    rounds: int = 60
    candidates: int = 16
    together: int = 5
    reach: int = 2

    @property
    def queries_a_round(self) -> int:
        """What a round costs: both ends of each candidate, and the best together."""
        return 2 * self.candidates + 1

    def propose(self, search: Search) -> Tensor:
        """Return the points with the least margin that were met."""
        ball, shape = Ball.of(search.region, search.network.dtype), search.region.centre.shape
        picture, best = Picture.of(shape[1:]), ball.centre.clone()
        seeds, rows = as_seeds(search.seeds, best.device), torch.arange(len(best), device=best.device)
        if search.budget.exhausted or not len(rows):
            return best.reshape(shape)
        # Not `best` itself, which is written to.
        x, values = ball.centre, ask(search, rows, best)
        last = torch.full_like(rows, -1)
        for number in range(self.rounds):
            going = torch.nonzero(~(values <= 0)).squeeze(1)
            if len(going) < len(rows):
                best[rows] = x
                rows, seeds, ball, x, values = rows[going], seeds[going], ball.at(going), x[going], values[going]
                last = last[going]
            if not len(rows) or search.budget.exhausted:
                break
            pixels = self._candidates(picture, seeds, number, last)
            x, values, last = self._round(search, rows, ball, picture, x, values, pixels)
        best[rows] = x
        return best.reshape(shape)

    def _candidates(self, picture: Picture, seeds: Tensor, number: int, last: Tensor) -> Tensor:
        """Return pixels to try `(batch, candidates)`: one half near the last change where there was one."""
        numbers = uniform(seeds, number, 3 * self.candidates).reshape(len(seeds), 3, -1)
        anywhere = (numbers[:, 0] * picture.pixels).long()
        away = (numbers[:, 1:] * (2 * self.reach + 1)).long() - self.reach
        row = (last[:, None] // picture.width + away[:, 0]).clamp(0, picture.height - 1)
        column = (last[:, None] % picture.width + away[:, 1]).clamp(0, picture.width - 1)
        near = (last[:, None] >= 0) & (torch.arange(self.candidates, device=last.device) % 2 == 0)
        return torch.where(near, row * picture.width + column, anywhere)

    def _round(
        self, search: Search, rows: Tensor, ball: Ball, picture: Picture, x: Tensor, values: Tensor, pixels: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return (points, margins, pixels changed or -1) after one round."""
        tried = try_pixels(search, rows, ball, picture, x, pixels)
        single, order = tried.sort(dim=1, stable=True)
        moves, ups = order % pixels.shape[1], order >= pixels.shape[1]
        changed_pixels = pixels.gather(1, moves)
        one = ball.project(set_pixels(ball, picture, x, changed_pixels[:, :1], ups[:, :1]))
        both = x
        # From the worst to the best, so that where ends of one pixel compete the better one stays.
        for position in reversed(range(min(self.together, single.shape[1]))):
            helps = single[:, position] < values
            changed = set_pixels(ball, picture, both, changed_pixels[:, position, None], ups[:, position, None])
            both = torch.where(helps[:, None], changed, both)
        both = ball.project(both)
        together = ask(search, rows, both)
        better_together = together <= single[:, 0]
        least = torch.where(better_together, together, single[:, 0])
        better = least < values
        x = torch.where((better & better_together)[:, None], both, torch.where(better[:, None], one, x))
        return x, torch.where(better, least, values), torch.where(better, changed_pixels[:, 0], -1)


@dataclass(frozen=True)
class SinglePixel(Attack):
    """Change one pixel, in all channels, to an end of the ball. Settings: pixels to try, all if there are fewer."""

    norms: ClassVar[tuple[str, ...]] = ("inf", "2", "1")
    needs_gradient: ClassVar[bool] = False

    pixels: int = 1024
    at_once: int = 32

    def propose(self, search: Search) -> Tensor:
        """Return the points with the least margin that were met."""
        ball, shape = Ball.of(search.region, search.network.dtype), search.region.centre.shape
        picture, best = Picture.of(shape[1:]), ball.centre.clone()
        rows, least = torch.arange(len(best), device=best.device), torch.full_like(ball.radius, torch.inf)
        # A random order for each input, so that the first ones are a fair sample.
        order = uniform(as_seeds(search.seeds, best.device), 0, picture.pixels).argsort(dim=1)
        for begin in range(0, min(self.pixels, picture.pixels), self.at_once):
            if not len(rows) or search.budget.exhausted:
                break
            part, pixels = ball.at(rows), order[rows, begin : begin + self.at_once]
            tried = try_pixels(search, rows, part, picture, part.centre, pixels)
            values, which = tried.min(dim=1, keepdim=True)
            pixel, up = pixels.gather(1, which % pixels.shape[1]), which >= pixels.shape[1]
            points = part.project(set_pixels(part, picture, part.centre, pixel, up))
            better = values[:, 0] < least[rows]
            best[rows[better]], least[rows[better]] = points[better], values[better, 0]
            rows = rows[~(values[:, 0] <= 0)]
        return best.reshape(shape)


def set_pixels(ball: Ball, picture: Picture, x: Tensor, pixels: Tensor, up: Tensor) -> Tensor:
    """Return x with pixels `(batch, k)` at the upper (`up`) or lower ends of the box in all channels."""
    where = picture.spread(pixels)
    upper, lower = (picture.split(end).gather(2, where) for end in (ball.upper, ball.lower))
    return picture.split(x).scatter(2, where, torch.where(up[:, None, :], upper, lower)).flatten(1)


def try_pixels(search: Search, rows: Tensor, ball: Ball, picture: Picture, x: Tensor, pixels: Tensor) -> Tensor:
    """Return the shortfalls `(batch, 2 k)` of x with one pixel changed: k times to the lower, then to the upper end."""
    count, k = pixels.shape
    owner = torch.arange(count, device=x.device).repeat_interleave(2 * k)
    up = torch.arange(2, device=x.device).repeat_interleave(k).repeat(count)[:, None].bool()
    wide = ball.at(owner)
    points = wide.project(set_pixels(wide, picture, x[owner], pixels.repeat(1, 2).reshape(-1, 1), up))
    return ask(search, rows[owner], points).reshape(count, 2 * k)
