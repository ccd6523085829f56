"""Boxes of a network's values and bounds of rows of them, in integers: the arithmetic of `verifier_check`.

It follows docs/certificate-format.md; the standard library alone. Values and coefficients are integers in units of
2^-bits, bounds in units of 2^-2bits. Where a number is no whole one of these units it is replaced by its floor, and the
bound pays for what is cut off: ends of boxes move outward, bounds down, and what a shortened coefficient leaves of a
value is bounded by the box of that value. So there are no rounding errors that somebody would have to estimate.
"""

from __future__ import annotations

import json
import math
import operator
import re
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

from verifier_check_curves import curve_lines, curve_value
from verifier_check_distances import Unit, units_of
from verifier_check_network import INPUT, Curve, Greatest, Hinge, Linear, Network, Refused, Undecided, made_step

Ends = tuple[list[int], list[int]]
# By node, by place: ends that replace those of the boxes in one part of a ball.
Cuts = dict[str, dict[int, tuple[int, int]]]


# By how little a box has one sign only: its nearer end over the other one is at most 2^-JUST.
JUST = 30


def only_just(low: int, high: int) -> bool:
    """Return whether a box has one sign, and only just so: rounded outward it may have both."""
    return 0 <= low <= high >> JUST or 0 <= -high <= -low >> JUST


class Boxes:
    """Ends of the values of nodes, in units of 2^-bits, and the lines around bends and curves that follow from them."""

    def __init__(self, ends: dict[str, Ends], signs: dict[int, int]) -> None:
        self.ends, self.signs, self.lines, self.is_empty = ends, signs, dict[tuple[Any, int], Any](), False

    def under(self, signs: dict[int, int], sources: dict[int, tuple[str, int]]) -> Boxes:
        """Return the boxes cut to where units have signs, beside those that they had."""
        made = Boxes({name: (low[:], high[:]) for name, (low, high) in self.ends.items()}, signs)
        made.is_empty = self.is_empty
        for unit, sign in signs.items():
            name, i = sources[unit]
            low, high = made.ends[name]
            if sign > 0:
                low[i] = max(low[i], 0)
            else:
                high[i] = min(high[i], 0)
            made.is_empty |= low[i] > high[i]
        return made


class Distances:
    """A layer of distances, of which no more than its range is used."""

    def __init__(self, source: str, units: list[Unit]) -> None:
        self.source, self.units = source, units


class Ball:
    """The points within a radius of a centre in the 2- or the 1-norm; all in units of 2^-bits, rounded outward.

    There c x is at least c centre - radius times the dual norm of c.
    """

    def __init__(self, norm: str, low: list[int], high: list[int], radius: int) -> None:
        self.norm, self.low, self.high, self.radius = norm, low, high, radius

    def least(self, slopes: list[int]) -> int:
        """Return a lower bound of a function with slopes in units of 2^-bits, in units of 2^-2bits."""
        length = max(map(abs, slopes), default=0) if self.norm == "1" else math.isqrt(sum(s * s for s in slopes)) + 1
        at_centre = sum(min(s * a, s * b) for s, a, b in zip(slopes, self.low, self.high, strict=True))
        return at_centre - self.radius * length

    def misses(self, low: list[int], high: list[int]) -> bool:
        """Return whether a box lies outside."""
        gaps = [max(a - c, d - b, 0) for a, b, c, d in zip(low, high, self.high, self.low, strict=True)]
        return sum(gaps) > self.radius if self.norm == "1" else sum(gap * gap for gap in gaps) > self.radius**2


