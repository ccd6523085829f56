"""Trees of inputs and units: in no leaf is anything unsafe."""

from __future__ import annotations

import math
import operator

from verifier_check.bounds import Program
from verifier_check.boxes import Ball, Boxes, Ends
from verifier_check.file import Certificate, whole_numbers
from verifier_check.integers import whole
from verifier_check.network import INPUT, Network
from verifier_check.properties import Group
from verifier_check.ranges import range_of
from verifier_check.refusals import Refused
from verifier_check.time_limit import UNLIMITED, TimeLimit
from verifier_check.trees import LEAF, second_halves

WEIGHT_STEPS, ROUNDS = 12, 2


def check_inputs(
    certificate: Certificate, network: Network, bits: int, groups: list[Group], limit: TimeLimit = UNLIMITED
) -> int:
    """Return how many leaves a tree over inputs and units has, in all of which every group is refuted."""
    sides, values, marks = (certificate.arrays[f"inputs.{name}"] for name in ("sides", "values", "tightened"))
    if values.kind != "<f8" or marks.kind != "|b1" or len({sides.shape, values.shape, marks.shape}) > 1:
        raise Refused("a tree has a side, a value of float64 and a mark for each node")
    tree = whole_numbers(sides, "sides")
    second = second_halves(tree)
    program = Program(network, *certificate.ball(network.input_shape, bits), bits, limit=limit)
    if certificate.norm != "inf":
        numbers = [whole([value]) for value in (*certificate.centre, certificate.radius)]
        low, high = (
            [(v[0] << bits) >> scale for v, scale in numbers],
            [-((-v[0] << bits) >> scale) for v, scale in numbers],
        )
        program.ball = Ball(certificate.norm, low[:-1], high[:-1], high[-1])
    search = Search(program, groups)
    coordinates = [(name, i) for name in (INPUT, *search.kept) for i in range(math.prod(network.shapes[name]))]
    if any(side != LEAF and not 0 <= side < len(coordinates) for side in tree):
        raise Refused(f"a split is of none of {len(coordinates)} inputs and units")
    waiting = [Part(search.program.boxes.ends[INPUT], {}, [True] * len(groups), False, 0)]
    while waiting:
        limit.check()
        part = waiting.pop()
        left = search.step(part, bool(marks.values[part.node]))
        if left is None:
            continue
        if tree[part.node] == LEAF:
            raise Refused(f"leaf {tree[: part.node].count(LEAF)}: what is unsafe there is not refuted")
        name, i = coordinates[tree[part.node]]
        (top,), scale = whole([values.values[part.node]])
        below, above = -((-top << bits) >> scale), (top << bits) >> scale
        waiting.append(left.half(name, i, 0, above, second[part.node]))
        waiting.append(left.half(name, i, 1, below, part.node + 1))
    return tree.count(LEAF)


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
            program.limit.check()
            low, high = range_of(step, boxes.ends, program.bits)
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
