"""One descent, many attacks: a loss, what it aims at, a step rule, starts and sources of gradients.

From the centre or from random points of the ball, x moves by its step rule until the input is broken; the best
point of all steps is proposed. One forward pass serves loss and success, and broken inputs are not evaluated again.
FGSM, I-FGSM, MI-FGSM, PGD and APGD are rows of the table `ATTACKS`, by their settings.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from verifier.attacks.ball import Ball
from verifier.attacks.base import Attack, Search
from verifier.attacks.criteria import LOSSES, TARGETS, shortfalls
from verifier.attacks.randomness import as_seeds
from verifier.attacks.source import Source, SourceMaker
from verifier.attacks.steps import StepRule

# Descents of some inputs to all of their targets run side by side, so many rows in one batch (or one input).
JOINT_ROWS = 1024


@dataclass(frozen=True)
class Descent(Attack):
    """Settings of a descent.

    steps: updates of each descent; rule: how it moves; loss, target: rows of `LOSSES` and `TARGETS` (a search that
    names its own targets overrides `target`); restarts: the first from the centre unless `random_start`; sources:
    what is differentiated, in turn over the restarts; finalists: if positive, only so many targets of an input, those
    that are nearest after `screening` steps, are followed to the end.
    """

    norms: ClassVar[tuple[str, ...]] = ("inf", "2", "1")

    steps: int
    rule: StepRule
    loss: str = "margin"
    target: str = "any"
    restarts: int = 1
    random_start: bool = False
    sources: tuple[SourceMaker, ...] = (Source,)
    finalists: int = 0
    screening: int = 10

    def __post_init__(self) -> None:
        if self.loss not in LOSSES:
            raise ValueError(f"unknown loss {self.loss!r}; supported: {', '.join(LOSSES)}")
        if self.target not in TARGETS:
            raise ValueError(f"unknown target {self.target!r}; supported: {', '.join(TARGETS)}")

    def propose(self, search: Search) -> Tensor:
        """Return for each input the first point found that is unsafe, else the one that comes nearest to it.

        Of a single descent that found nothing the last point is returned, which is left to the base class to judge.
        """
        ball = Ball.of(search.region, search.network.dtype)
        best, least = ball.centre.clone(), torch.full_like(ball.radius, torch.inf)
        choices = self._choices(search, ball)
        inputs_at_once = max(1, JOINT_ROWS // choices.shape[1])
        for restart in range(self.restarts):
            source = self.sources[restart % len(self.sources)](search.network)
            for rows in torch.nonzero(~(least <= 0)).squeeze(1).split(inputs_at_once):
                if not len(rows) or search.budget.exhausted:
                    break
                points, values = self._descend_to(choices[rows], search, ball, rows, restart, source)
                # What a single descent leaves is not judged: it has no value to compare.
                better = (values < least[rows]) | (self.restarts * choices.shape[1] == 1)
                least[rows[better]], best[rows[better]] = values[better], points[better]
        return best.reshape(search.region.centre.shape)

    def _choices(self, search: Search, ball: Ball) -> Tensor:
        """Return the targets of the inputs `(batch, rounds)`; -1 aims at none."""
        choose = TARGETS[self.target]
        if search.targets is not None:
            return search.targets[:, None]
        if choose is None or not len(search):
            return torch.full_like(search.classes, -1)[:, None]
        with torch.no_grad():
            scores = search.network.scores(ball.centre.reshape(-1, *search.region.centre.shape[1:]))
        search.record.count_queries(slice(None))
        return choose(scores, search.classes)

    def _descend_to(
        self, targets: Tensor, search: Search, ball: Ball, rows: Tensor, restart: int, source: Source
    ) -> tuple[Tensor, Tensor]:
        """Return (best points, their shortfalls) of descents from the given rows to their targets, side by side."""
        rounds = targets.shape[1]
        jobs = Jobs.of(search, rows.repeat(rounds), targets.T.flatten())
        part = ball.at(jobs.rows)
        if restart == 0 and not self.random_start:
            start = part.centre
        else:
            start = part.random(as_seeds([search.seeds[row] for row in jobs.rows.tolist()], rows.device), restart)
        points, values = self._descend(search, jobs, part, start, source, alone=self.restarts * rounds == 1)
        values, points = values.reshape(rounds, -1), points.reshape(rounds, len(rows), -1)
        least, which = values.min(dim=0)
        return points[which, torch.arange(len(rows), device=rows.device)], least

    def _descend(
        self, search: Search, jobs: Jobs, ball: Ball, x: Tensor, source: Source, alone: bool
    ) -> tuple[Tensor, Tensor]:
        """Return (best points, their shortfalls) of each job, from the points x.

        alone: there is nothing to compare with, so that it is the last points which count, and nobody judges them.
        """
        ended = _Ended(jobs.rows, x.clone(), torch.full_like(ball.radius, torch.inf), torch.zeros_like(jobs.rows))
        best, least, going = x, ended.least, torch.arange(len(x), device=x.device)
        walk, broken, spent = self.rule.begin(ball, self.steps), torch.zeros_like(search.classes).bool(), 0
        for number in range(self.steps + (not alone)):
            if search.budget.exhausted:
                break
            last = number == self.steps
            gradient, losses, missing = self._evaluate(search, jobs, x, source, not last)
            spent += not last
            better = missing < least
            best = x if alone else torch.where(better[:, None], x, best)
            least = missing if alone else torch.where(better, missing, least)
            if last:
                search.record.count_queries(jobs.rows)
                break
            stay = self._stay(jobs, missing, least, broken, number)
            if stay is not None:
                ended.write(going, ~stay, best, least, spent)
                keep = torch.nonzero(stay).squeeze(1)
                going, best, least, jobs = going[keep], best[keep], least[keep], jobs.at(keep)
                if not len(keep):
                    break
                walk.keep(keep)
                x, gradient, losses = x[keep], gradient[keep], losses[keep]
            x = walk.advance(x, gradient, losses)
        if len(going):
            ended.write(going, torch.ones_like(going).bool(), x if alone else best, least, spent)
        search.record.count_gradients(ended.rows, ended.spent)
        return ended.best, ended.least

    def _stay(self, jobs: Jobs, missing: Tensor, least: Tensor, broken: Tensor, number: int) -> Tensor | None:
        """Return a mask of the jobs to go on with, None for all; marks the inputs that are broken."""
        screen = bool(self.finalists) and number == self.screening
        reached = missing <= 0
        if not screen and not bool(reached.any()):
            return None
        broken[jobs.rows[reached]] = True
        stay = ~broken[jobs.rows]
        return stay & (jobs.rank(least) < self.finalists) if screen else stay

    def _evaluate(
        self, search: Search, jobs: Jobs, x: Tensor, source: Source, differentiate: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return (gradients, or x itself unless asked for, losses, shortfalls) at x, from one forward pass."""
        loss = LOSSES[self.loss]
        x = x.detach().requires_grad_(differentiate)
        with torch.set_grad_enabled(differentiate):
            image = x.reshape(-1, *search.region.centre.shape[1:])
            scores, losses = source.evaluate(image, lambda z: loss(z, jobs.classes, jobs.targets))
        gradient = torch.autograd.grad(losses.sum(), x)[0] if differentiate else x
        return gradient, losses.detach(), shortfalls(scores.detach(), jobs.classes, jobs.goals)


