"""The inner problem of Carlini and Wagner (2017): minimise D(x - x_o) + c max(f(x) + kappa, 0) over a box, by Adam.

f + kappa is the shortfall of the scores (their f_6): the class margin, or how far a target is behind. The box is
removed by x = middle + half tanh(w), or points are moved back into it after each step (section V-B, its third and its
first way); without a domain x = w. Adam (Kingma and Ba 2015) runs on all inputs at once, and inputs that no longer
gain leave the batch.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from verifier.attacks.nearest import Nearest

# Keeps w finite where a coordinate lies on the edge of the domain. The authors' code has 1 - 1e-6, where tanh is so
# flat that Adam needs 170 steps of 0.03 to leave it: distortions of digits were a third larger at 100 steps.
EDGE = 0.999
# Adam's usual constants.
DECAY, SQUARE_DECAY, STABILISER = 0.9, 0.999, 1e-8
# An input leaves when the least loss of a tenth of the steps is not below this share of that of the tenth before. The
# authors' code compares single losses, which the first large steps of Adam make meaningless; the first tenth is
# therefore not compared at all.
LEAST_GAIN = 0.9999
WINDOWS = 10

# (differences (batch, n), positions of the inputs in the problem) -> distortions (batch,)
Distortion = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Problem:
    """Inner problems of the given rows: distortion D, constants c `(rows,)`, and the start `(rows, *shape)`.

    movable: mask of the coordinates that may change, or None for all. projected: whether x itself is the variable.
    """

    nearest: Nearest
    rows: Tensor
    distortion: Distortion
    constants: Tensor
    start: Tensor
    movable: Tensor | None = None
    projected: bool = False

    def encode(self, x: Tensor) -> Tensor:
        """Return the variables of points."""
        return x.clone() if self.projected else _encode(self.nearest, x)

    def decode(self, w: Tensor) -> Tensor:
        """Return the points of variables."""
        return self.nearest.clamp(w) if self.projected else _decode(self.nearest, w)

    def moved(self, w: Tensor) -> Tensor:
        """Return variables after a step, those that are points back in the domain."""
        return self.nearest.clamp(w) if self.projected else w


def minimise(problem: Problem, steps: int, rates: float | Tensor) -> Tensor:
    """Return a mask `(rows,)`: whether Adam ended near unsafe points. All that it meets are offered to `nearest`.

    rates: of Adam, one for all or one for each row. Near: an unsafe point was met in the last tenth of its steps or the
    one before. The first steps, which are large, meet some even where c is too small to hold them.
    """
    budget = problem.nearest.search.budget
    positions = torch.arange(len(problem.rows), device=problem.rows.device)
    now = torch.zeros_like(positions, dtype=torch.bool)
    before = now.clone()
    window = max(1, steps // WINDOWS)
    w = problem.encode(problem.start)
    rate = torch.as_tensor(rates).to(w).expand(len(positions)).reshape(-1, *[1] * (w.dim() - 1))
    first, second = torch.zeros_like(w), torch.zeros_like(w)
    least = torch.full_like(problem.constants, torch.inf)
    previous = least.clone()
    for number in range(1, steps + 1):
        if not len(positions) or budget.exhausted:
            break
        w = w.detach().requires_grad_()
        shortfall, loss = _evaluate(problem, positions, w)
        now[positions] |= shortfall.detach() <= 0
        (gradient,) = torch.autograd.grad(loss.sum(), w)
        first = DECAY * first + (1 - DECAY) * gradient
        second = SQUARE_DECAY * second + (1 - SQUARE_DECAY) * gradient * gradient
        slope = (first / (1 - DECAY**number)) / ((second / (1 - SQUARE_DECAY**number)).sqrt() + STABILISER)
        # The rate falls to zero, or the last steps only swing around the minimum.
        w = problem.moved(w.detach() - rate[positions] * (1 - number / steps) * slope)
        least = torch.minimum(least, loss.detach())
        if number % window == 0:
            if number > 2 * window:
                going = torch.nonzero(least < LEAST_GAIN * previous).squeeze(1)
                positions, least = positions[going], least[going]
                w, first, second = w[going], first[going], second[going]
            previous, least = least, torch.full_like(least, torch.inf)
            if number < steps:
                before[positions], now[positions] = now[positions], False
    return now | before


def _evaluate(problem: Problem, positions: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
    """Return (shortfalls, losses) at the variables, after offering the points."""
    nearest, rows = problem.nearest, problem.rows[positions]
    centre = nearest.centre[rows]
    x = problem.decode(w)
    if problem.movable is not None:
        x = torch.where(problem.movable[positions], x, centre)
    shortfall = nearest.measure(rows, nearest.source.scores(x))
    nearest.search.record.count_gradients(rows)
    nearest.offer(rows, x, shortfall)
    distortion = problem.distortion((x - centre).flatten(1), positions)
    return shortfall, distortion + problem.constants[positions] * shortfall.clamp(min=0)


def _encode(nearest: Nearest, x: Tensor) -> Tensor:
    if not nearest.bounded:
        return x.clone()
    middle, half = _middle_and_half(nearest)
    # A coordinate without room has no width to divide by.
    return torch.atanh(((x - middle) / torch.where(half > 0, half, 1.0) * EDGE).clamp(-EDGE, EDGE))


def _decode(nearest: Nearest, w: Tensor) -> Tensor:
    if not nearest.bounded:
        return nearest.clamp(w)
    middle, half = _middle_and_half(nearest)
    return nearest.clamp(middle + half * torch.tanh(w))


def _middle_and_half(nearest: Nearest) -> tuple[Tensor, Tensor]:
    """Return the middle of the domain and half its width, in the model's dtype."""
    least, greatest = nearest.ends
    return ((greatest + least) / 2).to(nearest.centre), ((greatest - least) / 2).to(nearest.centre)
