"""Boxes of a network's values and bounds of rows of them, in integers: the arithmetic of `verifier_check`.

It follows docs/certificate-format.md; the standard library alone. Values and coefficients are integers in units of
2^-bits, bounds in units of 2^-2bits. Where a number is no whole one of these units it is replaced by its floor, and the
bound pays for what is cut off: ends of boxes move outward, bounds down, and what a shortened coefficient leaves of a
value is bounded by the box of that value. So there are no rounding errors that somebody would have to estimate.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from verifier_check.boxes import Ball, Boxes, Cuts, Distances, only_just
from verifier_check.curves import curve_lines
from verifier_check.distances import units_of
from verifier_check.network import INPUT, Network
from verifier_check.ops import Curve, Greatest, Hinge, Linear, made_step
from verifier_check.ranges import batch_norm_errors, range_of
from verifier_check.time_limit import UNLIMITED, TimeLimit


class Program:
    """A network on a box of inputs: the boxes of its nodes, and bounds of rows of a node's value.

    ball: that the inputs lie in beside their box, if any.

    opens: whether units whose box has one sign only just are open, too: they are bounded, and their hinges take the
    slopes that are stated for them. Any slope holds on any box.
    """

    def __init__(self, network: Network, low: list[int], high: list[int], bits: int, opens: bool = False,
                 limit: TimeLimit = UNLIMITED) -> None:  # fmt: skip
        self.network, self.bits, self.opens, self.units, self.limit = network, bits, opens, 0, limit
        self.ball: Ball | None = None
        self.names = [node.name for node in network.nodes]
        self.steps: list[Any] = []
        self.boxes = Boxes({INPUT: (low, high)}, {})
        # By unit: the node that its hinge reads, and the place there.
        self.sources: dict[int, tuple[str, int]] = {}
        bent = ("relu", "leaky-relu", "abs")
        self.read_by_hinges = {node.inputs[0] for node in network.nodes if node.kind in bent}

    def advance(self) -> str | None:
        """Take in nodes up to the next one that a hinge reads, and return its name; None once all are in."""
        while len(self.steps) < len(self.names):
            self.limit.check()
            node = self.network.nodes[len(self.steps)]
            step: Any = None
            if node.kind in ("mwd", "mwd-conv2d"):
                given, shape = (self.network.shapes[name] for name in (node.inputs[0], node.name))
                step = Distances(node.inputs[0], units_of(node, given, shape, self.bits))
            step = step or made_step(node, self.network, self.units)
            self.steps.append(step)
            self.boxes.ends[node.name] = range_of(step, self.boxes.ends, self.bits)
            if isinstance(step, Hinge):
                count = len(self.boxes.ends[node.name][0])
                self.sources |= {self.units + i: (step.source, i) for i in range(count)}
                self.units += count
            if node.name in self.read_by_hinges:
                return node.name
        return None

    def below(
        self,
        start: str,
        row: dict[int, int],
        boxes: Boxes,
        cuts: Cuts,
        slopes: Any,
        multipliers: dict[str, Any],
        planes: Any = None,
        on_the_way: list[int] | None = None,
    ) -> tuple[list[int], int]:
        """Return (coefficients of the input, constant) of a function below a row of a node's value.

        slopes: by unit, in units of 2^-bits, 0 to 1; None for the side that is longer. multipliers: by node, by place.
        planes: by unit, functions of the input that lie above its hinge wherever the input lies in its box.
        on_the_way: gets lower bounds of the row on the boxes of single nodes.
        """
        own = [0] * len(boxes.ends[start][0])
        for i, value in row.items():
            own[i] = value
        pending, total = {start: own}, 0
        last = self.names.index(start) if start != INPUT else -1
        for number in range(last, -1, -1):
            name, step = self.names[number], self.steps[number]
            if name not in pending:
                continue
            self.limit.check()
            own = pending.pop(name)
            (low, high), cut = boxes.ends[name], cuts.get(name, {})
            for i, m in multipliers.get(name, {}).items():
                # m x is bounded by the box of x; the rest goes on.
                a, b = cut.get(i, (low[i], high[i]))
                total += min(m * a, m * b)
                own[i] -= m
            if isinstance(step, Linear):
                total += self._linear(step, own, low, boxes, pending)
            elif isinstance(step, Hinge):
                total += self._hinge(step, own, boxes, cuts.get(step.source, {}), slopes, pending, planes or {})
            elif isinstance(step, Distances):
                total += sum(c * (a if c > 0 else b) for c, a, b in zip(own, low, high, strict=True))
            elif isinstance(step, Curve):
                total += self._curve(step, own, boxes, pending)
            else:
                total += self._greatest(step, own, boxes, pending)
            if on_the_way is not None and len(pending) == 1:
                ((name, left),) = pending.items()
                ends = zip(left, *boxes.ends[name], strict=True)
                on_the_way.append(total + sum(c * (a if c > 0 else b) for c, a, b in ends))
        return pending.get(INPUT, [0] * len(boxes.ends[INPUT][0])), total

    def least(
        self,
        start: str,
        row: dict[int, int],
        boxes: Boxes,
        cuts: Cuts,
        slopes: Any,
        multipliers: Any,
        planes: Any = None,
    ) -> int:
        """Return a lower bound of a row of a node's value, in units of 2^-2bits; arguments as of `below`."""
        left, total = self.below(start, row, boxes, cuts, slopes, multipliers, planes)
        cut = cuts.get(INPUT, {})
        ends = [cut.get(i, both) for i, both in enumerate(zip(*boxes.ends[INPUT], strict=True))]
        least = sum(c * (a if c > 0 else b) for c, (a, b) in zip(left, ends, strict=True))
        return total + (least if self.ball is None else max(least, self.ball.least(left)))

    def _linear(self, step: Linear, own: list[int], low: list[int], boxes: Boxes, pending: Any) -> int:
        used = [(j, c) for j, c in enumerate(own) if c]
        total = constant = 0
        if step.divisors:
            total = sum(c % step.divisors[j] * low[j] for j, c in used)
            used = [(j, c // step.divisors[j]) for j, c in used]
        if step.bias:
            constant = (sum(c * step.bias[j] for j, c in used) << self.bits) >> step.scale
        if step.means:
            lows, highs = batch_norm_errors(step, *boxes.ends[step.parts[0][0]], self.bits)
            constant += sum(min(c * lows[j], c * highs[j]) for j, c in used)
        for source, rows in step.parts:
            found = [0] * len(boxes.ends[source][0])
            for j, c in used:
                places, weights = rows[j]
                if places is None:
                    found = [a + c * w for a, w in zip(found, weights, strict=True)]
                else:
                    for i, w in zip(places, weights, strict=True):
                        found[i] += c * w
            if step.scale:
                mask, lows = (1 << step.scale) - 1, boxes.ends[source][0]
                total += sum((v & mask) * a for v, a in zip(found, lows, strict=True) if v & mask) >> step.scale
                found = [v >> step.scale for v in found]
            _add(pending, source, found)
        return total + constant

    def _hinge(
        self, step: Hinge, own: list[int], boxes: Boxes, cut: Any, slopes: Any, pending: Any, planes: Any
    ) -> int:
        (lows, highs), (top, shift), bits = boxes.ends[step.source], step.left, self.bits
        found, total, mask = [0] * len(own), 0, (1 << shift) - 1
        for i, c in enumerate(own):
            if not c:
                continue
            low, high = cut.get(i, (lows[i], highs[i]))
            stated = self.opens and c > 0 and i not in cut and step.first + i in (slopes or ()) and only_just(low, high)
            if low >= 0 and not stated:
                found[i] = c
                continue
            if high <= 0 and not stated:
                right, left = 0, c
            elif c > 0:
                slope = (1 << bits if high > -low else 0) if slopes is None else slopes.get(step.first + i, 0)
                right = c * slope >> bits
                left = c - right
            elif step.first + i in planes:
                total += self._above(c, planes[step.first + i], boxes, pending)
                continue
            else:
                # A line above the bend: any slope, and what it misses at the ends.
                slope, offset = boxes.lines.get((step.source, step.first + i)) or self._line(step, i, boxes)
                found[i] = c * slope >> bits
                total += ((c * slope & (1 << bits) - 1) * low >> bits) + (c * offset >> (bits + shift))
                continue
            found[i] = right + (left * top >> shift)
            total += (left * top & mask) * low >> shift
        _add(pending, step.source, found)
        return total

    def _curve(self, step: Curve, own: list[int], boxes: Boxes, pending: Any) -> int:
        """Pass coefficients to what a curve reads, by lines below or above it; return what is constant of them."""
        (lows, highs), bits, mask = boxes.ends[step.source], self.bits, (1 << self.bits) - 1
        found, total = [0] * len(own), 0
        for i, c in enumerate(own):
            if c:
                # Never that of a hinge, whose name is a text.
                place = ((step.kind, step.source), i)
                if place not in boxes.lines:
                    boxes.lines[place] = curve_lines(step.kind, lows[i], highs[i], bits)
                slope, offset = boxes.lines[place][:2] if c > 0 else boxes.lines[place][2:]
                found[i] = c * slope >> bits
                total += ((c * slope & mask) * lows[i] + c * offset) >> bits
        _add(pending, step.source, found)
        return total

    def _above(self, c: int, plane: tuple[list[int], int], boxes: Boxes, pending: Any) -> int:
        """Pass c < 0 times a plane to the input; return what is constant of it."""
        slopes, offset = plane
        mask, low = (1 << self.bits) - 1, boxes.ends[INPUT][0]
        products = [c * slope for slope in slopes]
        _add(pending, INPUT, [value >> self.bits for value in products])
        cut = sum((value & mask) * a for value, a in zip(products, low, strict=True))
        return (cut + c * offset) >> self.bits

    def _line(self, step: Hinge, i: int, boxes: Boxes) -> tuple[int, int]:
        """Return (slope, offset), in units of 2^-bits and 2^-(2 bits + shift), of a line above a bend on its box."""
        (top, shift), low, high = step.left, boxes.ends[step.source][0][i], boxes.ends[step.source][1][i]
        slope = (((high << shift) - top * low) << self.bits) // ((high - low) << shift)
        at_low, at_high = (
            (top * low << self.bits) - (slope * low << shift),
            ((high << self.bits) - slope * high) << shift,
        )
        boxes.lines[step.source, step.first + i] = slope, max(at_low, at_high)
        return slope, max(at_low, at_high)

    def _greatest(self, step: Greatest, own: list[int], boxes: Boxes, pending: Any) -> int:
        (lows, highs), total = boxes.ends[step.source], 0
        found = [0] * len(lows)
        for j, c in enumerate(own):
            if c:
                best = max(step.windows[j], key=lambda i: lows[i])
                others = [highs[i] for i in step.windows[j] if i != best]
                if c > 0 or not others or lows[best] >= max(others):
                    found[best] += c
                else:
                    total += c * max(highs[best], *others)
        _add(pending, step.source, found)
        return total

    def tighten(self, name: str, places: Sequence[int], boxes: Boxes, slopes: Any, multipliers: Any) -> None:
        """Meet the box of a node with bounds of some of its units; slopes, multipliers: of the units, then negatives.

        Where ends cross nothing lies in the boxes.
        """
        low, high = (end[:] for end in boxes.ends[name])
        for k, i in enumerate(places):
            for row, sign in ((k, 1), (k + len(places), -1)):
                own, extra = (
                    (None if slopes is None else slopes[row]),
                    ({} if multipliers is None else multipliers[row]),
                )
                bound = self.least(name, {i: sign << self.bits}, boxes, {}, own, extra) >> self.bits
                if sign > 0:
                    low[i] = max(low[i], bound)
                else:
                    high[i] = min(high[i], -bound)
            boxes.is_empty |= low[i] > high[i]
        boxes.ends[name] = (low, high)
        boxes.lines.clear()


def _add(pending: dict[str, list[int]], name: str, found: list[int]) -> None:
    pending[name] = [a + b for a, b in zip(pending[name], found, strict=True)] if name in pending else found
