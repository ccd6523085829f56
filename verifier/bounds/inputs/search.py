"""Branch and bound over the box of inputs: halves of boxes until linear bounds refute each (Wang et al. 2018, ReluVal).

Many boxes are bounded at once by linear bounds, rigorous in float64, with boxes of all units of their own; what these
leave open is shrunk to where the unsafe rows can be met (`verifier.bounds.inputs.conjunctions`) and halved. Middles and
the points where bounds end are tried as counterexamples. It ends for any network of continuous ops but where the least
margin is zero within rounding; how long it takes grows with the number of inputs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from encoders.box import Box
from encoders.region import BallRegion
from verifier.bounds.inputs.boxes import BoxStore, InputBoxes, chosen_sides, halves, joined
from verifier.bounds.inputs.conjunctions import Conjunctions, HalfspacesOfBox
from verifier.bounds.inputs.inherited import UnitBoxes
from verifier.bounds.inputs.sampling import sampled
from verifier.bounds.linear.bounds import linear_bounds
from verifier.budget import Budget

# Boxes that are bounded side by side.
BATCH = 128
# Boxes too thin to be halved that may stay open before the search ends: the first one rules a proof out.
MOST_THIN = 16
# Points of a batch that are tried as counterexamples.
POINTS = 16
# Both rules for sides are tried on the first boxes that are halved, and on one of so many later ones.
FIRST_TRIALS, TRIALS = 64, 8
TIME = "time limit"

# Tries points `(count, *input_shape)`; true once one of them is a replayed counterexample.
Attack = Callable[[Tensor], bool]


@dataclass(frozen=True, eq=False)
class InputAnswer:
    """proved: no unsafe point is in the box. falsified: the attack succeeded. Neither: open, for the reason.

    boxes: how many were bounded.
    """

    proved: bool
    falsified: bool
    reason: str
    boxes: int


def decide_box(
    asked: Conjunctions, box: Box, attack: Attack, budget: Budget, most_boxes: int, seed: int = 0
) -> InputAnswer:
    """Return whether a box (batch 1, float64, finite) holds no unsafe point; seed: of the points that are sampled."""
    return _Search(asked, box, attack, budget, seed).run(most_boxes)


@dataclass(frozen=True, eq=False)
class OpenBoxes:
    """Boxes that bounds leave open; slopes: `(boxes, rows, inputs)`, of the functions below open rows, 0 for others."""

    boxes: InputBoxes
    slopes: Tensor

    def __len__(self) -> int:
        return len(self.boxes)

    def __getitem__(self, rows: Tensor) -> OpenBoxes:
        """Return the boxes of some rows."""
        return OpenBoxes(self.boxes[rows], self.slopes[rows])


class _Search:
    """The boxes that wait, those that are bounded and to be halved next, and how many have been bounded."""

    def __init__(self, asked: Conjunctions, box: Box, attack: Attack, budget: Budget, seed: int) -> None:
        self.asked, self.attack, self.budget, self.seed = asked, attack, budget, seed
        lower, upper = box.lower.cpu().flatten(1), box.upper.cpu().flatten(1)
        self.widths = (upper - lower)[0]
        self.store = BoxStore()
        self.units = UnitBoxes.of(asked.network)
        self.store.add(InputBoxes.root(lower, upper, self.units.unknown()))
        self.ready: list[OpenBoxes] = []
        self.bounded, self.halved, self.thin = 0, 0, 0

    def run(self, most_boxes: int) -> InputAnswer:
        """Bound and halve until no box is left, one has a counterexample, or so many have been bounded."""
        while len(self.store) or self.ready:
            if self.budget.exhausted or self.bounded >= most_boxes or self.thin >= MOST_THIN:
                break
            found = self.ready.pop() if self.ready else self._bounded(self.store.take(BATCH))
            # The whole box is sampled once, where it is not proved at once.
            shown = found is None or (self.bounded == 1 and len(found) > 0 and self._sampled(found.boxes))
            if found is None or shown or not self._halve(found):
                return InputAnswer(False, True, "", self.bounded)
        return self._ended(most_boxes)

    def _halve(self, found: OpenBoxes) -> bool:
        """Halve boxes; where both rules are tried, go on with the halves that gain more. False on a counterexample."""
        sides = chosen_sides(found.boxes, found.slopes, self.widths)
        divides = sides[:, 0] >= 0
        self.thin += int((~divides).sum())
        found, sides = found[divides], sides[divides]
        turns = self.halved + torch.arange(len(found))
        self.halved += len(found)
        tried = (sides[:, 0] != sides[:, 1]) & ((turns < FIRST_TRIALS) | (turns % TRIALS == 0))
        plain = found.boxes[~tried]
        if len(plain):
            self.store.add(halves(plain, sides[~tried].gather(1, plain.rules[:, None]).squeeze(1)))
        return not bool(tried.any()) or self._try_rules(found.boxes[tried], sides[tried])

    def _try_rules(self, boxes: InputBoxes, sides: Tensor) -> bool:
        """Bound the halves of both rules, and keep those whose bounds are better. False on a counterexample."""
        count = len(boxes)
        both = [halves(replace(boxes, rules=torch.full_like(boxes.rules, k)), sides[:, k]) for k in (0, 1)]
        numbered = [replace(part, nodes=torch.arange(2 * count) // 2 + k * count) for k, part in enumerate(both)]
        found = self._bounded(joined(numbered))
        if found is None:
            return False
        # What is missing to a proof, of both halves together: by rule and box.
        missing = torch.zeros(2 * count, dtype=torch.float64)
        missing.index_add_(0, found.boxes.nodes, found.boxes.bounds.clamp(min=-1e300))
        better = (missing[count:] > missing[:count]).to(torch.int64)
        kept = found[better[found.boxes.nodes % count] == found.boxes.rules]
        if len(kept):
            self.ready.append(kept)
        return True

    def _ended(self, most_boxes: int) -> InputAnswer:
        waiting = len(self.store) + sum(len(found) for found in self.ready)
        if self.thin:
            more = f", {waiting} more are open" if waiting else ""
            reason = f"{self.thin} boxes of single points, but for rounding, are neither proved nor unsafe{more}"
        elif waiting:
            why = TIME if self.budget.exhausted else f"{most_boxes} boxes of the region"
            reason = f"{why}; {waiting} boxes are open"
        else:
            return InputAnswer(True, False, "", self.bounded)
        return InputAnswer(False, False, reason, self.bounded)

    def _bounded(self, boxes: InputBoxes) -> OpenBoxes | None:
        """Return the boxes that stay open, shrunk to where unsafe points may lie; None on a counterexample."""
        asked, shape = self.asked, self.asked.network.input_shape
        self.bounded += len(boxes)
        region = BallRegion.of_box(Box(boxes.lower.reshape(-1, *shape), boxes.upper.reshape(-1, *shape)))
        rows = asked.coefficients.expand(len(boxes), *asked.coefficients.shape)
        bounds = linear_bounds(asked.network, region, boxes=self.units.apart(boxes.units))
        minimum = bounds.minimise(rows, with_points=True)
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
            return OpenBoxes(boxes, torch.zeros_like(boxes.lower)[:, None])
        below = minimum.below.at(places)
        halfspaces = HalfspacesOfBox.of(below, asked.offsets, boxes.lower, boxes.upper)
        kept, lower, upper, is_open = _shrunk(asked, halfspaces, is_open)
        shown = torch.cat([is_open[:, k, None].expand(-1, g.stop - g.start) for k, g in enumerate(asked.groups)], dim=1)
        return OpenBoxes(replace(boxes, lower=lower, upper=upper), halfspaces.slopes * shown[:, :, None])[kept]

    def _sampled(self, boxes: InputBoxes) -> bool:
        """Sample the one box; true once a point is a counterexample."""
        shape = self.asked.network.input_shape
        rounds = sampled(self.asked, boxes.lower[0], boxes.upper[0], self.seed)
        return any(not self.budget.exhausted and self._falsified(best.reshape(-1, *shape)) for best in rounds)

    def _falsified(self, points: Tensor) -> bool:
        """Try the points that are unsafe in floats, the surest first."""
        excess = self.asked.excess(points).nan_to_num(torch.inf, torch.inf, -torch.inf)
        surest = excess.argsort()[:POINTS]
        surest = surest[excess[surest] <= 0]
        return bool(len(surest)) and self.attack(points[surest])


def _shrunk(asked: Conjunctions, halfspaces: HalfspacesOfBox, is_open: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return (mask of the boxes that are left, their ends, which groups are open) after half-spaces have cut them.

    is_open: `(batch, groups)`. The points of several groups lie in the box around what is left of each.
    """
    is_open = is_open.clone()
    lower, upper = torch.full_like(halfspaces.lower, torch.inf), torch.full_like(halfspaces.upper, -torch.inf)
    for k, group in enumerate(asked.groups):
        least, greatest = halfspaces.left(group)
        is_open[:, k] &= ~(least > greatest).any(dim=1)
        if group.stop - group.start > 1:
            is_open[:, k] &= ~(halfspaces.combined(group) > 0)
        keeps = is_open[:, k, None]
        lower = torch.where(keeps, torch.minimum(lower, least), lower)
        upper = torch.where(keeps, torch.maximum(upper, greatest), upper)
    return is_open.any(dim=1), lower, upper, is_open
