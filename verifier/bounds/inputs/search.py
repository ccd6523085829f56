"""Branch and bound over the box of inputs: halves of boxes until linear bounds refute each (Wang et al. 2018, ReluVal).

Many boxes are bounded at once by linear bounds, rigorous in float64, with boxes of all units of their own; what these
leave open is shrunk to where the unsafe rows can be met (`verifier.certificates.conjunctions`) and halved. Middles and
the points where bounds end are tried as counterexamples. It ends for any network of continuous ops but where the least
margin is zero within rounding; how long it takes grows with the number of inputs.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from encoders.box import Box
from encoders.region import BallRegion
from verifier.bounds.inputs.boxes import BoxStore, InputBoxes, halves
from verifier.bounds.inputs.inherited import UnitBoxes
from verifier.bounds.inputs.sampling import ROUNDS, sampled
from verifier.bounds.inputs.sides import OpenRows, best_sides
from verifier.bounds.linear.backward import Seen
from verifier.bounds.linear.bounds import linear_bounds
from verifier.bounds.margin_known import margin_known
from verifier.budget import Budget
from verifier.certificates.conjunctions import Conjunctions
from verifier.certificates.halfspaces import HalfspacesOfBox
from verifier.verdict import Telling

if TYPE_CHECKING:
    from verifier.bounds.inputs.compiled_search import CompiledSearch

# Boxes that are bounded side by side.
BATCH = 128
# Boxes too thin to be halved that may stay open before the search ends: the first one rules a proof out.
MOST_THIN = 16
# Points of a batch that are tried as counterexamples.
POINTS = 16
# Rounds of samples of the whole box before it is halved; one more goes beside each batch of boxes after it. All of them
# take as long as some hundred boxes, which is more than most easy ones need.
FIRST_ROUNDS = 4
# Boxes that are bounded before compiled loops go on, where the network has them: they take half a second to load, and
# once on a machine some twenty to be compiled.
BEFORE_COMPILED = 256

# Tries points `(count, *input_shape)`; true once one of them is a replayed counterexample.
Attack = Callable[[Tensor], bool]


@dataclass(frozen=True, eq=False)
class InputAnswer:
    """proved: no unsafe point is in the box. falsified: the attack succeeded. Neither: open, for the reason.

    boxes: how many were bounded. telling: how much the reason says.
    """

    proved: bool
    falsified: bool
    reason: str
    boxes: int
    telling: Telling = Telling.LIMIT


def decide_box(
    asked: Conjunctions, box: Box, attack: Attack, budget: Budget, most_boxes: int, seed: int = 0
) -> InputAnswer:
    """Return whether a box (batch 1, float64, finite) holds no unsafe point; seed: of the points that are sampled."""
    return BoxSearch(asked, box, seed).run(attack, budget, most_boxes)


class BoxSearch:
    """The boxes that wait, and how many have been bounded. See `decide_box`, whose questions it is about.

    A search that met a limit goes on from there when it is run again; one that an exception or a counterexample ended
    may have lost boxes and refuses to.
    """

    def __init__(self, asked: Conjunctions, box: Box, seed: int = 0) -> None:
        self.asked, self.seed = asked, seed
        self.attack: Attack = lambda points: False
        self.budget = Budget()
        lower, upper = box.lower.cpu().flatten(1), box.upper.cpu().flatten(1)
        self.store = BoxStore()
        self.units = UnitBoxes.of(asked.network)
        self.store.add(InputBoxes.root(lower, upper, self.units.unknown()))
        self.box = Box(lower.reshape(box.lower.shape), upper.reshape(box.upper.shape))
        # What compiled loops go on with; None before they were asked for, or where there are none.
        self.rest: CompiledSearch | None = None
        self.handed_over = False
        # Boxes bounded, and those too thin, of all and before compiled loops went on.
        self.bounded, self.thin = 0, 0
        self.before = 0, 0
        self.is_running = False
        self.least_thin = math.inf
        # Of the box as bounds of the whole leave it, which is known once these are computed.
        self.samples: Iterator[Tensor] = iter(())

    def run(self, attack: Attack, budget: Budget, most_boxes: int) -> InputAnswer:
        """Bound and halve until no box is left, one has a counterexample, or so many have been bounded in all runs."""
        if self.is_running:
            raise RuntimeError(
                "a search over boxes that a counterexample or an exception ended has lost boxes; start a new one"
            )
        self.is_running, self.attack, self.budget = True, attack, budget
        answer = self._run(most_boxes)
        # The box of a counterexample is lost, with those bounded beside it.
        self.is_running = answer.falsified
        return answer

    def _run(self, most_boxes: int) -> InputAnswer:
        if self.rest is not None and self._compiled(self.rest, most_boxes):
            return InputAnswer(False, True, "", self.bounded)
        while len(self.store):
            if self.budget.exhausted or self.bounded >= most_boxes or self.thin >= MOST_THIN:
                break
            if self.bounded >= BEFORE_COMPILED and not self.handed_over:
                if self._sampled(ROUNDS):
                    return InputAnswer(False, True, "", self.bounded)
                self.handed_over, self.rest = True, self._handed_over()
                if self.rest is not None and self._compiled(self.rest, most_boxes):
                    return InputAnswer(False, True, "", self.bounded)
                continue
            first = self.bounded == 0
            found = self._bounded(self.store.take(BATCH))
            if first and found is not None and len(found[0]):
                self.samples = iter(sampled(self.asked, found[0].lower[0], found[0].upper[0], self.seed))
            if found is None or (len(found[0]) > 0 and self._sampled(FIRST_ROUNDS if first else 1)):
                return InputAnswer(False, True, "", self.bounded)
            self._halve(*found)
            self.budget.watch.tell(self._standing)
        return self._ended(most_boxes)

    def _halve(self, boxes: InputBoxes, scores: Tensor) -> None:
        """Halve boxes along the sides of the greatest scores; those that no float64 halves stay open."""
        sides = best_sides(boxes, scores)
        divides = sides >= 0
        self.thin += int((~divides).sum())
        self.least_thin = min(self.least_thin, boxes[~divides].least)
        if bool(divides.any()):
            self.store.add(halves(boxes[divides], sides[divides]))

    def _handed_over(self) -> CompiledSearch | None:
        """Hand all that waits over to compiled loops, if the network has them."""
        # numba is imported here, as loading it takes half a second that easy boxes need not pay.
        from verifier.bounds.inputs.chain import chain_of
        from verifier.bounds.inputs.compiled_search import CompiledSearch, may_compile

        try:
            chain = chain_of(self.asked, self.box) if may_compile(self.budget) else None
        except MemoryError:
            # The boxes go on as they are: they take no matrices of whole layers.
            chain = None
        if chain is None:
            return None
        self.before = self.bounded, self.thin
        return CompiledSearch.of(chain, self.store.take(len(self.store)))

    def _compiled(self, rest: CompiledSearch, most_boxes: int) -> bool:
        """Go on in compiled loops; true on a counterexample."""
        shape, (bounded, thin) = self.asked.network.input_shape, self.before

        def report() -> None:
            self.bounded, self.thin = bounded + rest.bounded, thin + rest.thin
            self.budget.watch.tell(self._standing)

        return rest.run(
            lambda points: self._falsified(points.reshape(-1, *shape)), self.budget, most_boxes - bounded, report
        )

    def _waiting(self) -> tuple[int, float]:
        """Return how many boxes wait, and the least bound of these and of those that are too thin."""
        count, least = len(self.store), min(self.least_thin, self.store.least)
        return (count, least) if self.rest is None else (count + self.rest.waiting, min(least, self.rest.least))

    def _standing(self) -> str:
        """Return how the search stands: what is not waiting is proved, but for the boxes that are too thin."""
        done = f" after {self.bounded}" if self.bounded else ""
        waiting, least = self._waiting()
        return f"{waiting} boxes are open{done}{margin_known(least)}"

    def _ended(self, most_boxes: int) -> InputAnswer:
        waiting, _ = self._waiting()
        if self.thin:
            more = f", {waiting} more are open" if waiting else ""
            reason, telling = (
                f"{self.thin} boxes of single points, but for rounding, are neither proved nor unsafe{more}",
                Telling.FINAL,
            )
        elif waiting:
            reason = f"{self.budget.why or f'{most_boxes} boxes of the region'}; {self._standing()}"
            telling = Telling.STANDING if self.bounded > 1 else Telling.LIMIT
        else:
            return InputAnswer(True, False, "", self.bounded)
        return InputAnswer(False, False, reason, self.bounded, telling)

    def _bounded(self, boxes: InputBoxes) -> tuple[InputBoxes, Tensor] | None:
        """Return the boxes that stay open, shrunk to where unsafe points may lie, and the scores of their sides.

        None on a counterexample.
        """
        asked, shape = self.asked, self.asked.network.input_shape
        self.bounded += len(boxes)
        region = BallRegion.of_box(Box(boxes.lower.reshape(-1, *shape), boxes.upper.reshape(-1, *shape)))
        rows = asked.coefficients.expand(len(boxes), *asked.coefficients.shape)
        bounds = linear_bounds(asked.network, region, boxes=self.units.apart(boxes.units))
        seen: Seen = {}
        minimum = bounds.minimise(rows, with_points=True, seen=seen)
        worst = asked.worst(minimum.bound - asked.offsets)
        # Open is what is not proved, whatever a comparison with NaN would say.
        is_open = ~(worst > 0)
        places = torch.nonzero(is_open.any(dim=1)).squeeze(1)
        known = self.units.together(bounds.boxes, boxes.units)
        boxes, is_open = replace(boxes, bounds=worst.amin(dim=1), units=known)[places], is_open[places]
        tried = boxes.middles.reshape(-1, *shape)
        if minimum.points is not None:
            tried = torch.cat([tried, minimum.points[places].flatten(0, 1)])
        if len(places) and self._falsified(tried):
            return None
        if minimum.below is None or not len(places):
            # Nothing depends on the input: there is no function to cut with, and no side is better than another.
            return boxes, boxes.upper - boxes.lower
        below = minimum.below.at(places)
        halfspaces = HalfspacesOfBox.of(below, asked.offsets, boxes.lower, boxes.upper)
        is_open, lower, upper = halfspaces.of_groups(asked.groups, is_open)
        kept = is_open.any(dim=1)
        shown = torch.cat([is_open[:, k, None].expand(-1, g.stop - g.start) for k, g in enumerate(asked.groups)], dim=1)
        boxes, slopes = replace(boxes, lower=lower, upper=upper)[kept], halfspaces.slopes * shown[:, :, None]
        return boxes, OpenRows(bounds.passes, seen, places[kept], slopes[kept]).scores(boxes)

    def _sampled(self, rounds: int) -> bool:
        """Sample the whole box for so many rounds more, if it has as many left; true on a counterexample."""
        shape = self.asked.network.input_shape
        for best in itertools.islice(self.samples, rounds):
            if self.budget.exhausted:
                return False
            if self._falsified(best.reshape(-1, *shape)):
                return True
        return False

    def _falsified(self, points: Tensor) -> bool:
        """Try the points that are unsafe in floats, the surest first."""
        excess = self.asked.excess(points).nan_to_num(torch.inf, torch.inf, -torch.inf)
        surest = excess.argsort()[:POINTS]
        surest = surest[excess[surest] <= 0]
        return bool(len(surest)) and self.attack(points[surest])
