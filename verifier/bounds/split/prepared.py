"""A ball made ready for the search over signs: its boxes are proved, and ascent runs over what these leave open.

Ascent works in units in which all values are of size 1: float32 ends at 2^127, its constants mean these. Only units
whose sign the boxes leave open count in it: the others are part of the affine maps between them. What ascent gives is a
proposal; what the numbers prove is evaluated in float64 (`verifier.certificates.split_program`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from encoders.box import Box
from encoders.network import INPUT, Network
from encoders.passes import expand_max_pools
from encoders.region import BallRegion
from encoders.scaling import exponents
from verifier.bounds.split.dual_ascent import DualAscent, Lines
from verifier.bounds.split.form import HingeNetwork
from verifier.bounds.split.operators import affordable, chosen_form, open_form
from verifier.bounds.split.stages import StagedNetwork, StageUnits, up_to_hinge
from verifier.bounds.split.unit_tree_search import grown_trees
from verifier.budget import Budget
from verifier.certificates.certificate import SLACK, STEPS, BoxSlopes
from verifier.certificates.sign_leaves import leaf_bounds
from verifier.certificates.split_program import SplitProgram
from verifier.certificates.unit_trees import UnitTrees, tightened_by_trees


@dataclass(frozen=True, eq=False)
class SplitQuestion:
    """Whether a class is above every other on a ball (batch 1, inf-norm, on the processor).

    network: without max pools; digest: of the network before. stages: matrices or ops, float64; units: of their values.
    """

    network: Network
    digest: str
    region: BallRegion
    winner: int
    stages: HingeNetwork
    units: StageUnits

    @cached_property
    def rivals(self) -> tuple[int, ...]:
        """The other classes, one for each row."""
        return tuple(k for k in range(self.network.output_shape[0]) if k != self.winner)

    @cached_property
    def rows(self) -> np.ndarray:
        """Rows `(rivals, outputs)` of the output, the winner less each rival."""
        rows = -np.eye(self.network.output_shape[0])[list(self.rivals)]
        rows[:, self.winner] = 1.0
        return rows

    @property
    def input_ends(self) -> tuple[Tensor, Tensor]:
        """The least and the greatest input `(inputs,)` of the ball, in their units."""
        ball, unit = self.region.enclosure(), torch.tensor(-self.units.stages[0])
        return torch.ldexp(ball.lower.flatten(), unit), torch.ldexp(ball.upper.flatten(), unit)


def split_question(network: Network, region: BallRegion, winner: int) -> SplitQuestion:
    """Return the question about a network of affine ops, hinges and max pools."""
    plain = expand_max_pools(network)
    ball = region.enclosure()
    stages, units = chosen_form(plain, ball.lower.flatten(), ball.upper.flatten())
    return SplitQuestion(plain, network.digest, region, winner, stages, units)


@dataclass(frozen=True, eq=False)
class PreparedBall:
    """A question with what every subproblem of its ball shares.

    program: holds all nodes, their boxes proved by the slopes in `boxes` and by `unit_trees`, and after them those of
    subtrees. reach: the greatest |row| `(rivals,)` of the boxes; output: the exponent of the margins' unit. all_stages:
    float32, in units; ascent: over the open units alone, whose places among all units are `open_units` and whose lines
    on all boxes of the program are `lines`. known_slopes: of all hinges on the whole ball, those of open units being of
    their line above.
    rows: of the question, float32.
    """

    question: SplitQuestion
    program: SplitProgram
    boxes: tuple[BoxSlopes, ...]
    unit_trees: tuple[UnitTrees, ...]
    reach: np.ndarray
    output: int
    all_stages: HingeNetwork
    ascent: DualAscent
    open_units: Tensor
    lines: Lines
    known_slopes: Tensor
    rows: Tensor

    def split_lines(self, signs: Tensor, boxes: Tensor | None = None) -> Lines:
        """Return the lines of the open units on subproblems of given signs `(batch, open units)`.

        boxes: `(batch,)`, which boxes each takes; None for those of the ball.
        """
        own = self.lines[:1] if boxes is None or len(self.lines.lower) == 1 else self.lines[boxes]
        return own.split(signs, self.ascent.left)

    def lines_on(self, program: SplitProgram) -> Lines:
        """Return the lines of the open units on all boxes of a program."""
        left = torch.zeros(program.units)
        for hinge in program.hinges:
            left[hinge.units] = hinge.left
        return _lines(self.question, program, left).at(self.open_units)

    def on_all_units(self, values: Tensor) -> Tensor:
        """Return values `(batch, open units)` placed among all units, the others zero."""
        placed = torch.zeros(len(values), self.program.units, dtype=values.dtype)
        placed[:, self.open_units] = values
        return placed

    def exact_multipliers(self, multipliers: Tensor) -> np.ndarray:
        """Return multipliers `(batch, open units)` in the network's own units, in float32 where that holds them."""
        powers = self.output - self.question.units.units[self.open_units].numpy()
        exact = np.ldexp(multipliers.numpy().astype(np.float64), powers)
        with np.errstate(over="ignore", under="ignore"):
            narrow = exact.astype(np.float32)
        in_own_units: np.ndarray = narrow if np.array_equal(narrow, exact) else exact
        return in_own_units

    def proved(
        self,
        rows: np.ndarray,
        signs: Tensor,
        slopes: np.ndarray,
        multipliers: np.ndarray,
        boxes: Tensor | None = None,
    ) -> np.ndarray:
        """Return a mask of the subproblems that numbers `(batch, open units)` prove, in the network's own units.

        rows: `(batch,)`, which row each is about; signs: `(batch, open units)`.
        boxes: `(batch,)`, which each takes, None for those of the ball.
        """
        placed, open_units = self.on_all_units(signs).numpy(), self.open_units.numpy()
        of = None if boxes is None or self.program.signs is None else boxes.numpy()
        bounds = leaf_bounds(self.program, self.question.rows[rows], placed, open_units, slopes, multipliers, of)
        is_proved: np.ndarray = bounds > SLACK * self.reach[rows]
        return is_proved


