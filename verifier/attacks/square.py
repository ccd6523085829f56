"""Square: random search in windows that shrink (Andriushchenko, Croce, Flammarion, Hein 2020), from outputs alone.

inf-norm: a random window takes one end of the ball in each channel (their algorithm 2); it starts from vertical
stripes. 2-norm: the budget of two windows, and what is unspent, goes into one of them, in the shape of two rounded
peaks of opposite sign (algorithm 3). A candidate is kept if its margin is less.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import torch
from torch import Tensor

from verifier.attacks.ball import Ball
from verifier.attacks.base import Attack, Search
from verifier.attacks.oracle import Picture, ask
from verifier.attacks.randomness import as_seeds, signs, uniform

# After these numbers of 10,000 queries the share of changed pixels is halved (their appendix B).
HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
# Queries with the widest windows, as in a search of 10,000; the schedule that is scaled to 1,000 has one of them. On a
# 784-256-256-10 network that left 73 of 180 inputs in the 2-norm, and 118 in the inf-norm, instead of 61 and 114.
WIDEST_QUERIES = 10
# Tiles along each side of the first perturbation in the 2-norm, and its narrowest window.
TILES = 5
NARROWEST = 3
# Queries whose random numbers are drawn together: one at a time they took a fifth of the search.
DRAWN_AT_ONCE = 64
# Keeps 0 / 0 out of the directions of empty windows.
TINY = 1e-12


@dataclass(frozen=True)
class Square(Attack):
    """Settings: queries, for each input; share: of the pixels that the first windows cover."""

    norms: ClassVar[tuple[str, ...]] = ("inf", "2")
    needs_gradient: ClassVar[bool] = False

    queries: int = 1000
    share: float = 0.8

    def propose(self, search: Search) -> Tensor:
        """Return the points with the least margin that were met."""
        ball = Ball.of(search.region, search.network.dtype)
        shape, picture = search.region.centre.shape, Picture.of(search.region.centre.shape[1:])
        best = ball.centre.clone()
        seeds, rows = as_seeds(search.seeds, best.device), torch.arange(len(best), device=best.device)
        if search.budget.exhausted or not len(rows):
            return best.reshape(shape)
        stripes, move = (_stripes, _repaint) if ball.norm == "inf" else (_tiles, _shift_budget)
        # Random numbers of a query: the corners of one or two windows, and the sides of the channels.
        wanted = picture.channels + (2 if ball.norm == "inf" else 5)
        numbers = torch.empty(len(rows), 0, wanted, dtype=torch.float64, device=best.device)
        x = stripes(ball, picture, seeds)
        values = ask(search, rows, x)
        for number in range(1, self.queries):
            going = torch.nonzero(~(values <= 0)).squeeze(1)
            if len(going) < len(rows):
                best[rows] = x
                rows, seeds, ball, x, values = rows[going], seeds[going], ball.at(going), x[going], values[going]
                numbers = numbers[going]
            if not len(rows) or search.budget.exhausted:
                break
            spent = max(number - WIDEST_QUERIES, 0)
            block, place = divmod(number - 1, DRAWN_AT_ONCE)
            if place == 0:
                numbers = uniform(seeds, 1 + block, DRAWN_AT_ONCE * wanted).reshape(-1, DRAWN_AT_ONCE, wanted)
            candidate = move(ball, picture, x, numbers[:, place], share_at(self.share, spent / self.queries))
            shortfalls = ask(search, rows, candidate)
            better = shortfalls < values
            x, values = torch.where(better[:, None], candidate, x), torch.where(better, shortfalls, values)
        best[rows] = x
        return best.reshape(shape)


def share_at(share: float, progress: float) -> float:
    """Return the share of the pixels to change when a share `progress` of the queries is spent."""
    return share / 2.0 ** sum(progress * 10_000 > halving for halving in HALVINGS)


def _stripes(ball: Ball, picture: Picture, seeds: Tensor) -> Tensor:
    up = signs(seeds, 0, picture.channels * picture.width).reshape(-1, picture.channels, 1, picture.width) > 0
    up = up.expand(-1, -1, picture.height, -1).flatten(1)
    return torch.where(up, ball.upper, ball.lower)


def _repaint(ball: Ball, picture: Picture, x: Tensor, numbers: Tensor, share: float) -> Tensor:
    """Return x with one window at ends of the ball, a side for each channel, and not the same as x."""
    height, width = picture.window(share)
    pixels = picture.spread(picture.indices(numbers[:, :2], height, width))
    up = (numbers[:, 2:] > 0.5)[:, :, None]
    lower, upper, now = (picture.split(t).gather(2, pixels) for t in (ball.lower, ball.upper, x))
    window = torch.where(up, upper, lower)
    same = (window == now).flatten(1).all(dim=1)
    window = torch.where(same[:, None, None], torch.where(up, lower, upper), window)
    return picture.split(x).scatter(2, pixels, window).flatten(1)


def _tiles(ball: Ball, picture: Picture, seeds: Tensor) -> Tensor:
    """Return points on the sphere whose tiles hold peaks of random signs."""
    height, width = max(picture.height // TILES, 1), max(picture.width // TILES, 1)
    across, down = picture.width // width, picture.height // height
    sides = signs(seeds, 0, picture.channels * across * down).to(ball.centre.dtype)
    grid = sides.reshape(-1, picture.channels, down, across)
    delta = torch.zeros(len(seeds), picture.channels, picture.height, picture.width).to(ball.centre)
    tiles = torch.kron(grid, _peaks(height, width).to(grid))
    delta[:, :, : down * height, : across * width] = tiles
    return _on_sphere(ball, delta.flatten(1))


def _shift_budget(ball: Ball, picture: Picture, x: Tensor, numbers: Tensor, share: float) -> Tensor:
    """Return points whose first window got the budget of both, and what was unspent."""
    height, width = picture.window(share, NARROWEST)
    first, second = (
        picture.spread(picture.indices(places, height, width)) for places in (numbers[:, :2], numbers[:, 2:4])
    )
    delta = picture.split(x - ball.centre)
    one = delta.gather(2, first)
    emptied = delta.scatter(2, second, 0.0).scatter(2, first, 0.0)
    unspent = (ball.radius**2 - emptied.flatten(1).square().sum(dim=1)).clamp(min=0)
    lying = numbers[:, 4, None, None] > 0.5
    peaks = torch.where(lying, _peaks(width, height).T.flatten().to(one), _peaks(height, width).flatten().to(one))
    sides = (numbers[:, 5:, None] - 0.5).sign().to(one.dtype)
    fresh = peaks * sides + one / (torch.linalg.vector_norm(one, dim=(1, 2), keepdim=True) + TINY)
    size = torch.linalg.vector_norm(fresh, dim=(1, 2), keepdim=True) + TINY
    fresh = fresh / size * unspent.sqrt()[:, None, None]
    return _on_sphere(ball, emptied.scatter(2, first, fresh).flatten(1))


def _on_sphere(ball: Ball, delta: Tensor) -> Tensor:
    length = torch.linalg.vector_norm(delta, dim=1, keepdim=True) + TINY
    return ball.project(ball.centre + delta / length * ball.radius[:, None])


@lru_cache(maxsize=256)
def _peaks(height: int, width: int) -> Tensor:
    """Return two rounded peaks of opposite sign, one above the other, of 2-norm 1 (their equation 2)."""
    if height == 1:
        return _peaks(width, 1).T if width > 1 else torch.ones(1, 1)
    half = height // 2
    both = torch.cat([_peak(half, width), -_peak(height - half, width)])
    length: Tensor = torch.linalg.vector_norm(both)
    return both / length


def _peak(height: int, width: int) -> Tensor:
    """Return squares around the centre of growing size k, each 1 / (k + 1)^2 high, of 2-norm 1."""
    peak, row, column = torch.zeros(height, width), height // 2, width // 2
    for k in range(max(row, column) + 1):
        peak[max(row - k, 0) : row + k + 1, max(column - k, 0) : column + k + 1] += 1 / (k + 1) ** 2
    length: Tensor = torch.linalg.vector_norm(peak)
    return peak / length