class Program:
    """A network on a box of inputs: the boxes of its nodes, and bounds of rows of a node's value.

    ball: that the inputs lie in beside their box, if any.

    opens: whether units whose box has one sign only just are open, too: they are bounded, and their hinges take the
    slopes that are stated for them. Any slope holds on any box.
    """

    def __init__(self, network: Network, low: list[int], high: list[int], bits: int, opens: bool = False) -> None:
        self.network, self.bits, self.opens, self.units = network, bits, opens, 0
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
            node = self.network.nodes[len(self.steps)]
            step: Any = None
            if node.kind in ("mwd", "mwd-conv2d"):
                given, shape = (self.network.shapes[name] for name in (node.inputs[0], node.name))
                step = Distances(node.inputs[0], units_of(node, given, shape, self.bits))
            step = step or made_step(node, self.network, self.units)
            self.steps.append(step)
            self.boxes.ends[node.name] = self.forward(step, self.boxes.ends)
            if isinstance(step, Hinge):
                count = len(self.boxes.ends[node.name][0])
                self.sources |= {self.units + i: (step.source, i) for i in range(count)}
                self.units += count
            if node.name in self.read_by_hinges:
                return node.name
        return None

    def forward(self, step: Any, ends: dict[str, Ends]) -> Ends:
        """Return the box of a node's value over the boxes of its inputs."""
        if isinstance(step, Greatest):
            low, high = ends[step.source]
            return [max(low[i] for i in w) for w in step.windows], [max(high[i] for i in w) for w in step.windows]
        if isinstance(step, Distances):
            found = [unit.outputs(*unit.distances(*ends[step.source])) for unit in step.units]
            return [low for low, _ in found], [high for _, high in found]
        if isinstance(step, Curve):
            values = [[curve_value(step.kind, x, self.bits) for x in side] for side in ends[step.source]]
            return [low for low, _ in values[0]], [high for _, high in values[1]]
        if isinstance(step, Hinge):
            (top, shift), (low, high) = step.left, ends[step.source]
            at_low = [v if v >= 0 else top * v >> shift for v in low]
            at_high = [v if v >= 0 else -(-top * v >> shift) for v in high]
            if top >= 0:
                return at_low, at_high
            # It falls left of zero: rounded down at the right end, up at the left one.
            falls = [v if v >= 0 else top * v >> shift for v in high]
            climbs = [v if v >= 0 else -(-top * v >> shift) for v in low]
            least = [0 if a <= 0 <= b else min(x, y) for a, b, x, y in zip(low, high, at_low, falls, strict=True)]
            return least, [max(x, y) for x, y in zip(climbs, at_high, strict=True)]
        count = len(step.parts[0][1])
        lows = [value << self.bits for value in step.bias] if step.bias else [0] * count
        highs = lows[:]
        for source, rows in step.parts:
            low, high = ends[source]
            for j, (places, weights) in enumerate(rows):
                at = range(len(low)) if places is None else places
                lows[j] += sum(w * (low[i] if w > 0 else high[i]) for i, w in zip(at, weights, strict=True))
                highs[j] += sum(w * (high[i] if w > 0 else low[i]) for i, w in zip(at, weights, strict=True))
        divisors = step.divisors or [1] * count
        lows = [v // (d << step.scale) for v, d in zip(lows, divisors, strict=True)]
        highs = [-(-v // (d << step.scale)) for v, d in zip(highs, divisors, strict=True)]
        if step.means:
            errors = self.errors(step, *ends[step.parts[0][0]])
            lows, highs = (list(map(sum, zip(a, b, strict=True))) for a, b in zip((lows, highs), errors, strict=True))
        return lows, highs

    def errors(self, step: Any, low: list[int], high: list[int]) -> Ends:
        """Return between what the error of a batch norm lies, from the box of its input."""
        half = step.scale // 2
        away = [(a << half, b << half, m << self.bits) for a, b, m in zip(low, high, step.means, strict=True)]
        return (
            [min(0, a - m) >> (2 * half) for a, _, m in away],
            [-(-max(0, b - m) >> (2 * half)) for _, b, m in away],
        )

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
            lows, highs = self.errors(step, *boxes.ends[step.parts[0][0]])
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


# -------------------------------------------------------------------------------------------------- parts of a ball

# Rows (coefficients, offset) of which all of a group must be at most their offsets for a point to be unsafe; integers,
# each row times some power of two.
Group = list[tuple[dict[int, int], int]]
WEIGHT_STEPS, ROUNDS = 12, 2


class Part:
    """A part of the ball: ends of inputs, what is known of units, which groups may be met, its node of the tree."""

    def __init__(self, inputs: Ends, known: dict[str, Ends], is_open: list[bool], divided: bool, node: int) -> None:
        self.inputs, self.known, self.is_open, self.divided, self.node = inputs, known, is_open, divided, node

    def half(self, name: str, i: int, end: int, value: int, node: int) -> Part:
        """Return the half where an end (0 the least, 1 the greatest) of a value is moved to where it is split."""
        both = self.inputs if name == INPUT else self.known[name]
        moved = (both[0][:], both[1][:])
        moved[end][i] = max(moved[0][i], value) if end == 0 else min(moved[1][i], value)
        inputs, known = (moved, self.known) if name == INPUT else (self.inputs, self.known | {name: moved})
        return Part(inputs, known, self.is_open, self.divided or name != INPUT, node)


class Search:
    """What linear functions below rows say of parts of a ball."""

    def __init__(self, program: Program, groups: list[Group]) -> None:
        self.program, self.groups, self.network = program, groups, program.network
        while program.advance() is not None:
            pass
        curved = ("max-pool2d", "sigmoid", "tanh")
        bent = ("relu", "leaky-relu", "abs", *curved, "mwd", "mwd-conv2d")
        nodes = self.network.nodes
        readers = {
            node.name: [other for other in nodes if node.name in other.inputs and other.kind in bent] for node in nodes
        }
        # The values whose boxes are kept, each with the kinds of what reads it: of hinges units of both signs are open,
        # of pools and curves all that are no points, of distances none.
        self.kept = {
            node.name: {other.kind for other in readers[node.name]}
            for node in nodes if node.kind not in bent and readers[node.name]
        }  # fmt: skip
        self.curved, self.hinges = set(curved), set(bent[:3])

    def step(self, part: Part, tighten: bool) -> Part | None:
        """Return what is left of a part; None where nothing is."""
        if any(a > b for ends in (part.inputs, *part.known.values()) for a, b in zip(*ends, strict=True)):
            return None
        if self.program.ball is not None and self.program.ball.misses(*part.inputs):
            return None
        boxes = self._boxes(part, tighten)
        if boxes is None:
            if part.divided or (self.program.ball is not None and part.node > 0):
                return None
            raise Refused("bounds of the same units contradict each other: please report this with the network")
        is_open, left = list(part.is_open), list[Ends]()
        for number, group in enumerate(self.groups):
            if is_open[number]:
                ends = self._left(group, boxes)
                is_open[number] = ends is not None
                left += [] if ends is None else [ends]
        if not left:
            return None
        inputs = (
            [min(c) for c in zip(*(low for low, _ in left), strict=True)],
            [max(c) for c in zip(*(high for _, high in left), strict=True)],
        )
        return Part(inputs, {name: boxes.ends[name] for name in self.kept}, is_open, part.divided, part.node)

    def _boxes(self, part: Part, tighten: bool) -> Boxes | None:
        """Return the boxes of all nodes on a part; None where ends cross, so that nothing lies there."""
        program, boxes = self.program, Boxes({INPUT: part.inputs}, {})
        for name, step in zip(program.names, program.steps, strict=True):
            low, high = program.forward(step, boxes.ends)
            if name in part.known:
                low, high = (
                    list(map(f, a, b)) for f, a, b in zip((max, min), (low, high), part.known[name], strict=True)
                )
            boxes.ends[name] = low, high
            if name not in self.kept:
                continue
            if any(a > b for a, b in zip(low, high, strict=True)):
                return None
            ends, kinds = enumerate(zip(low, high, strict=True)), self.kept[name]
            all_open, some = bool(kinds & self.curved), bool(kinds & self.hinges)
            is_open = [i for i, (a, b) in ends if (some and a < 0 < b) or (all_open and a < b)]
            if tighten and is_open:
                program.tighten(name, is_open, boxes, None, None)
                if boxes.is_empty:
                    return None
        return boxes

    def _left(self, group: Group, boxes: Boxes) -> Ends | None:
        """Return the ends of the inputs around the points where all rows of a group may be met; None where none is."""
        bits, low, high = self.program.bits, *boxes.ends[INPUT]
        lines = list[tuple[list[int], int]]()
        for coefficients, offset in group:
            row = {j: c << bits for j, c in coefficients.items()}
            found: list[int] = []
            slopes, constant = self.program.below(self.program.names[-1], row, boxes, {}, None, {}, on_the_way=found)
            if any(value > offset << 2 * bits for value in found):
                return None
            lines.append((slopes, constant - (offset << 2 * bits)))
        ball = self.program.ball
        if ball is not None and any(ball.least(slopes) + constant > 0 for slopes, constant in lines):
            return None
        for slopes, constant in lines * ROUNDS:
            # slopes x + constant <= 0 there: each coordinate goes as far as the others allow at their best.
            ends = [min(s * a, s * b) for s, a, b in zip(slopes, low, high, strict=True)]
            room = -(sum(ends) + constant)
            low, high = low[:], high[:]
            for i, (s, own) in enumerate(zip(slopes, ends, strict=True)):
                if s > 0:
                    high[i] = min(high[i], -(-(room + own) // s))
                elif s < 0:
                    low[i] = max(low[i], (room + own) // s)
            if any(a > b for a, b in zip(low, high, strict=True)) or room < 0:
                return None
        return None if len(group) > 1 and self._combined(lines, *boxes.ends[INPUT]) else (low, high)

    def _combined(self, lines: list[tuple[list[int], int]], low: list[int], high: list[int]) -> bool:
        """Return whether a combination of functions is positive all over a box; its weights are found in floats."""
        unit = 1 << 2 * self.program.bits
        weights = [1.0 / len(lines)] * len(lines)
        scale = (
            max(sum(abs(s) * (b - a) for s, a, b in zip(slopes, low, high, strict=True)) for slopes, _ in lines) / unit
        )
        for step in range(WEIGHT_STEPS):
            shares = [int(weight * (1 << 40)) for weight in weights]
            total = [
                sum(map(operator.mul, shares, column)) for column in zip(*(slopes for slopes, _ in lines), strict=True)
            ]
            corner = [a if t > 0 else b for t, a, b in zip(total, low, high, strict=True)]
            if sum(map(operator.mul, shares, (c for _, c in lines))) + sum(map(operator.mul, total, corner)) > 0:
                return True
            values = [(sum(map(operator.mul, slopes, corner)) + constant) / unit for slopes, constant in lines]
            rate = 4.0 / max(scale, 1e-300) / (1.0 + step) ** 0.5
            weights = [
                w * math.exp(max((v - max(values)) * rate, -700.0)) for w, v in zip(weights, values, strict=True)
            ]
            weights = [weight / sum(weights) for weight in weights]
        return False


# --------------------------------------------------------------------------------------------------- what is unsafe


def class_count(network: Network, winner: int) -> int:
    """Return how many classes there are; Refused unless there are two or more, of which the winner is one.

    A single number has no rivals, so that anything would prove that it wins: its classes are those of `scores`.
    """
    shape = network.shapes[network.nodes[-1].name]
    if len(shape) != 1 or shape[0] < 2 or not 0 <= winner < shape[0]:
        raise Refused(f"class {winner} is none of two or more, the output is of shape {shape}")
    return shape[0]


def class_groups(network: Network, winner: int) -> list[Group]:
    """Return one row for each rival: that the winner is not above it."""
    return [[({winner: 1, rival: -1}, 0)] for rival in range(class_count(network, winner)) if rival != winner]


def read_property(content: bytes) -> tuple[dict[int, list[Fraction]] | None, list[Group]]:
    """Return (the box of the inputs, None where it is not said; the rows of the polyhedra, which are unsafe).

    content: VNN-LIB text over X_i and Y_i whose comparisons are of two variables, or of one and a number; or JSON
    {"unsafe": [{"coefficients": [[...]], "offsets": [...]}]}.
    """
    if content.lstrip()[:1] != b"{":
        return _vnnlib(content.decode("utf-8"))
    polyhedra = json.loads(content)["unsafe"]
    rows = [list(zip(each["coefficients"], each["offsets"], strict=True)) for each in polyhedra]
    return None, [[_whole_row(dict(enumerate(map(Fraction, c))), Fraction(d)) for c, d in each] for each in rows]


def _whole_row(row: dict[int, Fraction], offset: Fraction) -> tuple[dict[int, int], int]:
    """Return a row of rationals times a whole number that makes all of them whole."""
    common = math.lcm(offset.denominator, *(value.denominator for value in row.values()))
    return {j: int(value * common) for j, value in row.items() if value}, int(offset * common)


def _vnnlib(text: str) -> tuple[dict[int, list[Fraction]], list[Group]]:
    """Return the one box of VNN-LIB text, and its polyhedra; strict comparisons are closed."""
    stack: list[list[Any]] = [[]]
    for token in re.findall(r"[()]|[^\s()]+", re.sub(r";.*", "", text)):
        if token == "(":
            stack.append([])
        elif token == ")":
            last = stack.pop()
            stack[-1].append(last)
        else:
            stack[-1].append(token)
    (statements,) = stack
    cases: list[list[Any]] = [[]]
    for statement in statements:
        if statement[0] == "assert":
            cases = [one + other for one in cases for other in _cases(statement[1])]
        elif statement[0] != "declare-const":
            raise Undecided(f"VNN-LIB: {statement[0]!r} is not supported")
    boxes, groups = list[dict[int, list[Fraction]]](), list[Group]()
    for case in cases:
        box: dict[int, list[Any]] = {}
        group: Group = []
        for relation, a, b in case:
            (row, constant), (other, taken) = _side(a), _side(b)
            inputs = [name for name in (*row, *other) if name[0] == "X"]
            if relation in (">=", ">"):
                (row, constant), (other, taken) = (other, taken), (row, constant)
            elif relation not in ("<=", "<"):
                raise Undecided(f"VNN-LIB: {relation!r} is not supported")
            if not inputs:
                names = {int(name[2:]): Fraction(0) for name in (*row, *other)}
                for name, sign in (*((n, 1) for n in row), *((n, -1) for n in other)):
                    names[int(name[2:])] += sign
                group.append(_whole_row(names, taken - constant))
            elif len(row) + len(other) > 1:
                raise Undecided("VNN-LIB: a comparison of an input with something that is no number is not supported")
            else:
                ends = box.setdefault(int(inputs[0][2:]), [None, None])
                end, value = (1, taken) if row else (0, constant)
                ends[end] = value if ends[end] is None else (min if end else max)(ends[end], value)
        boxes.append(box)
        groups.append(group)
    if any(box != boxes[0] for box in boxes) or any(None in ends for ends in boxes[0].values()):
        raise Undecided("VNN-LIB: several boxes, or one without an end, are not supported")
    return boxes[0], groups


def _cases(formula: Any) -> list[list[Any]]:
    """Return a formula as cases, in each of which several comparisons hold together."""
    if formula[0] == "or":
        return [case for part in formula[1:] for case in _cases(part)]
    if formula[0] == "and":
        made: list[list[Any]] = [[]]
        for part in formula[1:]:
            made = [one + other for one in made for other in _cases(part)]
        return made
    if len(formula) != 3:
        raise Undecided(f"VNN-LIB: {formula[0]!r} is not supported")
    return [[formula]]


def _side(term: Any) -> tuple[tuple[str, ...], Fraction]:
    """Return (the variable, or nothing; the number) of a side of a comparison."""
    if not isinstance(term, str):
        raise Undecided(f"VNN-LIB: {term!r:.60} is not supported")
    return ((term,), Fraction(0)) if re.fullmatch(r"[XY]_\d+", term) else ((), Fraction(term))
