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

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from encoders.network import Network
from encoders.passes import expand_max_pools
from encoders.region import BallRegion
from encoders.scaling import exponents
from verifier.bounds.split.dual_ascent import DualAscent, Lines
from verifier.bounds.split.open_subproblem import Why, sentence, why_open
from verifier.bounds.split.pieces import solve_piece
from verifier.bounds.split.stages import stage_units, staged, with_known_signs
from verifier.bounds.split.subproblems import Forest, Parts, PartStore
from verifier.budget import Budget
from verifier.certificates.certificate import STEPS, BoxSlopes, Certificate, leaf_bounds
from verifier.certificates.split_program import SplitProgram

# Parts that are bounded side by side.
BATCH = 256
# Steps of ascent: for boxes and whole balls, from which all parts start, and for parts.
ROOT_STEPS, PART_STEPS = 20, 5
# Parts with so many cuts that are still open take so many more: they lie beside the border of the ball, where what is
# missing is little, and every cut that is spared counts.
MORE_STEPS = ((12, 10), (32, 40))
# Ascent ends once all bounds pass this share of the margin's unit, its reach rounded up to a power of two.
GOAL = 1e-5
# A leaf's bound must pass this share of the margin's reach, so that it does on machines that round otherwise, too.
SLACK = 1e-11
# Cuts whose halves are bounded before one is chosen, and points that are tried of a batch.
CANDIDATES, POINTS = 4, 16
# Steps of descent from each of these points, and by how much they shrink.
DESCENT_STEPS, DESCENT_DECAY = 10, 0.7
# So many batches all descend, then one of so many: later they cost a quarter of the time and rarely find anything.
DESCENTS = 5
# A point is proposed where its margin in float32 is below this share of the reach.
NEAR = 1e-6
# Parts with all signs known that may stay open before the search ends: the first one rules a proof out.
MOST_TIES = 16
TIME = "time limit"

# Tries points `(count, *input_shape)` of the ball; true once one of them is a replayed counterexample.
Attack = Callable[[Tensor], bool]


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


