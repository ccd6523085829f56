"""An attack that knows the detector: it takes on the log odds of clean inputs, under noise too.

Signed steps down the squared distance between the scores at x + n, relative to those of the target class, and the mean
of clean inputs of that class, over the noises n of a detector (logit matching with EOT: Tramer, Carlini, Brendel, Madry
2020, section 5.4): what reacts to noise as a clean input does is not flagged. Targets are the classes in the order of
the scores; of all points that are of another class the one with the least score of the detector counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from verifier.attacks.base import Attack, Search
from verifier.attacks.randomness import as_seeds
from verifier.detection.odds import Odds

# Streams of noise beyond those of any detector.
FIRST_STREAM = 1 << 24
# How often the detector judges the points of a descent.
LOOKS = 4


@dataclass(frozen=True, eq=False)
class Evasion(Attack):
    """Settings: the detector, steps to each of so many targets, draws of each noise in a step."""

    norms: ClassVar[tuple[str, ...]] = ("inf",)

    detector: Odds
    steps: int = 60
    targets: int = 3
    draws: int = 1

    def propose(self, search: Search) -> Tensor:
        """Return for each input the least odd point of another class, else the input."""
        centre = search.region.clip(search.region.centre, search.network.dtype)
        best, least = centre.clone(), torch.full_like(search.region.radius, torch.inf)
        with torch.no_grad():
            order = (
                search.network.scores(centre).scatter(1, search.classes[:, None], -torch.inf).argsort(descending=True)
            )
        for place in range(min(self.targets, order.shape[1] - 1)):
            x, target = centre.clone(), order[:, place]
            for step in range(self.steps):
                if search.budget.exhausted:
                    return best
                length = 2.5 / self.steps * (1.0 if 2 * step < self.steps else 0.3)
                move = length * search.region.radius.reshape(-1, *[1] * (x.dim() - 1)).to(x)
                x = search.region.clip(x - move * self._gradient(search, x, target, step).sign(), x.dtype)
                search.record.count_gradients(slice(None), torch.full_like(search.classes, self._points))
                if (step + 1) % (self.steps // LOOKS) == 0:
                    found = self.detector.scores(search.network, x, search.seeds)
                    score = torch.where(found.predicted != search.classes, found.score, torch.inf)
                    better = score < least
                    best[better], least[better] = x[better], score[better]
        return best

    @property
    def _points(self) -> int:
        return 1 + self.draws * len(self.detector.noises)

    def _gradient(self, search: Search, x: Tensor, target: Tensor, step: int) -> Tensor:
        """Return the gradient of the mean squared distance to the profile of the targets."""
        seeds, count = as_seeds(search.seeds, x.device), x[0].numel()
        moved = [x]
        for number, noise in enumerate(self.detector.noises):
            for draw in range(self.draws):
                stream = FIRST_STREAM + (step * self.draws + draw) * len(self.detector.noises) + number
                moved.append(x + noise.at(seeds, stream, count).reshape(x.shape).to(x))
        wanted = self.detector.profile[target].to(x)
        with torch.enable_grad():
            shared = x.detach().requires_grad_(True)
            points = torch.cat([shared + (other - x).detach() for other in moved])
            scores = search.network.scores(points if self.detector.clip is None else points.clamp(*self.detector.clip))
            scores = scores.unflatten(0, (len(moved), len(x)))
            odds = scores - scores.gather(2, target[None, :, None].expand(len(moved), -1, 1))
            # Being surer than clean inputs is no merit: both sides of the profile cost.
            (gradient,) = torch.autograd.grad((odds - wanted).square().sum(), shared)
        return gradient
