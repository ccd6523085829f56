"""MWD networks by contraction and branching: proofs and witnesses where intervals and attacks leave a gap."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from encoders.network import Network
from encoders.region import BallRegion
from verifier.answers import Answer, merged
from verifier.batch import Batch
from verifier.bounds.interval import compare_classes
from verifier.budget import Budget
from verifier.certificates.distance_chain import chain_refusal, dense_layers
from verifier.methods.base import Method
from verifier.verdict import Bracket, Outcome
from verifier.witnesses.confirm import confirm

if TYPE_CHECKING:
    from verifier.bounds.mwd import contraction

# Weights read between two looks at the clock: about a tenth of a second.
WEIGHTS_AT_ONCE = 20_000_000
# Weights times boxes that Python goes through itself, in a third of a second, before the search is compiled: that takes
# ten, and what intervals and attacks leave is often done in a box.
UNCOMPILED_WEIGHTS = 200_000
# Points of one class that look unsafe and are not when replayed, before the class is left open.
CANDIDATES = 20


class ContractionMethod(Method):
    """Proves and finds.

    nodes: boxes examined for each class at most. gap: brackets are narrowed to this width, by at most `refinements`
    decisions after those about the requested radii.
    """

    name = "contraction"
    scales = True
    proves = True
    finds = True

    def __init__(self, nodes: int = 1000, refinements: int = 10, gap: float = 0.0) -> None:
        self.nodes, self.refinements, self.gap = nodes, refinements, gap

    def refusal(self, network: Network) -> str | None:
        return chain_refusal(network, self.name)

    def decide(self, batch: Batch, region: BallRegion, budget: Budget) -> list[Answer]:
        if not len(batch):
            return []
        if budget.exhausted:
            return [Answer.open("no time was left for contraction")] * len(batch)
        answers = [Answer()] * len(batch)
        search = _Searches(batch, region, self.nodes)
        pending = list(range(len(batch)))
        while pending:
            points: dict[int, np.ndarray] = {}
            for number, row in enumerate(pending):
                # What easy inputs leave of their time goes to the later ones.
                point = search.advance(row, budget.share(len(pending) - number))
                if point is not None:
                    points[row] = point
            answers = merged(answers, list(points), _confirmed(batch, region, points, self.name))
            pending = [row for row in points if answers[row].witness is None]
        for row, radius in enumerate(region.radius.tolist()):
            if answers[row].witness is None:
                reasons = search.reasons[row]
                said = (
                    Answer.open("contraction: " + "; ".join(reasons))
                    if reasons
                    else Answer.proved(radius, self.name, self.strength)
                )
                answers[row] = answers[row].merge(said)
        return answers

    def bracket(
        self, batch: Batch, epsilons: Sequence[float], answers: Sequence[Answer], budget: Budget
    ) -> list[Answer]:
        """Decide the requested radii in rising order where they are open, then close what is left.

        Where no witness is known radii are doubled. Then halving, and in every third turn the ball just short of the
        witness: a proof there ends it, and costs about as much as any other. A radius where neither is reached is left
        alone; proofs are sought below it, nearer witnesses above.
        """
        known = list(answers)
        for epsilon in sorted(set(epsilons)):
            rows = [i for i, answer in enumerate(known) if answer.at(epsilon) is Outcome.OPEN]
            known = self._decide_at(batch, dict.fromkeys(rows, epsilon), known, budget)
        if self.refinements:
            rows = [i for i, answer in enumerate(known) if answer.bracket.lower < 0.0 < answer.bracket.upper]
            known = self._decide_at(batch, dict.fromkeys(rows, 0.0), known, budget)
        # By row, the least and the greatest radius at which nothing was proved and nothing found.
        open_radii: list[tuple[float, float]] = [(math.inf, -math.inf)] * len(batch)
        for number in range(self.refinements):
            questions = {
                row: radius
                for row, answer in enumerate(known)
                if (radius := self._next_radius(answer.bracket, open_radii[row], batch.reach, number)) is not None
            }
            if not questions or budget.exhausted:
                break
            known = self._decide_at(batch, questions, known, budget)
            for row, radius in questions.items():
                if known[row].at(radius) is Outcome.OPEN:
                    least, greatest = open_radii[row]
                    open_radii[row] = min(least, radius), max(greatest, radius)
        return known

    def _next_radius(self, bracket: Bracket, tried: tuple[float, float], reach: float, number: int) -> float | None:
        """Return the radius to ask about, or None if there is nothing more to ask.

        tried: the least and the greatest radius left open.
        """
        lower, end = bracket.lower, min(tried[0], bracket.upper)
        if lower < 0.0 or lower >= reach:
            return None
        if math.isinf(end):
            return min(reach, max(2.0 * lower, reach / 8.0))
        short = bracket.upper - 0.99 * self.gap
        if self.gap > 0.0 and number % 3 == 2 and lower < short < end:
            return short
        for low, high in ((lower, end), (tried[1], min(bracket.upper, reach))):
            middle = (low + high) / 2.0
            if high - low > self.gap and low < middle < high:
                return middle
        return None

    def _decide_at(
        self, batch: Batch, questions: dict[int, float], answers: list[Answer], budget: Budget
    ) -> list[Answer]:
        """Return the answers after decisions about the radii of `questions`, by row."""
        if not questions or budget.exhausted:
            return answers
        rows, radii = list(questions), list(questions.values())
        part = batch.at(torch.tensor(rows, device=batch.centres.device))
        region = part.region(torch.tensor(radii, dtype=torch.float64, device=batch.centres.device))
        decided = self.decide(part, region, budget)
        for i, radius in enumerate(radii):
            if batch.bounded and radius >= batch.reach and decided[i].vouched_safe(radius):
                # The ball of the whole reach is the domain: no witness exists beyond it.
                decided[i] = decided[i].merge(Answer.proved(math.inf, self.name, self.strength))
        return merged(answers, rows, decided)


class _Searches:
    """The compiled searches of a batch of balls, class by class, on weights prepared once. reasons: of open classes."""

    def __init__(self, batch: Batch, region: BallRegion, nodes: int) -> None:
        # numba is imported here, as compiling it takes a second that other methods need not pay.
        from verifier.bounds.mwd import contraction

        self._engine, self._nodes, network = contraction, nodes, batch.subject.network
        self._packed = contraction.pack(dense_layers(network, ContractionMethod.name))
        self._at_once = max(1, WEIGHTS_AT_ONCE // (self._packed.weight.size * contraction.SWEEPS))
        self._uncompiled = 0 if contraction.is_compiled() else UNCOMPILED_WEIGHTS // self._packed.weight.size
        box = region.enclosure()
        self._lower, self._upper = (end.flatten(1).cpu().numpy() for end in (box.lower, box.upper))
        self._classes = batch.classes.tolist()
        wins = compare_classes(network, box, batch.classes).wins.cpu()
        # The classes that intervals leave open; the one searched last; its search; how many of its points were no
        # witness, and the last of them.
        self._rivals = [torch.nonzero(~row).squeeze(1).tolist()[::-1] for row in wins]
        self._rival = [-1] * len(batch)
        self._search: list[contraction.BoxSearch | None] = [None] * len(batch)
        self._candidates = [0] * len(batch)
        self._last = [np.zeros(0)] * len(batch)
        self.reasons: list[list[str]] = [[] for _ in range(len(batch))]

    def advance(self, row: int, budget: Budget) -> np.ndarray | None:
        """Return the next point of a ball that looks unsafe, or None where all is done or given up."""
        while True:
            search = self._search[row]
            if search is None:
                if not self._rivals[row]:
                    return None
                self._rival[row], self._candidates[row] = self._rivals[row].pop(), 0
                ends = (self._lower[row], self._upper[row])
                search = self._engine.BoxSearch(self._packed, *ends, self._classes[row], self._rival[row])
            answer = self._run(row, search, budget)
            if answer.code == self._engine.FOUND and self._candidates[row] < CANDIDATES:
                self._search[row], self._last[row] = search, answer.point
                self._candidates[row] += 1
                return answer.point
            self._search[row] = None
            if answer.code != self._engine.REFUTED:
                self.reasons[row].append(f"class {self._rival[row]}: {self._reason(answer)}")

    def _run(self, row: int, search: contraction.BoxSearch, budget: Budget) -> contraction.Answer:
        """Return the answer after the search has ended, found another point, or used up its nodes or the time."""
        answer = self._step(search, 0)
        while not budget.exhausted:
            # Splits of hidden ranges often leave the pixels, and so the midpoint, as they are.
            again = answer.code == self._engine.FOUND and np.array_equal(answer.point, self._last[row])
            if not again and (answer.code != self._engine.STOPPED or answer.nodes >= self._nodes):
                break
            answer = self._step(search, max(0, min(self._at_once, self._nodes - answer.nodes)))
        return answer

    def _step(self, search: contraction.BoxSearch, nodes: int) -> contraction.Answer:
        """Return the answer after at most so many further nodes, from Python for as long as boxes are left to it."""
        before = search.nodes
        answer = search.run_uncompiled(min(nodes, self._uncompiled)) if self._uncompiled else None
        if answer is None:
            return search.run(nodes)
        # A node given up takes as many passes as some others together.
        given_up = answer.code != self._engine.STOPPED and answer.nodes == before
        used = self._engine.LAST_SWEEPS // self._engine.SWEEPS if given_up else answer.nodes - before
        self._uncompiled = max(0, self._uncompiled - used)
        return answer

    def _reason(self, answer: contraction.Answer) -> str:
        """Return why an answer is neither a proof nor a witness."""
        if answer.code == self._engine.FOUND:
            return f"{CANDIDATES} points look unsafe, but no replay confirms one"
        if answer.code == self._engine.STOPPED:
            limit = "limit of" if answer.nodes >= self._nodes else "time limit after"
            return f"{limit} {answer.nodes} boxes"
        if math.isinf(answer.width):
            return "a box was split as deep as the search goes"
        return (
            f"padding: all bounds hold up to {self._engine.DELTA:g} at a point where the compared distances differ "
            f"by {answer.width:.2g}"
        )


def _confirmed(batch: Batch, region: BallRegion, points: dict[int, np.ndarray], method: str) -> list[Answer]:
    """Return what points by row that look unsafe show when they are replayed, together."""
    if not points:
        return []
    rows = torch.tensor(list(points), device=batch.centres.device)
    stacked = torch.from_numpy(np.stack(list(points.values()))).reshape(len(rows), *batch.centres.shape[1:])
    within = region[rows]
    shown = confirm(batch.at(rows), within, within.clip(stacked.to(rows.device), batch.subject.network.dtype), method)
    # Why a point is none does not matter: the search has its own reasons.
    return [replace(answer, reason=None) for answer in shown]
