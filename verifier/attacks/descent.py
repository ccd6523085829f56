"""One descent, many attacks: a loss, what it aims at, a step rule, starts and sources of gradients.

From the centre or from random points of the ball, x moves by its step rule until the input is broken. One forward pass
serves loss and success, and broken inputs are not evaluated again.
FGSM, I-FGSM, MI-FGSM, PGD and APGD are rows of the table `ATTACKS`, by their settings.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from verifier.attacks.ball import Ball
from verifier.attacks.base import Attack, Search
from verifier.attacks.criteria import LOSSES, TARGETS, shortfalls, slopes
from verifier.attacks.randomness import as_seeds
from verifier.attacks.revival import second_directions
from verifier.attacks.source import Source, SourceMaker
from verifier.attacks.steps import StepRule

# Descents of some inputs to all of their targets run side by side, so many rows in one batch (or one input).
JOINT_ROWS = 1024
# Steps between two looks for gradients that are zero: a look costs a hundredth of a step.
LOOK = 8


@dataclass(frozen=True)
class Descent(Attack):
    """Settings of a descent.

    steps: updates of each descent; rule: how it moves; loss, target: rows of `LOSSES` and `TARGETS` (a search that
    names its own targets overrides `target`); restarts: the first from the centre unless `random_start`; sources:
    what is differentiated, in turn over the restarts; finalists: if positive, only so many targets of an input, those
    that are nearest after `screening` steps, are followed to the end; until_broken: whether a descent ends where its
    input breaks, or takes all its steps, which makes the network surer of the wrong class.
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
    until_broken: bool = True

    def __post_init__(self) -> None:
        if self.loss not in LOSSES:
            raise ValueError(f"unknown loss {self.loss!r}; supported: {', '.join(LOSSES)}")
        if self.target not in TARGETS:
            raise ValueError(f"unknown target {self.target!r}; supported: {', '.join(TARGETS)}")

    def propose(self, search: Search) -> Tensor:
        """Return for each input the first point found that is unsafe, else the last of the descent that ended nearest.

        The last point of a single descent is left to the base class to judge.
        """
        ball = Ball.of(search.region, search.network.dtype)
        best, least = ball.centre, torch.full_like(ball.radius, torch.inf)
        choices = self._choices(search, ball)
        inputs_at_once = max(1, JOINT_ROWS // choices.shape[1])
        for restart in range(self.restarts):
            make = self.sources[restart % len(self.sources)]
            for rows in torch.nonzero(~(least <= 0)).squeeze(1).split(inputs_at_once):
                if not len(rows) or search.budget.exhausted:
                    break
                # Made anew: what it draws depends on the step, and not on the rows before.
                source = make(search.network)
                points, values = self._descend_to(choices[rows], search, ball, rows, restart, source)
                # What a single descent leaves is not judged: it has no value to compare.
                alone = self.restarts * choices.shape[1] == 1
                better = slice(None) if alone else torch.nonzero(values < least[rows]).squeeze(1)
                least = least.index_copy(0, rows[better], values[better])
                best = best.index_copy(0, rows[better], points[better])
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
        """Return (points, their shortfalls) of the best descents from the given rows to their targets, side by side."""
        rounds = targets.shape[1]
        jobs = Jobs.of(search, rows.repeat(rounds), targets.T.flatten())
        # Rows are in order and unlike: as many as inputs are all of them.
        part = ball if len(jobs.rows) == len(ball.radius) and rounds == 1 else ball.at(jobs.rows)
        if restart == 0 and not self.random_start:
            start = part.centre
        else:
            start = part.random(as_seeds(search.seeds, rows.device)[jobs.rows], restart)
        points, values = self._descend(search, jobs, part, start, source, restart, self.restarts * rounds == 1)
        if rounds == 1:
            return points, values
        values, points = values.reshape(rounds, -1), points.reshape(rounds, len(rows), -1)
        least, which = values.min(dim=0)
        return points[which, torch.arange(len(rows), device=rows.device)], least

    def _descend(
        self, search: Search, jobs: Jobs, ball: Ball, x: Tensor, source: Source, restart: int, alone: bool
    ) -> tuple[Tensor, Tensor]:
        """Return (last points, their shortfalls) of each job, from the points x; a job ends where its input breaks.

        alone: there is nothing to compare with, and nobody judges the last points here.
        """
        ended = _Ended.before(x, ball, jobs, remember=search.slack is not None and not alone)
        missing = least = ended.missing.clone()
        everyone, going = jobs.rows, torch.arange(len(x), device=x.device)
        walk, broken = self.rule.begin(ball, self.steps), torch.zeros_like(search.classes).bool()
        flat, spent = False, 0
        for number in range(self.steps):
            if search.budget.exhausted:
                break
            scores, gradient = self._differentiate(search, jobs, x, source)
            missing = jobs.shortfalls(scores)
            ended.pass_by(spent, going, x, missing)
            spent += 1
            least = torch.minimum(least, missing) if self.finalists else missing
            losses = LOSSES[self.loss](scores, jobs.classes, jobs.targets) if self.rule.needs_losses else missing
            stay = self._stay(jobs, missing, least, broken, number)
            if stay is not None:
                gone, keep = (torch.nonzero(mask).squeeze(1) for mask in (~stay, stay))
                ended.write(spent, *_at(gone, going, x, missing))
                going, least, x, missing, gradient, losses = _at(keep, going, least, x, missing, gradient, losses)
                if not len(keep):
                    break
                jobs = jobs.at(keep)
                walk.keep(keep)
            if flat or number % LOOK == 0:
                gradient, flat = self._revived(search, jobs, x, gradient, restart)
            x = walk.advance(x, gradient, losses)
        if len(going):
            if spent == self.steps and not alone and not search.budget.exhausted:
                missing = self._last_shortfalls(search, jobs, x, source)
            ended.write(spent, going, x, missing)
        search.record.count_gradients(everyone, ended.spent * source.networks)
        return ended.points, ended.missing

    def _last_shortfalls(self, search: Search, jobs: Jobs, x: Tensor, source: Source) -> Tensor:
        """Return the shortfalls at the last points x, which no step follows."""
        search.record.count_queries(jobs.rows, source.networks)
        with torch.no_grad():
            return jobs.shortfalls(source.scores(x.reshape(-1, *search.region.centre.shape[1:])))

    def _stay(self, jobs: Jobs, missing: Tensor, least: Tensor, broken: Tensor, number: int) -> Tensor | None:
        """Return a mask of the jobs to go on with, None for all; marks the inputs that are broken."""
        screen = bool(self.finalists) and number == self.screening
        reached = (missing <= 0) & self.until_broken
        if not screen and not bool(reached.any()):
            return None
        broken[jobs.rows[reached]] = True
        stay = ~broken[jobs.rows]
        return stay & (jobs.rank(least) < self.finalists) if screen else stay

    def _revived(self, search: Search, jobs: Jobs, x: Tensor, gradient: Tensor, restart: int) -> tuple[Tensor, bool]:
        """Return (the gradients with other directions where they are zero, whether there is such a place).

        Asked now and then, and in each step from a flat place on.
        """

        def at(scores: Tensor, chosen: Tensor) -> Tensor:
            part = jobs.at(chosen)
            return slopes(self.loss, scores, part.classes, part.targets)

        usable = second_directions(search, jobs.rows, x, gradient, at, restart)
        return usable, usable is not gradient

    def _differentiate(self, search: Search, jobs: Jobs, x: Tensor, source: Source) -> tuple[Tensor, Tensor]:
        """Return (scores, gradients of the loss) at x, from one forward pass."""
        image = x.reshape(-1, *search.region.centre.shape[1:])
        scores, gradient = source.differentiate(image, lambda z: slopes(self.loss, z, jobs.classes, jobs.targets))
        return scores, gradient.flatten(1)


@dataclass(frozen=True, eq=False)
class _Ended:
    """What came of each job: the last point, its shortfall, and the gradients spent.

    remember: the best point instead. With a slack those on the way are second best to those behind it.
    """

    points: Tensor
    missing: Tensor
    spent: Tensor
    remember: bool

    @staticmethod
    def before(x: Tensor, ball: Ball, jobs: Jobs, remember: bool) -> _Ended:
        """Return what is known of jobs before they start from the points x."""
        return _Ended(x.clone(), torch.full_like(ball.radius, torch.inf), torch.zeros_like(jobs.rows), remember)

    def pass_by(self, spent: int, jobs: Tensor, points: Tensor, missing: Tensor) -> None:
        """Take note of points on the way."""
        if self.remember:
            self.write(spent, jobs, points, missing)

    def write(self, spent: int, jobs: Tensor, points: Tensor, missing: Tensor) -> None:
        """Store what is known of the given jobs (an index tensor)."""
        self.spent.index_fill_(0, jobs, spent)
        if self.remember:
            better = missing < self.missing[jobs]
            jobs, points, missing = jobs[better], points[better], missing[better]
        self.points.index_copy_(0, jobs, points)
        self.missing.index_copy_(0, jobs, missing)


@dataclass(frozen=True, eq=False)
class Jobs:
    """Pairs of an input (a row of the search) and a target that are evaluated together.

    targets: None where none is aimed at; goals: the targets that a search insists on, or None; slack: of the search.
    """

    rows: Tensor
    classes: Tensor
    targets: Tensor | None
    goals: Tensor | None
    slack: Tensor | None = None

    @staticmethod
    def of(search: Search, rows: Tensor, targets: Tensor) -> Jobs:
        """Return the pairs of rows and targets, -1 for none in all pairs."""
        aims = None if bool((targets < 0).any()) else targets
        goals = None if search.targets is None else search.targets[rows]
        slack = None if search.slack is None else search.slack[rows]
        return Jobs(rows, search.classes[rows], aims, goals, slack)

    def at(self, keep: Tensor) -> Jobs:
        """Return the given jobs."""
        targets, goals, slack = (
            None if part is None else part.index_select(0, keep) for part in (self.targets, self.goals, self.slack)
        )
        return Jobs(self.rows.index_select(0, keep), self.classes.index_select(0, keep), targets, goals, slack)

    def shortfalls(self, scores: Tensor) -> Tensor:
        """Return how far scores of the jobs are from ending the search of their inputs: at <= 0."""
        missing = shortfalls(scores, self.classes, self.goals)
        return missing if self.slack is None else missing + self.slack.to(missing)

    def rank(self, values: Tensor) -> Tensor:
        """Return for each job how many jobs of the same input have a lower value."""
        order = values.argsort(stable=True)
        order = order[self.rows[order].argsort(stable=True)]
        _, counts = torch.unique_consecutive(self.rows[order], return_counts=True)
        first = (counts.cumsum(dim=0) - counts).repeat_interleave(counts)
        ranks = torch.empty_like(order)
        ranks[order] = torch.arange(len(order), device=order.device) - first
        return ranks


def _at(rows: Tensor, *values: Tensor) -> Iterator[Tensor]:
    """Return the given rows (an index tensor) of each of some values."""
    return (value.index_select(0, rows) for value in values)
