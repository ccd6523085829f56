"""Witnesses by the linear programs of regions: one pulled in through the regions it lies in, or one of the own region.

From a witness: the program of its region moves it nearer, and on through neighbouring regions while that helps. From
the input (Bastani et al. 2016): the program of the input's own region, for the second label or for all. What counts is
always the distance of the replayed point.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from verifier.answers import Witness
from verifier.batch import Batch
from verifier.budget import Budget
from verifier.restriction.lazy import solve_lazily
from verifier.restriction.optimum import Optimum, Outcome
from verifier.restriction.points import nudged, pixel_alpha, pixel_points
from verifier.restriction.question import Question
from verifier.restriction.regions import ask_own_region, ask_region_of, next_region
from verifier.restriction.screen import screen
from verifier.solvers import find_solver
from verifier.witnesses.replay import replay

Targets = Literal["second", "all"]

# Attacks search this much beyond the largest radius: a program gains a percent or so on them.
BEYOND = 1.05
# Going on to the next region pays while it gains this share.
LEAST_GAIN = 1e-4


class Programs:
    """The programs of regions and their settings.

    regions: visited for each witness at most; alpha: by how much the target must win in the program; levels: only
    points on the grid k / levels count (255: whole pixels); solver: a name of `verifier.solvers`, highs being the one
    that stays warm.
    """

    def __init__(self, regions: int = 3, alpha: float = 0.0, levels: int | None = None, solver: str = "highs") -> None:
        self.regions, self.alpha, self.levels = regions, alpha, levels
        self.solver = None if solver == "highs" else find_solver(solver)

    def pull_within(self, batch: Batch, witness: Witness | None, radius: float, budget: Budget) -> Witness | None:
        """Return `pull` of a witness within a little more than the radius; None where it is not, or at distance 0."""
        if witness is None or not 0.0 < witness.distance <= BEYOND * radius:
            return None
        return self.pull(batch, witness, budget)

    def pull(self, batch: Batch, witness: Witness, budget: Budget) -> Witness | None:
        """Return a witness of the one input in the batch that is at most as far as the given one.

        With levels: the nearest on the grid that was met, which may be farther, or None.
        """
        network = batch.subject.network
        best = witness if self.levels is None else None
        point = witness.point[None].to(batch.centres)
        scores = network.evaluate(point)[0]
        scores[int(batch.classes[0])] = -torch.inf
        # Whole pixels need room beyond the witness: rounded up, and a margin on top.
        reach = witness.distance if self.levels is None else witness.distance + 2.0 / self.levels
        target = int(scores.argmax())
        question = ask_region_of(network, batch.centres, point, target, batch.domain, reach, self.alpha)
        if self.levels is not None:
            best = nearest_witness(batch, self._points(question, (point - batch.centres).flatten().cpu().numpy()))
        for _ in range(self.regions):
            answer = solve_lazily(question, budget=budget, solver=self.solver)
            if answer.outcome is not Outcome.FOUND:
                break
            nearer = self._witness(batch, question, answer, budget)
            gain = 1.0 if nearer is None or best is None else 1.0 - nearer.distance / best.distance
            best = nearer if best is None or (nearer is not None and gain > 0) else best
            following = next_region(question, answer)
            if nearer is None or gain < LEAST_GAIN or following is None or budget.exhausted:
                break
            question = following
        return best

    def own(self, batch: Batch, radius: float, targets: Targets, budget: Budget) -> tuple[Witness | None, Outcome]:
        """Return the nearest witness within the radius in the own region of the batch's one input, and how it went.

        FOUND with no witness: the optimum is near enough, but no point around it replays.
        """
        classes = torch.tensor(_target_classes(batch, targets), device=batch.centres.device)
        repeated = batch.centres.expand(len(classes), *batch.centres.shape[1:])
        bounds = screen(batch.subject.network, repeated, classes, batch.domain, batch.reach)
        best: Witness | None = None
        outcomes = set[Outcome]()
        limit = radius
        for number in np.argsort(bounds, kind="stable").tolist():
            if bounds[number] > limit:
                outcomes.add(Outcome.INFEASIBLE if math.isinf(bounds[number]) else Outcome.BEYOND)
                continue
            target = int(classes[number])
            question = ask_own_region(
                batch.subject.network, batch.centres, target, batch.domain, batch.reach, self.alpha
            )
            cutoff = math.nextafter(limit, math.inf)
            answer = solve_lazily(question, cutoff=cutoff, budget=budget, solver=self.solver)
            outcomes.add(answer.outcome)
            witness = self._witness(batch, question, answer, budget)
            if witness is not None and witness.distance <= limit:
                best, limit = witness, witness.distance
        order = (Outcome.FOUND, Outcome.STOPPED, Outcome.BEYOND, Outcome.INFEASIBLE)
        return best, next((outcome for outcome in order if outcome in outcomes), Outcome.INFEASIBLE)

    def _points(self, question: Question, step: np.ndarray) -> Tensor:
        return nudged(question, step) if self.levels is None else pixel_points(question, step, self.levels)

    def _witness(self, batch: Batch, question: Question, answer: Optimum, budget: Budget) -> Witness | None:
        if answer.step is None:
            return None
        witness = nearest_witness(batch, self._points(question, answer.step))
        if witness is not None or self.levels is None:
            return witness
        # No rounding of this optimum replays: ask for a margin that rounding inside the region cannot use up.
        careful = replace(question, alpha=self.alpha + pixel_alpha(question, self.levels))
        again = solve_lazily(careful, budget=budget, solver=self.solver)
        return None if again.step is None else nearest_witness(batch, self._points(careful, again.step))


def nearest_witness(batch: Batch, points: Tensor) -> Witness | None:
    """Return the nearest of the points `(count, *shape)` that replays as a counterexample of the batch's one input.

    Points are rounded to the model's dtype inside the domain.
    """
    count = len(points)
    repeated = batch.at(torch.zeros(count, dtype=torch.int64, device=batch.centres.device))
    whole = repeated.region(max(batch.reach, float((points - batch.centres).abs().max())))
    rounded = whole.clip(points, batch.subject.network.dtype)
    shown = replay(repeated, rounded)
    distances = whole.distance(rounded).cpu()
    usable = torch.nonzero(shown.executed & shown.real & whole.contains(rounded).cpu()).squeeze(1)
    for nearest in usable[distances[usable].argsort()].tolist():
        # Some runtimes round otherwise in a batch, and the user will run the point alone.
        alone = replay(batch, rounded[nearest : nearest + 1])
        if bool(alone.executed[0]):
            return Witness(rounded[nearest].cpu(), float(distances[nearest]), bool(alone.tie[0]))
    return None


def _target_classes(batch: Batch, targets: Targets) -> list[int]:
    scores = batch.subject.network.evaluate(batch.centres)[0]
    order: list[int] = scores.argsort(descending=True).tolist()
    others = [k for k in order if k != int(batch.classes[0])]
    return others if targets == "all" else others[:1]
