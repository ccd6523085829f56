"""Branch and bound over the signs of hinge units: exact answers for networks of relus (Bunel et al. 2018, 2020).

A part of a ball is given by the signs of some units; each cut divides it at zero of one unit, and the two closed halves
cover it. Many parts are bounded at once by ascent in float32 (beta-CROWN: Wang et al. 2021); a part counts as closed
only once the bound with those numbers has been evaluated with every rounding bounded
(`verifier.certificates.split_program`). The numbers are kept: with the tree they are a certificate. The points where
bounds end are tried as counterexamples. Where every sign is known the bound is that of a linear program, which a solver
gives where ascent does not get there; what stays open then is mostly a tie within rounding, and
`verifier.bounds.split.open_subproblem` says what else.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from encoders.network import Network
from encoders.region import BallRegion
from verifier.bounds.split.branching import chosen_cuts, halves
from verifier.bounds.split.descents import Attack, attacked
from verifier.bounds.split.dual_ascent import Lines
from verifier.bounds.split.open_subproblem import Why, sentence
from verifier.bounds.split.prepared import PreparedBall, first_slopes, prepare, split_question
from verifier.bounds.split.settled import settled
from verifier.bounds.split.subproblems import Forest, Parts, PartStore
from verifier.budget import Budget
from verifier.certificates.certificate import Certificate

# Parts that are bounded side by side.
BATCH = 256
# Steps of ascent: for boxes and whole balls, from which all parts start, and for parts.
ROOT_STEPS, PART_STEPS = 20, 5
# Parts with so many cuts that are still open take so many more: they lie beside the border of the ball, where what is
# missing is little, and every cut that is spared counts.
MORE_STEPS = ((12, 10), (32, 40))
# Ascent ends once all bounds pass this share of the margin's unit, its reach rounded up to a power of two.
GOAL = 1e-5
# So many batches all descend, then one of so many: later they cost a quarter of the time and rarely find anything.
DESCENTS = 5
# Parts with all signs known that may stay open before the search ends: the first one rules a proof out.
MOST_TIES = 16
TIME = "time limit"


@dataclass(frozen=True, eq=False)
class SplitAnswer:
    """certificate: the class wins on the whole ball. found: the attack succeeded. Neither: open, for the reason.

    parts: how many were bounded; programs: linear programs solved; open_units: at the root.
    """

    certificate: Certificate | None
    found: bool
    reason: str
    parts: int
    programs: int
    open_units: int

    @property
    def proved(self) -> bool:
        """Whether the class strictly wins on the whole ball."""
        return self.certificate is not None


@dataclass
class Effort:
    """What a search has spent: parts bounded, in how many batches, and linear programs."""

    parts: int = 0
    batches: int = 0
    programs: int = 0


def decide_ball(
    network: Network, region: BallRegion, winner: int, attack: Attack, budget: Budget, most_parts: int
) -> SplitAnswer:
    """Return whether a class is above every other on a whole ball (batch 1, inf-norm, on the processor)."""
    question, effort = split_question(network, region, winner), Effort()
    for steps in (0, ROOT_STEPS):
        # Boxes that are worth ascent are made where the plain ones do not suffice.
        search = _Search(prepare(question, steps), attack, budget, effort)
        remaining = search.worked_off(search.root(), ROOT_STEPS)
        if remaining is None:
            return search.answer(found=True)
        parts, losses = remaining
        if not len(parts):
            return search.answer()
        if budget.exhausted:
            return search.answer(f"{TIME}; the whole ball is open")
    return search.run(parts, losses, most_parts)


class _Search:
    """The trees that grow over a prepared ball, with the parts that no sign can divide and that stay open."""

    def __init__(self, ball: PreparedBall, attack: Attack, budget: Budget, effort: Effort) -> None:
        self.ball, self.attack, self.budget, self.effort = ball, attack, budget, effort
        self.forest = Forest(len(ball.rows))
        # Of parts with all signs known: why they are open, and how many were not asked about any more.
        self.ties: list[Why] = []
        self.skipped = 0

    def root(self) -> Parts:
        """Return the whole ball, once for each rival."""
        count, units = len(self.ball.rows), len(self.ball.open_units)
        numbers = torch.arange(count)
        slopes = first_slopes(self.ball.lines).expand(count, -1)
        nothing = torch.zeros(count, units)
        return Parts(torch.full((count,), -torch.inf), numbers, numbers, nothing.to(torch.int8), slopes, nothing)

    def run(self, parts: Parts, losses: Tensor, most_parts: int) -> SplitAnswer:
        """Cut the given parts, all bounded in vain, until none is left, or so many have been bounded."""
        store = PartStore()
        while True:
            known = (parts.signs != 0).all(dim=1)
            if self._falsified(parts[known]):
                return self.answer(found=True)
            parts, losses = parts[~known], losses[~known]
            if len(parts):
                store.add(self._halves(parts, chosen_cuts(self.ball, parts, losses, GOAL)))
            if self.skipped or len(self.ties) >= MOST_TIES or not len(store):
                return self._ended(len(store))
            if self.budget.exhausted or self.effort.parts >= most_parts:
                why = TIME if self.budget.exhausted else f"{most_parts} parts of the region"
                return self.answer(f"{why}; {len(store) + len(self.ties)} parts are open")
            remaining = self.worked_off(store.take(BATCH), PART_STEPS)
            if remaining is None:
                return self.answer(found=True)
            parts, losses = remaining

    def answer(self, reason: str = "", found: bool = False) -> SplitAnswer:
        """Return the answer with what was spent, and the certificate if nothing is open."""
        certificate, ball, question = None, self.ball, self.ball.question
        if not reason and not found:
            trees = tuple(self.forest.tree(number, rival) for number, rival in enumerate(question.rivals))
            certificate = Certificate(
                question.digest, question.region.centre[0].numpy(), float(question.region.radius[0]),
                question.region.domain, question.winner, ball.boxes, ball.open_units.numpy().astype(np.int32), trees,
            )  # fmt: skip
        return SplitAnswer(certificate, found, reason, self.effort.parts, self.effort.programs, len(ball.open_units))

    def worked_off(self, parts: Parts, steps: int) -> tuple[Parts, Tensor] | None:
        """Bound parts, try the points where the bounds end, and close what can be closed.

        Returns the parts that are left, and what the line above each of their units costs the bound (its height at
        zero times the cost in front: Bunel et al. 2020), `(parts, open units)`; None once a point is a counterexample.
        """
        ball, effort = self.ball, self.effort
        effort.parts += len(parts)
        effort.batches += 1
        rows, lines = ball.rows[parts.rows], ball.cut_lines(parts.signs)
        bounds, slopes, pulls = _ascended(ball, parts, rows, lines, steps)
        ended = ball.ascent.evaluate(ball.ascent.network.output, rows, lines, slopes, pulls)
        descend = effort.batches <= DESCENTS or effort.batches % DESCENTS == 0
        if attacked(ball, self.attack, ended.points, parts.rows, descend):
            return None
        bounds = torch.maximum(bounds.nan_to_num(-torch.inf, torch.inf, -torch.inf), parts.bounds)
        better = replace(parts, bounds=bounds, slopes=slopes, pulls=pulls)
        is_open = ~self._closed(better)
        losses = ended.costs.clamp(max=0) * -lines.offset
        return better[is_open], losses[is_open]

    def _ended(self, waiting: int) -> SplitAnswer:
        """Return the answer once there is nothing more to cut or too much that stays open; waiting: parts beside."""
        others = self.skipped + waiting
        if self.ties:
            more = f", {others} more are open" if others else ""
            return self.answer(f"{sentence(self.ties)}{more}")
        return self.answer(f"{TIME}; {others} parts are open" if others else "")

    def _falsified(self, parts: Parts) -> bool:
        """Settle parts with all signs known; true once one has a counterexample."""
        for i in range(len(parts)):
            if self.budget.exhausted or len(self.ties) >= MOST_TIES:
                self.skipped += 1
                continue
            self.effort.programs += 1
            outcome = settled(self.ball, parts[i : i + 1], self.attack, self.budget)
            if outcome is None:
                return True
            if isinstance(outcome, Why):
                self.ties.append(outcome)
            else:
                self.forest.close(int(parts.nodes[i]), outcome.slopes, outcome.pulls)
        return False

    def _closed(self, parts: Parts) -> Tensor:
        """Return a mask of the parts whose numbers prove them; keep these."""
        closed = torch.zeros(len(parts), dtype=torch.bool)
        places = torch.nonzero(parts.bounds > 0).squeeze(1)
        if len(places):
            likely = parts[places]
            slopes, pulls = likely.slopes.numpy(), self.ball.exact_pulls(likely.pulls)
            proved = self.ball.proved(likely.rows.numpy(), likely.signs, slopes, pulls)
            for i in np.flatnonzero(proved).tolist():
                self.forest.close(int(likely.nodes[i]), slopes[i], pulls[i])
            closed[places[torch.from_numpy(proved)]] = True
        return closed

    def _halves(self, parts: Parts, cuts: Tensor) -> Parts:
        units = self.ball.open_units[cuts].tolist()
        firsts = [self.forest.cut(node, unit) for node, unit in zip(parts.nodes.tolist(), units, strict=True)]
        return halves(parts, cuts, torch.tensor(firsts))


def _ascended(
    ball: PreparedBall, parts: Parts, rows: Tensor, lines: Lines, steps: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return (bounds, slopes, pulls) of parts after some steps of ascent, and more for those with many cuts."""
    ascent, stage = ball.ascent, ball.ascent.network.output
    bounds, slopes, pulls = ascent.ascend(stage, rows, lines, parts.slopes, parts.pulls, steps, GOAL)
    assert pulls is not None
    depths = (parts.signs != 0).sum(dim=1)
    for depth, more in MORE_STEPS:
        deep = torch.nonzero((bounds <= 0) & (depths >= depth)).squeeze(1)
        if len(deep):
            bounds[deep], slopes[deep], moved = ascent.ascend(
                stage, rows[deep], lines[deep], slopes[deep], pulls[deep], more, GOAL
            )
            assert moved is not None
            pulls[deep] = moved
    return bounds, slopes, pulls