@dataclass(frozen=True, eq=False)
class _Ended:
    """What came of each job: the best point, its shortfall, and the gradients spent."""

    rows: Tensor
    best: Tensor
    least: Tensor
    spent: Tensor

    def write(self, jobs: Tensor, gone: Tensor, best: Tensor, least: Tensor, spent: int) -> None:
        """Store what is known of those of the given jobs that are marked as gone."""
        which = jobs[gone]
        self.best[which], self.least[which], self.spent[which] = best[gone], least[gone], spent


@dataclass(frozen=True, eq=False)
class Jobs:
    """Pairs of an input (a row of the search) and a target that are evaluated together.

    targets: None where none is aimed at; goals: the targets that a search insists on, or None.
    """

    rows: Tensor
    classes: Tensor
    targets: Tensor | None
    goals: Tensor | None

    @staticmethod
    def of(search: Search, rows: Tensor, targets: Tensor) -> Jobs:
        """Return the pairs of rows and targets, -1 for none in all pairs."""
        aims = None if bool((targets < 0).any()) else targets
        goals = None if search.targets is None else search.targets[rows]
        return Jobs(rows, search.classes[rows], aims, goals)

    def at(self, keep: Tensor) -> Jobs:
        """Return the given jobs."""
        targets, goals = (None if part is None else part[keep] for part in (self.targets, self.goals))
        return Jobs(self.rows[keep], self.classes[keep], targets, goals)

    def rank(self, values: Tensor) -> Tensor:
        """Return for each job how many jobs of the same input have a lower value."""
        order = values.argsort(stable=True)
        order = order[self.rows[order].argsort(stable=True)]
        _, counts = torch.unique_consecutive(self.rows[order], return_counts=True)
        first = (counts.cumsum(dim=0) - counts).repeat_interleave(counts)
        ranks = torch.empty_like(order)
        ranks[order] = torch.arange(len(order), device=order.device) - first
        return ranks
