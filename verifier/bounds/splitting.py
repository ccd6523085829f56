"""Branch and bound over the signs of hinge units: exact answers for networks of relus (Bunel et al. 2018, 2020).

A part of a ball is given by boxes of the values that relus, leaky relus and absolute values read: each split cuts one
of them at zero, and the two closed halves cover the part. A part is closed by linear bounds whose boxes hold the cuts,
for many parts at once, or by a linear program over the rows on those boxes; both prove in real arithmetic, and so does
an empty intersection. The points where bounds end are tried as counterexamples. Where every sign is known the program
is the network, so only a tie within rounding can stay open.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from encoders.box import Box
from encoders.formulations.relax import relax
from encoders.network import Network, Node
from encoders.ops import Abs, LeakyRelu, Relu
from encoders.region import BallRegion
from verifier.bounds.linear import LinearBounds
from verifier.bounds.lp import LpBound, MarginProgram
from verifier.budget import Budget

HINGES = (Relu, LeakyRelu, Abs)
# Parts whose linear bounds are computed side by side.
BATCH = 16
TIME = "time limit"

# Tries points `(count, *input_shape)` of the ball; true once one of them is a replayed counterexample.
Attack = Callable[[Tensor], bool]


@dataclass(frozen=True)
class SplitAnswer:
    """proved: no point of the ball makes the row <= 0. found: the attack succeeded. Neither: open, for the reason.

    parts: how many were bounded; programs: how many linear programs were solved; open_units: at the root.
    """

    proved: bool
    found: bool
    reason: str
    parts: int
    programs: int
    open_units: int


@dataclass(order=True)
class _Part:
    """A part of the ball: its proved bound, a running number, and the boxes of what hinges read (batch 1)."""

    bound: float
    number: int
    boxes: Mapping[str, Box] = field(compare=False)


def hinge_sources(network: Network) -> list[str]:
    """Return the nodes whose values hinges read, in order, each once."""
    return list(dict.fromkeys(node.inputs[0] for node in network.nodes if isinstance(node.op, HINGES)))


def split_refusal(network: Network) -> Node | None:
    """Return the first node that is neither affine nor a hinge, which splitting signs does not make exact."""
    return next((node for node in network.nodes if not (node.op.linear or isinstance(node.op, HINGES))), None)


class SplitSearch:
    """The search over one ball (batch 1, on the processor) for rows of the output that may become <= 0."""

    def __init__(self, network: Network, region: BallRegion, attack: Attack, budget: Budget, most_parts: int) -> None:
        self.region, self.attack, self.budget, self.most_parts = region, attack, budget, most_parts
        root = LinearBounds(network, region)
        self.network = root.network
        self.sources = hinge_sources(self.network)
        self.root = {name: root.boxes[name] for name in self.sources}
        self.program = MarginProgram(relax(self.network, root.boxes))
        self.open_units = sum(int(_open(box).sum()) for box in self.root.values())
        self._bounds = root
        self._parts = self._programs = 0

    def least(self, rows: Tensor) -> Tensor:
        """Return the linear bounds `(rows,)` of rows `(rows, outputs)` on the whole ball."""
        return self._bounds.minimise(rows.unsqueeze(0)).bound[0]

    def decide(self, row: np.ndarray) -> SplitAnswer:
        """Return whether a row `(outputs,)` of the output is above zero on the whole ball."""
        self._parts = self._programs = 0
        self._row = row
        numbers = iter(range(1 << 62))
        queue = [_Part(-math.inf, next(numbers), self.root)]
        undecided = 0
        while queue:
            stopped = self._stopped()
            if stopped:
                return self._answer(False, False, f"{stopped}; {len(queue) + undecided} parts are open")
            chosen = [heapq.heappop(queue) for _ in range(min(BATCH, len(queue)))]
            bounds, least, points = self._bound(chosen)
            if self.attack(points):
                return self._answer(False, True, "")
            for number in range(len(chosen)):
                if bool(bounds.empty[number]) or float(least[number]) > 0:
                    continue
                if self._stopped() == TIME:
                    heapq.heappush(queue, chosen[number])
                    continue
                boxes = {name: box[number : number + 1] for name, box in bounds.boxes.items()}
                found = self._solve(boxes)
                if found.bound > 0:
                    continue
                if found.point is not None and self.attack(self._point(found)):
                    return self._answer(False, True, "")
                cut = self._cut(boxes, found)
                if cut is None:
                    undecided += 1
                    continue
                bound = max(found.bound, float(least[number]), chosen[number].bound)
                for half in _halves({name: boxes[name] for name in self.sources}, *cut):
                    heapq.heappush(queue, _Part(bound, next(numbers), half))
        if undecided:
            return self._answer(False, False, f"{undecided} parts with all signs known are within rounding of a tie")
        return self._answer(True, False, "")

    def _stopped(self) -> str:
        """Return why no further part may be looked at, or nothing."""
        if self.budget.exhausted:
            return TIME
        return f"{self.most_parts} parts of the region" if self._parts >= self.most_parts else ""

    def _answer(self, proved: bool, found: bool, reason: str) -> SplitAnswer:
        return SplitAnswer(proved, found, reason, self._parts, self._programs, self.open_units)

    def _bound(self, parts: list[_Part]) -> tuple[LinearBounds, Tensor, Tensor]:
        """Return the linear bounds of parts, the row's least values `(parts,)`, and where they are attained."""
        count = len(parts)
        self._parts += count
        boxes = {
            name: Box.unchecked(
                torch.cat([part.boxes[name].lower for part in parts]),
                torch.cat([part.boxes[name].upper for part in parts]),
            )
            for name in self.sources
        }
        region = self.region[torch.zeros(count, dtype=torch.int64)]
        bounds = LinearBounds(self.network, region, boxes=boxes, parts=True)
        rows = torch.from_numpy(self._row).expand(count, 1, -1).clone()
        minimum = bounds.minimise(rows, with_points=True)
        points = minimum.points
        if points is None:
            points = region.centre.unsqueeze(1)
        return bounds, minimum.bound[:, 0], points[:, 0]

    def _solve(self, boxes: Mapping[str, Box]) -> LpBound:
        self._programs += 1
        self.program.narrow(boxes)
        if self.program.relaxed.is_empty:
            return LpBound(math.inf)
        return self.program.minimise(self._row, self.budget.remaining)

    def _point(self, found: LpBound) -> Tensor:
        return torch.from_numpy(found.point).reshape(1, *self.network.input_shape)

    def _cut(self, boxes: Mapping[str, Box], found: LpBound) -> tuple[str, int] | None:
        """Return the (node, unit) to split next, or None if every sign is known.

        The line above a unit that costs the bound most: its height at zero times its multiplier in the program, which
        is the backward coefficient (Bunel et al. 2020). Where no line has a multiplier the widest gap serves.
        """
        best: tuple[float, float, str, int] | None = None
        relaxed = self.program.relaxed
        for node in self.network.nodes:
            if not isinstance(node.op, HINGES):
                continue
            source = node.inputs[0]
            units = torch.nonzero(_open(boxes[source]).flatten()).squeeze(1).numpy()
            if not len(units):
                continue
            weights = np.zeros(len(_open(boxes[source]).flatten()))
            lines = relaxed.relaxations[node.name].lines
            heights = np.zeros_like(weights)
            if lines is not None:
                rows = relaxed.starts[node.name] + lines[0]
                heights[lines[1]] = -relaxed.row_lower[rows]
                if found.row_dual is not None:
                    weights[lines[1]] = np.abs(found.row_dual[rows])
            scores = (weights * heights)[units]
            place = int(np.lexsort((heights[units], scores))[-1])
            candidate = (float(scores[place]), float(heights[units][place]), source, int(units[place]))
            if best is None or candidate[:2] > best[:2]:
                best = candidate
        return None if best is None else (best[2], best[3])


def _open(box: Box) -> Tensor:
    return (box.lower < 0) & (box.upper > 0)


def _halves(boxes: Mapping[str, Box], name: str, unit: int) -> tuple[dict[str, Box], dict[str, Box]]:
    """Return the boxes of both halves: the unit's value at most zero, and at least zero."""
    box = boxes[name]
    lower, upper = (end.clone(memory_format=torch.contiguous_format) for end in (box.lower, box.upper))
    upper.view(-1)[unit] = 0.0
    lower.view(-1)[unit] = 0.0
    return {**boxes, name: Box.unchecked(box.lower, upper)}, {**boxes, name: Box.unchecked(lower, box.upper)}
