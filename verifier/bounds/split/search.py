"""Branch and bound over the signs of hinge units: exact answers for networks of relus (Bunel et al. 2018, 2020).

A subproblem of a ball is given by the signs of some units; each split divides it at zero of one unit, and the two
closed halves cover it. Many subproblems are bounded at once by ascent in float32 (beta-CROWN: Wang et al. 2021); a
subproblem counts as closed only once the bound with those numbers has been evaluated with every rounding bounded
(`verifier.certificates.split_program`). The numbers are kept: with the tree they are a certificate. The points where
bounds end are tried as counterexamples. Where every sign is known the bound is that of a linear program, which a solver
gives where ascent does not get there; what stays open then is mostly a tie within rounding, and
`verifier.bounds.split.open_subproblem` says what else.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from encoders.network import Network
from encoders.region import BallRegion
from verifier.bounds.margin_known import margin_known
from verifier.bounds.split.answer import Effort, SplitAnswer
from verifier.bounds.split.branching import Gains, divided, grown
from verifier.bounds.split.descents import Attack, attacked
from verifier.bounds.split.leaf_programs import ended_by_programs
from verifier.bounds.split.open_subproblem import Why, sentence
from verifier.bounds.split.prepared import PreparedBall, prepare
from verifier.bounds.split.question import split_question
from verifier.bounds.split.settled import settled
from verifier.bounds.split.stages import StagedNetwork
from verifier.bounds.split.subproblem_ascent import GOAL, ascended
from verifier.bounds.split.subproblems import Forest, Subproblems, SubproblemStore
from verifier.bounds.split.subtrees import in_subtrees
from verifier.bounds.split.unit_boxes import first_slopes
from verifier.budget import Budget
from verifier.certificates.subtree_boxes import SubtreeBoxes, most_subtrees
from verifier.verdict import Telling

# Subproblems that are bounded side by side.
BATCH = 256
# Steps of ascent: for boxes and whole balls, from which all subproblems start, and for subproblems.
ROOT_STEPS, SUBPROBLEM_STEPS = 20, 10
# Level after level, the steps of ascent for boxes and the splits of a tree for each end of a unit's box, and how many
# subproblems may be bounded before the next one: what trees spare all subproblems is worth more than what was found.
LEVELS = ((0, 0, 0), (ROOT_STEPS, 0, 400), (ROOT_STEPS, 15, None))
# The same for networks held as ops, their open units as matrices: trees cost little more than ascent for boxes does.
LEVELS_OF_OPS = ((0, 0, 200), (10, 7, None))
# Boxes are proved again for subproblems so many splits below those where theirs were.
SUBTREE_SPLITS = 6
# Networks of fewer hinges keep the boxes of the ball.
SUBTREE_HINGES = 3
# Numbers that the boxes of all subtrees may take together in a certificate.
MOST_NUMBERS = 1 << 25
# So many batches all descend, then one of so many: later they cost a quarter of the time and find little.
DESCENTS = 5
# Subproblems with all signs known that may stay open before the search ends: the first one rules a proof out.
MOST_TIES = 16
TIME = "time limit"


def decide_ball(
    network: Network, region: BallRegion, winner: int, attack: Attack, budget: Budget, most_subproblems: int
) -> SplitAnswer:
    """Return whether a class is above every other on a whole ball (batch 1, inf-norm, on the processor)."""
    return BallSearch(network, region, winner).run(attack, budget, most_subproblems)


class BallSearch:
    """The search of `decide_ball`; one that met a limit goes on from there when it is run again."""

    def __init__(self, network: Network, region: BallRegion, winner: int) -> None:
        self._asked = network, region, winner
        # The trees that have grown, once the ball has been divided; taken out while they grow.
        self._search: _Search | None = None
        self._level = 0

    @property
    def under_way(self) -> bool:
        """Whether subproblems are kept, so that another run goes on with them."""
        return self._search is not None

    def run(self, attack: Attack, budget: Budget, most_subproblems: int) -> SplitAnswer:
        """Return the answer once nothing is open, the attack has succeeded, or a limit is met.

        most_subproblems: of all runs together.
        """
        search, self._search = self._search, None
        remaining: tuple[Subproblems, Tensor] | SplitAnswer | None = None
        if search is None:
            network, region, winner = self._asked
            question = split_question(network, region.unscaled, winner)
            search = _Search(prepare(question, 0, budget), attack, budget, Effort())
            remaining = search.begun()
        search.attack, search.budget = attack, budget
        while not isinstance(remaining, SplitAnswer):
            if remaining is not None and budget.exhausted:
                return search.answer(f"{budget.why}; the whole ball is open")
            most = search.levels[self._level][2]
            if most != 0:
                answer = search.run(remaining, min(most_subproblems, most or most_subproblems))
                if answer.proved or answer.falsified:
                    return answer
                if most is None or search.ended or budget.exhausted or search.effort.subproblems >= most_subproblems:
                    # What fills the memory goes, so that others may work.
                    self._search = None if budget.watch.why else search
                    return answer
            self._level += 1
            search = search.again(*search.levels[self._level][:2])
            remaining = search.begun()
        return remaining


class _Search:
    """The trees that grow over a prepared ball, with the subproblems that no sign can divide and that stay open."""

    def __init__(self, ball: PreparedBall, attack: Attack, budget: Budget, effort: Effort) -> None:
        self.ball, self.attack, self.budget, self.effort = ball, attack, budget, effort
        self.forest = Forest(len(ball.rows))
        self.gains = Gains(len(ball.open_units))
        self.store = SubproblemStore()
        # Once more subproblems would not help.
        self.ended: SplitAnswer | None = None
        # Of subproblems with all signs known: why they are open, and how many were not asked about any more.
        self.ties: list[Why] = []
        self.skipped = 0
        # Numbers of the boxes of subtrees, and how many signs were known where each was made, the ball first.
        self.subtrees: list[SubtreeBoxes] = []
        self.depths = torch.zeros(1, dtype=torch.int64)
        # A lower bound of all margins that an earlier search on this ball left.
        self.floor = -math.inf

    @property
    def levels(self) -> tuple[tuple[int, int, int | None], ...]:
        """The levels for this network: ends of boxes have trees where open units are held as matrices."""
        if not isinstance(self.ball.ascent.network, StagedNetwork) or len(self.ball.ascent.network.hinges) < 2:
            return LEVELS[0], (*LEVELS[1][:2], None)
        return LEVELS if isinstance(self.ball.question.stages, StagedNetwork) else LEVELS_OF_OPS

    def again(self, steps: int, splits: int) -> _Search:
        """Return a search that starts anew on boxes by so many steps, with trees of so many splits."""
        # What needs no numbers is known.
        before = None if self.ball.boxes.slopes else self.ball
        # Planes take as long as trees: where there are both they come with these.
        planes = isinstance(self.ball.question.stages, StagedNetwork) and (splits > 0 or len(self.levels) == 2)
        ball = prepare(self.ball.question, steps, self.budget, before, splits, planes)
        made = _Search(ball, self.attack, self.budget, self.effort)
        # Where nothing was stored nothing is known: what is open was handed on.
        made.floor = max(self.floor, self._least if len(self.store) else -math.inf)
        return made

    def begun(self) -> tuple[Subproblems, Tensor] | SplitAnswer:
        """Return what is open of the whole ball, bounded once for each rival; the answer where nothing is."""
        count, units, numbers = len(self.ball.rows), len(self.ball.open_units), torch.arange(len(self.ball.rows))
        slopes, nothing = first_slopes(self.ball.lines).expand(count, -1), torch.zeros(count, units)
        boxes, signs = torch.zeros_like(numbers), nothing.to(torch.int8)
        points = torch.zeros(count, 0) if self.ball.own_planes is None else self.ball.own_planes.first
        root = Subproblems(torch.full((count,), -torch.inf), numbers, numbers, boxes, signs, slopes, nothing, points)
        remaining = self.worked_off(root, ROOT_STEPS)
        if remaining is None or not len(remaining[0]):
            return self.answer(falsified=remaining is None)
        return remaining

    def run(self, remaining: tuple[Subproblems, Tensor] | None, most_subproblems: int) -> SplitAnswer:
        """Split subproblems until none is left, or so many have been bounded in all runs.

        remaining: those that were bounded in vain, with their losses; None where all that is open waits in the store.
        """
        store = self.store
        while self.ended is None:
            if remaining is not None:
                subproblems, losses = remaining
                known = (subproblems.signs != 0).all(dim=1)
                if self._falsified(subproblems[known]):
                    return self.answer(falsified=True)
                subproblems, losses = subproblems[~known], losses[~known]
                if len(subproblems):
                    division = divided(self.ball, subproblems, losses, GOAL, self.gains)
                    store.add(grown(self.forest, subproblems, division, self.ball.open_units))
            if self.skipped or len(self.ties) >= MOST_TIES or not len(store):
                self.ended = self._ended(len(store))
                break
            if self.budget.exhausted or self.effort.subproblems >= most_subproblems:
                why = self.budget.why or f"{most_subproblems} subproblems of the region"
                return self.answer(f"{why}; {self._standing()}", telling=Telling.STANDING)
            self.budget.watch.tell(lambda: self._standing())
            remaining = self.worked_off(store.take(BATCH), SUBPROBLEM_STEPS)
            if remaining is None:
                return self.answer(falsified=True)
            remaining = self._in_subtrees(*remaining)
            if remaining is None:
                return self.answer(falsified=True)
        return self.ended

    def _in_subtrees(self, subproblems: Subproblems, losses: Tensor) -> tuple[Subproblems, Tensor] | None:
        """Prove boxes again for subproblems that are so many splits below theirs, and bound these again."""
        deep = (subproblems.signs != 0).sum(dim=1) - self.depths[subproblems.boxes] >= SUBTREE_SPLITS
        size, stages = sum(each.size for each in self.subtrees), self.ball.question.stages
        # In a network held as its ops these take long to prove, but between open units alone, as trees have them.
        takes = len(stages.hinges) >= SUBTREE_HINGES and (isinstance(stages, StagedNetwork) or self.ball.boxes.trees)
        most = most_subtrees(self.ball.program) - len(self.subtrees)
        if not takes or not 0 < int(deep.sum()) <= most or size > MOST_NUMBERS:
            return subproblems, losses
        self.ball, below, numbers = in_subtrees(self.ball, subproblems[deep], losses[deep])
        self.subtrees += numbers
        self.depths = torch.cat([self.depths, (below.signs != 0).sum(dim=1)])
        remaining = self.worked_off(below, SUBPROBLEM_STEPS)
        if remaining is None:
            return None
        return subproblems[~deep].joined(remaining[0]), torch.cat([losses[~deep], remaining[1]])

    def answer(self, reason: str = "", falsified: bool = False, telling: Telling = Telling.LIMIT) -> SplitAnswer:
        """Return the answer with what was spent, and the certificate if nothing is open."""
        certificate, ball = None, self.ball
        if not reason and not falsified:
            units, rivals = ball.open_units.numpy().astype(np.int32), enumerate(ball.question.rivals)
            trees = tuple(self.forest.tree(number, rival, units, ball.own_planes) for number, rival in rivals)
            certificate = ball.certificate(units, trees, tuple(self.subtrees))
        return SplitAnswer(
            certificate, falsified, reason, self.effort.subproblems, self.effort.programs, len(ball.open_units), telling
        )  # fmt: skip

    def worked_off(self, subproblems: Subproblems, steps: int) -> tuple[Subproblems, Tensor] | None:
        """Bound subproblems, try the points where the bounds end, and close what can be closed.

        Returns the subproblems that are left, and what the line above each of their units costs the bound (its height
        at zero times the cost in front: Bunel et al. 2020), `(batch, open units)`; None once a point is a
        counterexample.
        """
        ball, effort = self.ball, self.effort
        effort.subproblems += len(subproblems)
        effort.batches += 1
        made, lines = ascended(ball, subproblems, steps)
        rows, stage = ball.rows[made.rows], ball.ascent.network.output
        ended = ball.ascent.evaluate(stage, rows, lines, made.slopes, made.multipliers)
        descend = effort.batches <= DESCENTS or effort.batches % DESCENTS == 0
        if attacked(ball, self.attack, ended.points, subproblems.rows, descend):
            return None
        better = replace(made, bounds=torch.maximum(made.bounds, subproblems.bounds))
        is_open = ~self._closed(better)
        left = better[is_open], (ended.costs.clamp(max=0) * -lines.offset)[is_open]
        return ended_by_programs(ball, *left, self.forest, self.store, self.attack, self.budget, effort)

    def _standing(self) -> str:
        """Return how the search stands; of subproblems with all signs known no bound is kept."""
        known = margin_known(max(self._least, self.floor), proved=False)
        return f"{len(self.store) + len(self.ties)} subproblems are open after {self.effort.subproblems}{known}"

    @property
    def _least(self) -> float:
        """The least bound of what waits, in the margins' own unit."""
        return -math.inf if self.ties else math.ldexp(self.store.least, self.ball.output)

    def _ended(self, waiting: int) -> SplitAnswer:
        """Return the answer once nothing is left to split or too much stays open; waiting: subproblems beside."""
        others = self.skipped + waiting
        if self.ties:
            more = f", {others} more are open" if others else ""
            return self.answer(f"{sentence(self.ties)}{more}", telling=Telling.FINAL)
        why = f"{self.budget.why or TIME}; {others} subproblems are open" if others else ""
        return self.answer(why, telling=Telling.STANDING)

    def _falsified(self, subproblems: Subproblems) -> bool:
        """Settle subproblems with all signs known; true once one has a counterexample."""
        for i in range(len(subproblems)):
            if self.budget.exhausted or len(self.ties) >= MOST_TIES:
                self.skipped += 1
                continue
            self.effort.programs += 1
            outcome = settled(self.ball, subproblems[i : i + 1], self.attack, self.budget)
            if outcome is None:
                return True
            if isinstance(outcome, Why):
                self.ties.append(outcome)
            else:
                self._close(subproblems, i, outcome.slopes, outcome.multipliers)
        return False

    def _closed(self, subproblems: Subproblems) -> Tensor:
        """Return a mask of the subproblems whose numbers prove them; keep these."""
        closed = torch.zeros(len(subproblems), dtype=torch.bool)
        places = torch.nonzero(subproblems.bounds > 0).squeeze(1)
        if len(places):
            likely = subproblems[places]
            slopes, multipliers = likely.slopes.numpy(), self.ball.exact_multipliers(likely.multipliers)
            numbers = likely.signs, slopes, multipliers, likely.boxes, likely.points
            proved = self.ball.proved(likely.rows.numpy(), *numbers)
            for i in np.flatnonzero(proved).tolist():
                self._close(likely, i, slopes[i], multipliers[i])
            closed[places[torch.from_numpy(proved)]] = True
        return closed

    def _close(self, of: Subproblems, i: int, slopes: np.ndarray, multipliers: np.ndarray) -> None:
        """Keep the numbers that prove one of some subproblems."""
        self.forest.close(int(of.nodes[i]), slopes, multipliers, int(of.boxes[i]), of.points[i].numpy())
