"""An attack that knows the detector: signed steps to the target class, and then down what the detector scores.

    until f_t leads by a tenth of its clean lead:  max over j of f_j(x) - f_t(x)
    from there on:                                 sum over noises and i != t of max(z_i(x) - threshold + SPARE, 0)

The noise is the detector's own, which belongs to the input and so is known: some of its draws in each step, others in
the next, all in turn (the detector falls to attacks that know it: Tramer, Carlini, Brendel, Madry 2020, section 5.4;
one of two losses at a time: Bryniarski et al. 2021). Targets are the classes in the order of the scores; a point of
another class that is not flagged ends the search of an input after its descent, else the least score counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from verifier.attacks.base import Attack, Search
from verifier.attacks.randomness import as_seeds
from verifier.detection.odds import Odds

# Steps between two looks of the detector at the points, once the target class leads.
LOOK = 4
# Length of a step in radii, times the number of steps: at the start, from the half on, and at the end.
LENGTHS = (2.5, 2.0, 0.2)
# Of the moving sum of gradients, each of unit mean size, that a step follows.
MOMENTUM = 0.75
# By how much scores are to stay below the threshold.
SPARE = 1.0


@dataclass(frozen=True, eq=False)
class Evasion(Attack):
    """Settings: the detector, steps to each of so many targets, draws of each noise in a step."""

    norms: ClassVar[tuple[str, ...]] = ("inf",)

    detector: Odds
    steps: int = 60
    targets: int = 3
    draws: int = 8

    def propose(self, search: Search) -> Tensor:
        """Return for each input the least odd point of another class, else the input."""
        centre = search.region.clip(search.region.centre, search.network.dtype)
        best, least = centre.clone(), torch.full_like(search.region.radius, torch.inf)
        with torch.no_grad():
            order = (
                search.network.scores(centre).scatter(1, search.classes[:, None], -torch.inf).argsort(descending=True)
            )
        for place in range(min(self.targets, order.shape[1] - 1)):
            left = torch.nonzero(~(least < self.detector.threshold)).squeeze(1)
            if not len(left) or search.budget.exhausted:
                break
            points, scores = self._descend(search.at(left), centre[left], order[left, place])
            better = scores < least[left]
            best[left[better]], least[left[better]] = points[better], scores[better]
        return best

    def _descend(self, search: Search, x: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Return (points, the detector's scores) of the least odd points that a descent meets; infinity where none."""
        best, least, sum_of_gradients = x.clone(), torch.full_like(search.region.radius, torch.inf), 0.0 * x
        radius = search.region.radius.reshape(-1, *[1] * (x.dim() - 1)).to(x)
        start, middle, end = LENGTHS
        for step in range(self.steps):
            if search.budget.exhausted:
                break
            late = max(0.0, 2.0 * step / self.steps - 1.0)
            length = (middle + (end - middle) * late if 2 * step >= self.steps else start) / self.steps
            gradient = self._gradient(search, x, target, step)
            size = gradient.abs().flatten(1).mean(dim=1).clamp(min=torch.finfo(x.dtype).tiny).reshape_as(radius)
            sum_of_gradients = MOMENTUM * sum_of_gradients + gradient / size
            x = search.region.clip(x - length * radius * sum_of_gradients.sign(), x.dtype)
            search.record.count_gradients(slice(None), torch.full_like(search.classes, self._points))
            if ((step + 1) % LOOK == 0 and 3 * step >= self.steps) or step + 1 == self.steps:
                found = self.detector.scores(search.network, x, search.seeds)
                score = torch.where(found.predicted != search.classes, found.score, torch.inf)
                better = score < least
                best[better], least[better] = x[better], score[better]
        return best, least

    @property
    def _points(self) -> int:
        return 1 + self.draws * len(self.detector.noises)

    def _gradient(self, search: Search, x: Tensor, target: Tensor, step: int) -> Tensor:
        """Return the gradient of what is odd about x as a point of the target class, and of what that lacks."""
        seeds, count = as_seeds(search.seeds, x.device), x[0].numel()
        moved = [x]
        for number, noise in enumerate(self.detector.noises):
            # Draws of one noise lie side by side.
            for draw in range(self.draws):
                sample = (step * self.draws + draw) % self.detector.samples
                stream = number * self.detector.samples + sample
                moved.append(x + noise.at(seeds, stream, count).reshape(x.shape).to(x))
        mean, deviation = (part[:, target].to(x) for part in (self.detector.mean, self.detector.deviation))
        with torch.enable_grad():
            shared = x.detach().requires_grad_(True)
            points = torch.cat([shared + (other - x).detach() for other in moved])
            scores = search.network.scores(points if self.detector.clip is None else points.clamp(*self.detector.clip))
            scores = scores.unflatten(0, (len(moved), len(x)))
            odds = scores - scores.gather(2, target[None, :, None].expand(len(moved), -1, 1))
            shift = (odds[1:] - odds[:1]).unflatten(0, (len(self.detector.noises), self.draws)).mean(dim=1)
            others = torch.nn.functional.one_hot(target, odds.shape[2]) == 0
            # The shift of a class against itself is 0, and has no deviation.
            z = (shift - mean) / deviation.masked_fill(~others, 1.0)
            oddness = (z - (self.detector.threshold - SPARE)).clamp(min=0.0).mul(others).sum(dim=(0, 2))
            # How far the target is from being the class, in units of its clean lead, and ahead by a tenth of it.
            lead = self.detector.profile[target].to(x).abs().mean(dim=1)
            missing = (odds[0].masked_fill(~others, -torch.inf).amax(dim=1) / lead + 0.1).clamp(min=0.0)
            (gradient,) = torch.autograd.grad(torch.where(missing > 0, missing, oddness).sum(), shared)
        return gradient