def prepare(
    question: SplitQuestion, steps: int, budget: Budget, before: PreparedBall | None = None, splits: int = 0
) -> PreparedBall:
    """Return the ball with boxes of what hinges read proved, by slopes from so many steps of ascent.

    budget: for all that is asked; ascent for boxes takes a part of it. before: prepared without any ascent. splits: of
    a tree for each end of a unit's box, where the network is held as matrices.
    """
    unit_stages = question.stages.in_units(question.units, 0)
    whole = DualAscent(unit_stages.to(torch.float32), *question.input_ends)
    program = SplitProgram(question.network, question.region.enclosure())
    known = {} if before is None else before.program.boxes
    boxes, trees = _proved_boxes(question, program, whole, steps, budget, known, splits)
    reach = np.abs(question.rows) @ program.reach(program.network.output.name)
    output = int(exponents(reach.max(keepdims=True))[0])
    unit_stages = question.stages.in_units(question.units, output)
    lines = _lines(question, program, whole.left)
    is_open = lines.span[0] > 0
    open_units = torch.nonzero(is_open).squeeze(1)
    stages = open_form(unit_stages, is_open, lines.slope[0]).to(torch.float32)
    ascent = DualAscent(stages, *question.input_ends)
    return PreparedBall(
        question, program, boxes, trees, reach, output, unit_stages.to(torch.float32), ascent, open_units,
        lines.at(open_units), lines.slope[0], torch.from_numpy(question.rows).to(torch.float32),
    )  # fmt: skip


def first_slopes(lines: Lines) -> Tensor:
    """Return the slopes `(batch, units)` from which ascent starts: whichever line below leaves the smaller area."""
    return (lines.slope > 0.5).to(lines.slope.dtype)