class SplitSearch:
    """The search over one ball (batch 1, inf-norm, on the processor) for points where another class is as large."""

    def __init__(
        self, network: Network, region: BallRegion, winner: int, attack: Attack, budget: Budget, most_parts: int
    ) -> None:
        self.network, self.region, self.winner = expand_max_pools(network), region, winner
        self.digest = network.digest
        self.attack, self.budget, self.most_parts = attack, budget, most_parts
        self.exact_stages = staged(self.network)
        # Ascent works in units in which all values are of size 1: float32 ends at 2^127, its constants mean these.
        ball = region.enclosure()
        self.units = stage_units(self.exact_stages, ball.lower.flatten(), ball.upper.flatten())
        self.all_stages = self.units.applied(self.exact_stages, 0).to(torch.float32)
        self.rivals = [k for k in range(network.output_shape[0]) if k != winner]
        self.rows = -np.eye(network.output_shape[0])[self.rivals]
        self.rows[:, winner] = 1.0
        self._row_tensor = torch.from_numpy(self.rows).to(torch.float32)
        self._parts = self._programs = self._batches = 0

    def decide(self) -> SplitAnswer:
        """Return whether the class is above every other on the whole ball."""
        for steps in (0, ROOT_STEPS):
            # Boxes that are worth ascent are made where the plain ones do not suffice.
            self._set_boxes(steps)
            left = self._worked_off(self._root(), ROOT_STEPS)
            if left is None:
                return self._answer(found=True)
            parts, losses = left
            if not len(parts):
                return self._answer()
            if self.budget.exhausted:
                return self._answer(f"{TIME}; the whole ball is open")
        return self._search(parts, losses)

    # ------------------------------------------------------------------------------------------------------- the boxes

    def _set_boxes(self, steps: int) -> None:
        """Prove the boxes of what hinges read, with slopes from `steps` of ascent, and prepare ascent over them."""
        ball = self.region.enclosure()
        ends = [torch.ldexp(end.flatten(), torch.tensor(-self.units.stages[0])) for end in (ball.lower, ball.upper)]
        self.program = SplitProgram(self.network, ball)
        whole = DualAscent(self.all_stages, *ends)
        self.boxes: list[BoxSlopes] = []
        while (name := self.program.advance()) is not None:
            places = self.program.open_units(name)
            if self.program.units and len(places):
                slopes = self._box_slopes(whole, name, places, steps)
                self.boxes.append(BoxSlopes(name, places.astype(np.int32), slopes))
                self.program.tighten(name, places, slopes / STEPS)
        self.reach = np.abs(self.rows) @ self.program.reach(self.program.network.output.name)
        self.output = int(exponents(self.reach.max(keepdims=True))[0])
        unit_stages = self.units.applied(self.exact_stages, self.output)
        self.all_stages = unit_stages.to(torch.float32)
        # From here on only units whose sign is open count: the others are part of the affine maps between them.
        lines = self._lines(whole.left)
        is_open = lines.span[0] > 0
        self.open_units = torch.nonzero(is_open).squeeze(1)
        self.lines, self.known_slopes = lines.at(self.open_units), lines.slope[0]
        self.stages = with_known_signs(unit_stages, is_open, lines.slope[0]).to(torch.float32)
        self.ascent = DualAscent(self.stages, *ends)

    def _box_slopes(self, whole: DualAscent, name: str, places: np.ndarray, steps: int) -> np.ndarray:
        """Return slopes for the bounds of some units of a node, in steps of 1/255."""
        stage = next(hinge for hinge in self.all_stages.hinges if hinge.source == name)
        chosen = torch.from_numpy(places)
        rows = torch.zeros(2 * len(chosen), len(stage.bias))
        rows[torch.arange(len(chosen)), chosen] = 1.0
        rows[torch.arange(len(chosen)) + len(chosen), chosen] = -1.0
        lines = self._lines(whole.left)
        slopes = _first_slopes(lines).expand(len(rows), -1)
        if steps:
            slopes = whole.ascend(stage, rows, lines, slopes, None, steps, torch.inf)[1]
        found: np.ndarray = (slopes[:, : self.program.units] * STEPS).round().to(torch.uint8).numpy()
        return found

    def _lines(self, left: Tensor) -> Lines:
        """Return the lines of all hinges whose boxes are known so far; those of the others are flat."""
        lower, upper = torch.zeros(1, len(left)), torch.zeros(1, len(left))
        for hinge in self.program.hinges:
            box = self.program.boxes[hinge.source]
            exponent = -self.units.units[hinge.units]
            lower[0, hinge.units] = torch.ldexp(box.lower.flatten(), exponent).float()
            upper[0, hinge.units] = torch.ldexp(box.upper.flatten(), exponent).float()
        return Lines.on(lower, upper, left)

    # ------------------------------------------------------------------------------------------------------ the search

    def _root(self) -> Parts:
        """Return the whole ball, once for each rival."""
        count, units = len(self.rows), len(self.open_units)
        self.forest = Forest(count)
        numbers = torch.arange(count)
        slopes = _first_slopes(self.lines).expand(count, -1)
        nothing = torch.zeros(count, units)
        return Parts(torch.full((count,), -torch.inf), numbers, numbers, nothing.to(torch.int8), slopes, nothing)

    def _search(self, parts: Parts, losses: Tensor) -> SplitAnswer:
        """Cut the given parts, all bounded in vain, until none is left."""
        store = PartStore()
        skipped = 0
        left_open: list[Why] = []
        while True:
            known = (parts.signs != 0).all(dim=1)
            for i in torch.nonzero(known).squeeze(1).tolist():
                if self.budget.exhausted or len(left_open) >= MOST_TIES:
                    skipped += 1
                    continue
                settled = self._settled(parts[i : i + 1])
                if settled is None:
                    return self._answer(found=True)
                left_open += [settled] if isinstance(settled, Why) else []
            parts, losses = parts[~known], losses[~known]
            if len(parts):
                store.add(self._halves(parts, self._chosen_cuts(parts, losses)))
            if skipped or len(left_open) >= MOST_TIES or not len(store):
                break
            if self.budget.exhausted or self._parts >= self.most_parts:
                why = TIME if self.budget.exhausted else f"{self.most_parts} parts of the region"
                return self._answer(f"{why}; {len(store) + len(left_open)} parts are open")
            left = self._worked_off(store.take(BATCH), PART_STEPS)
            if left is None:
                return self._answer(found=True)
            parts, losses = left
        others = skipped + len(store)
        if left_open:
            more = f", {others} more are open" if others else ""
            return self._answer(f"{sentence(left_open)}{more}")
        return self._answer(f"{TIME}; {others} parts are open" if others else "")

    def _answer(self, reason: str = "", found: bool = False) -> SplitAnswer:
        certificate = None
        if not reason and not found:
            trees = tuple(self.forest.tree(number, rival) for number, rival in enumerate(self.rivals))
            certificate = Certificate(
                self.digest, self.region.centre[0].numpy(), float(self.region.radius[0]), self.region.domain,
                self.winner, tuple(self.boxes), self.open_units.numpy().astype(np.int32), trees,
            )  # fmt: skip
        return SplitAnswer(certificate, found, reason, self._parts, self._programs, len(self.open_units))

    def _on_all_units(self, values: Tensor) -> Tensor:
        """Return values `(parts, open units)` placed among all units, the others zero."""
        placed = torch.zeros(len(values), self.program.units, dtype=values.dtype)
        placed[:, self.open_units] = values
        return placed

    def _cut_lines(self, signs: Tensor) -> Lines:
        return self.lines.cut(signs, self.ascent.left)

    def _worked_off(self, parts: Parts, steps: int) -> tuple[Parts, Tensor] | None:
        """Bound parts, try the points where the bounds end, and close what can be closed.

        Returns the parts that are left, and what the line above each of their units costs the bound (its height at
        zero times the cost in front: Bunel et al. 2020), `(parts, open units)`; None once a point is a counterexample.
        """
        self._parts += len(parts)
        rows, lines, stage = self._row_tensor[parts.rows], self._cut_lines(parts.signs), self.stages.output
        bounds, slopes, pulls = self.ascent.ascend(stage, rows, lines, parts.slopes, parts.pulls, steps, GOAL)
        assert pulls is not None
        depths = (parts.signs != 0).sum(dim=1)
        for depth, more in MORE_STEPS:
            deep = torch.nonzero((bounds <= 0) & (depths >= depth)).squeeze(1)
            if len(deep):
                bounds[deep], slopes[deep], moved = self.ascent.ascend(
                    stage, rows[deep], lines[deep], slopes[deep], pulls[deep], more, GOAL
                )
                assert moved is not None
                pulls[deep] = moved
        ended = self.ascent.evaluate(stage, rows, lines, slopes, pulls)
        if self._attacked(ended.points, parts.rows):
            return None
        bounds = torch.maximum(bounds.nan_to_num(-torch.inf, torch.inf, -torch.inf), parts.bounds)
        better = replace(parts, bounds=bounds, slopes=slopes, pulls=pulls)
        left = ~self._closed(better)
        losses = ended.costs.clamp(max=0) * -lines.offset
        return better[left], losses[left]

    def _attacked(self, points: Tensor, rows: Tensor) -> bool:
        """Descend from the points `(parts, inputs)` of least margins; true once one is a counterexample."""
        margins = (self.all_stages.outputs(points) * self._row_tensor[rows]).sum(dim=1)
        chosen = margins.argsort()[:POINTS]
        points, rows = points[chosen], rows[chosen]
        reach = torch.from_numpy(np.ldexp(self.reach, -self.output)).float()
        near, margins = reach[rows] * NEAR, margins[chosen]
        self._batches += 1
        if self._tried(points[margins <= near]):
            return True
        # Where points are unsafe by rounding only, descents go on from them.
        if self._batches > DESCENTS and self._batches % DESCENTS:
            return False
        points, margins = self._descended(points, self._row_tensor[rows])
        return self._tried(points[margins <= near])

    def _tried(self, points: Tensor) -> bool:
        """Return whether one of the points `(count, inputs)` is a counterexample."""
        if not len(points):
            return False
        exact = torch.ldexp(points.to(torch.float64), torch.tensor(self.units.stages[0]))
        return self.attack(exact.reshape(-1, *self.network.input_shape))

    def _descended(self, points: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return the best points and margins of a few signed steps of ever smaller size in the ball."""
        lower, upper = self.ascent.lower, self.ascent.upper
        best, least = points, torch.full((len(points),), torch.inf)
        with torch.enable_grad():
            for step in range(DESCENT_STEPS):
                at = points.detach().requires_grad_()
                margins = (self.all_stages.outputs(at) * rows).sum(dim=1)
                (gradient,) = torch.autograd.grad(margins.sum(), at)
                better = margins.detach() < least
                best, least = torch.where(better[:, None], points, best), torch.minimum(margins.detach(), least)
                move = math.ldexp(float(self.region.radius[0]), -self.units.stages[0]) * DESCENT_DECAY**step
                points = torch.minimum(torch.maximum(points - move * gradient.sign(), lower), upper)
        return best, least

    def _closed(self, parts: Parts) -> Tensor:
        """Return a mask of the parts whose numbers prove them; keep these."""
        closed = torch.zeros(len(parts), dtype=torch.bool)
        tried = torch.nonzero(parts.bounds > 0).squeeze(1)
        if len(tried):
            chosen = parts[tried]
            slopes, pulls, rows = chosen.slopes.numpy(), self._exact_pulls(chosen.pulls), chosen.rows.numpy()
            signs = self._on_all_units(chosen.signs).numpy()
            found = leaf_bounds(self.program, self.rows[rows], signs, self.open_units.numpy(), slopes, pulls)
            proved = found > SLACK * self.reach[rows]
            for i in np.flatnonzero(proved).tolist():
                self.forest.close(int(chosen.nodes[i]), slopes[i], pulls[i])
            closed[tried[torch.from_numpy(proved)]] = True
        return closed

    def _exact_pulls(self, pulls: Tensor) -> np.ndarray:
        """Return pulls `(parts, open units)` in the network's own units, in float32 where that holds them."""
        powers = self.output - self.units.units[self.open_units].numpy()
        exact = np.ldexp(pulls.numpy().astype(np.float64), powers)
        with np.errstate(over="ignore", under="ignore"):
            narrow = exact.astype(np.float32)
        found: np.ndarray = narrow if np.array_equal(narrow, exact) else exact
        return found

    def _chosen_cuts(self, parts: Parts, losses: Tensor) -> Tensor:
        """Return the unit to cut of each part, as its place among the open units.

        Candidates are those of greatest loss; of these the one whose halves have the largest bounds together, both cut
        off at the goal (Bunel et al. 2020; De Palma et al. 2021).
        """
        rows = self._row_tensor[parts.rows]
        losses = torch.where(parts.signs == 0, losses, -1.0)
        losses, candidates = losses.topk(min(CANDIDATES, losses.shape[1]), dim=1)
        count = candidates.shape[1]
        each = torch.arange(len(parts)).repeat_interleave(2 * count)
        signs = parts.signs[each].view(len(parts), count, 2, -1)
        places = candidates[:, :, None, None].expand(-1, -1, 2, 1)
        signs.scatter_(3, places, _both_signs().expand(len(parts), count, 2, 1))
        lines = self._cut_lines(signs.flatten(0, 2))
        bounds = self.ascent.bound(self.stages.output, rows[each], lines, parts.slopes[each], parts.pulls[each])
        together = bounds.clamp(max=GOAL).view(len(parts), count, 2).sum(dim=2).nan_to_num(-1e30, -1e30, -1e30)
        return candidates.gather(1, torch.where(losses >= 0, together, -torch.inf).argmax(dim=1, keepdim=True)).squeeze(
            1
        )

    def _halves(self, parts: Parts, cuts: Tensor) -> Parts:
        """Return both halves of each part, the one where the unit is at least zero first."""
        units = self.open_units[cuts].tolist()
        firsts = [self.forest.cut(node, unit) for node, unit in zip(parts.nodes.tolist(), units, strict=True)]
        halves = parts[torch.arange(len(parts)).repeat_interleave(2)]
        signs = halves.signs.clone().view(len(parts), 2, -1)
        signs.scatter_(2, cuts[:, None, None].expand(-1, 2, 1), _both_signs()[0].expand(len(parts), 2, 1))
        nodes = (torch.tensor(firsts)[:, None] + torch.arange(2)).flatten()
        return replace(halves, nodes=nodes, signs=signs.flatten(0, 1))

    def _settled(self, part: Parts) -> Why | bool | None:
        """Return true once a part with all signs known is closed, or why it is not; None if it has a counterexample.

        The linear program of its linear piece decides; its multipliers are the pulls.
        """
        self._programs += 1
        row, signs = self.rows[int(part.rows[0])], self._on_all_units(part.signs)
        found = solve_piece(
            self.exact_stages, self.region.enclosure(), self._piece_slopes(part), signs[0], row, self.budget
        )
        for pulls in found.pulls:
            if self._proved(part, row, signs.numpy(), pulls[self.open_units.numpy()]):
                return True
        point = None if found.point is None else found.point.reshape(self.network.input_shape)
        if point is not None and self.attack(point.unsqueeze(0)):
            return None
        reach = float(self.reach[int(part.rows[0])])
        return why_open(self.network, self.region, point, torch.from_numpy(row), reach)

    def _piece_slopes(self, part: Parts) -> Tensor:
        """Return the slopes `(units,)` of all hinges on a part with all signs known."""
        slopes = self.known_slopes.clone()
        slopes[self.open_units] = self._cut_lines(part.signs).slope[0]
        return slopes

    def _proved(self, part: Parts, row: np.ndarray, signs: np.ndarray, pulls: np.ndarray) -> bool:
        """Return whether float64 pulls `(open units,)` prove a part with all signs known; keep them if so."""
        slopes = part.slopes.numpy().astype(np.float64)
        bound = leaf_bounds(self.program, row, signs, self.open_units.numpy(), slopes, pulls[None])
        if not bound[0] > SLACK * self.reach[int(part.rows[0])]:
            return False
        self.forest.close(int(part.nodes[0]), slopes[0], pulls)
        return True


def _both_signs() -> Tensor:
    return torch.tensor([1, -1], dtype=torch.int8).view(1, 1, 2, 1)


def _first_slopes(lines: Lines) -> Tensor:
    """Return the slopes `(parts, units)` from which ascent starts: whichever line below leaves the smaller area."""
    return (lines.slope > 0.5).to(lines.slope.dtype)