def _proved_boxes(
    question: SplitQuestion,
    program: SplitProgram,
    whole: DualAscent,
    steps: int,
    budget: Budget,
    before: Mapping[str, Box],
    splits: int,
) -> tuple[tuple[BoxSlopes, ...], tuple[UnitTrees, ...]]:
    """Take all nodes into the program, tighten the boxes of what hinges read, and return the numbers that prove them.

    Where ascent would take too long, or its slopes too many bytes, boxes keep the bounds that need no numbers. before:
    boxes that follow from these bounds alone.
    """
    boxes, trees = list[BoxSlopes](), list[UnitTrees]()
    while (name := program.advance()) is not None:
        if boxes or name not in before:
            program.tighten_open_units(name)
        else:
            program.boxes[name] = before[name]
        places = program.open_units(name)
        count = len(places) if steps and program.units else 0
        if not count or not affordable(whole.network, count, program.units, steps, budget.remaining):
            continue
        lines = _lines(question, program, whole.left)
        slopes = _box_slopes(whole, name, places, lines, steps)[:, : program.units]
        rounded = (slopes * STEPS).round().to(torch.uint8).numpy()
        boxes.append(BoxSlopes(name, places.astype(np.int32), rounded))
        program.tighten(name, places, rounded / STEPS)
        if splits and isinstance(question.stages, StagedNetwork):
            found = _unit_trees(question, program, name, steps, splits, budget)
            if found is not None:
                trees.append(found)
                tightened_by_trees(program, found)
    return tuple(boxes), tuple(trees)


def _unit_trees(
    question: SplitQuestion, program: SplitProgram, name: str, steps: int, splits: int, budget: Budget
) -> UnitTrees | None:
    """Return trees for the ends of the boxes of a node's open units; None where none has a split."""
    stages, places = question.stages, program.open_units(name)
    assert isinstance(stages, StagedNetwork)
    left = torch.cat([torch.full((stage.size,), stage.left) for stage in stages.hinges])
    lines = _lines(question, program, left)
    k = next(number for number, stage in enumerate(stages.hinges) if stage.source == name)
    start = sum(stage.size for stage in stages.hinges[:k])
    columns = torch.nonzero(lines.span[0, : program.units] > 0).squeeze(1)
    if not len(places) or not len(columns):
        return None
    is_open = lines.span[0] > 0
    is_open[start + torch.from_numpy(places)] = True
    network = up_to_hinge(stages.in_units(question.units, 0), k, is_open, lines.slope[0])
    ascent, own = DualAscent(network.to(torch.float32), *question.input_ends), lines.at(columns)
    rows = torch.cat([torch.eye(len(places)), -torch.eye(len(places))])
    slopes = first_slopes(own).expand(len(rows), -1)
    bounds, slopes, _ = ascent.ascend(ascent.network.output, rows, own, slopes, None, steps, torch.inf)
    grown = grown_trees(ascent, own, slopes, bounds, splits, budget)
    units = question.units.units
    powers = units[start + torch.from_numpy(places)][:, None] - units[columns]
    return grown.as_proved(name, places, columns.numpy(), powers.numpy())


def _box_slopes(whole: DualAscent, name: str, places: np.ndarray, lines: Lines, steps: int) -> Tensor:
    """Return slopes `(2 places, units)` for the bounds of some units of a node, then of their negatives."""
    stage = next(hinge for hinge in whole.network.hinges if hinge.source == name)
    units, each = torch.from_numpy(places), torch.arange(len(places))
    rows = torch.zeros(2 * len(units), stage.size)
    rows[each, units] = 1.0
    rows[each + len(units), units] = -1.0
    slopes = first_slopes(lines).expand(len(rows), -1)
    return whole.ascend(stage, rows, lines, slopes, None, steps, torch.inf)[1] if steps else slopes


def _lines(question: SplitQuestion, program: SplitProgram, left: Tensor) -> Lines:
    """Return the lines of all hinges that a program holds so far; those of the others are flat."""
    count = len(program.boxes[INPUT].lower)
    lower, upper = torch.zeros(count, len(left)), torch.zeros(count, len(left))
    for hinge in program.hinges:
        box = program.boxes[hinge.source]
        exponent = -question.units.units[hinge.units]
        lower[:, hinge.units] = torch.ldexp(box.lower.unsqueeze(-1).flatten(1), exponent).float()
        upper[:, hinge.units] = torch.ldexp(box.upper.unsqueeze(-1).flatten(1), exponent).float()
    return Lines.on(lower, upper, left)
