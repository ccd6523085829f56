"""Boxes of what hinges read, proved on the whole ball, node by node, with the numbers that prove them.

Bounds that need no numbers come first, then ascended slopes, then slopes with planes above the first hinge
(`verifier.certificates.planes`), then trees of splits for each end (`verifier.certificates.unit_trees`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from encoders.box import Box
from encoders.network import INPUT
from verifier.bounds.split.device_ascent import ascent_on
from verifier.bounds.split.dual_ascent import DualAscent, Lines
from verifier.bounds.split.operators import affordable
from verifier.bounds.split.plane_lines import PlaneLines
from verifier.bounds.split.plane_search import first_units, planes_found
from verifier.bounds.split.question import SplitQuestion
from verifier.bounds.split.stages import StagedNetwork, up_to_hinge
from verifier.bounds.split.unit_tree_search import grown_trees
from verifier.budget import Budget
from verifier.certificates.certificate import STEPS, BoxSlopes
from verifier.certificates.planes import UnitPlanes, tightened_by_planes
from verifier.certificates.split_program import SplitProgram
from verifier.certificates.unit_trees import UnitTrees, tightened_by_trees

# Of the time that is left, what growing trees takes at most in a network held as its ops, all units alike.
TREES_SHARE = 0.35


@dataclass
class BoxNumbers:
    """What proves boxes of what hinges read, node by node."""

    slopes: list[BoxSlopes] = field(default_factory=list)
    planes: list[UnitPlanes] = field(default_factory=list)
    trees: list[UnitTrees] = field(default_factory=list)


def proved_boxes(
    question: SplitQuestion,
    program: SplitProgram,
    whole: DualAscent,
    steps: int,
    budget: Budget,
    before: Mapping[str, Box],
    splits: int,
    planes: bool,
) -> BoxNumbers:
    """Take all nodes into the program, tighten the boxes of what hinges read, and return the numbers that prove them.

    Where ascent would take too long, or its slopes too many bytes, boxes keep the bounds that need no numbers. before:
    boxes that follow from these bounds alone.
    """
    numbers, of_matrices = BoxNumbers(), isinstance(question.stages, StagedNetwork)
    open_before = sum(int(((box.lower < 0) & (box.upper > 0)).sum()) for box in before.values())
    seconds = math.inf if of_matrices else TREES_SHARE * budget.remaining / max(1, open_before)
    while (name := program.advance()) is not None:
        if numbers.slopes or numbers.trees or name not in before:
            program.tighten_open_units(name)
        else:
            program.boxes[name] = before[name]
        places, above = program.open_units(name), None
        if not len(places) or not steps or not program.units:
            continue
        # Trees over the open units alone, of many, hold what ascent gives, too.
        if of_matrices or not splits:
            if not affordable(whole.network, len(places), program.units, steps, budget.remaining):
                continue
            numbers.slopes.append(_tightened_by_slopes(question, program, whole, name, steps))
        if of_matrices and planes and not budget.exhausted:
            above = _unit_planes(question, program, name, steps)
            numbers.planes += [] if above is None else [above.kept]
        if splits and not budget.exhausted:
            share = Budget(seconds * len(places), watch=budget.watch)
            trees = _unit_trees(question, program, name, above, steps, splits, share)
            numbers.trees += [] if trees is None else [trees]
    return numbers


def _tightened_by_slopes(
    question: SplitQuestion, program: SplitProgram, whole: DualAscent, name: str, steps: int
) -> BoxSlopes:
    """Tighten the box of a node by ascended slopes of its open units, and return these."""
    places, lines = program.open_units(name), lines_of(question, program, whole.left)
    slopes = _box_slopes(whole, name, places, lines, steps)[:, : program.units]
    rounded = (slopes * STEPS).round().to(torch.uint8).numpy()
    program.tighten(name, places, rounded / STEPS)
    return BoxSlopes(name, places.astype(np.int32), rounded)


def first_slopes(lines: Lines) -> Tensor:
    """Return the slopes `(batch, units)` from which ascent starts: whichever line below leaves the smaller area."""
    return (lines.slope > 0.5).to(lines.slope.dtype)


def lines_of(question: SplitQuestion, program: SplitProgram, left: Tensor) -> Lines:
    """Return the lines of all hinges that a program holds so far; those of the others are flat."""
    count = len(program.boxes[INPUT].lower)
    lower, upper = torch.zeros(count, len(left)), torch.zeros(count, len(left))
    for hinge in program.hinges:
        box = program.boxes[hinge.source]
        exponent = -question.units.units[hinge.units]
        lower[:, hinge.units] = torch.ldexp(box.lower.unsqueeze(-1).flatten(1), exponent).float()
        upper[:, hinge.units] = torch.ldexp(box.upper.unsqueeze(-1).flatten(1), exponent).float()
    return Lines.on(lower, upper, left)


def _box_slopes(whole: DualAscent, name: str, places: np.ndarray, lines: Lines, steps: int) -> Tensor:
    """Return slopes `(2 places, units)` for the bounds of some units of a node, then of their negatives."""
    stage = next(hinge for hinge in whole.network.hinges if hinge.source == name)
    units, each = torch.from_numpy(places), torch.arange(len(places))
    rows = torch.zeros(2 * len(units), stage.size)
    rows[each, units] = 1.0
    rows[each + len(units), units] = -1.0
    slopes = first_slopes(lines).expand(len(rows), -1)
    return whole.ascend(stage, rows, lines, slopes, None, steps, torch.inf)[1] if steps else slopes


@dataclass(frozen=True, eq=False)
class _UnitAscent:
    """Ascent over what some units of a node read: the network of the open units before them, these as its output.

    places: `(n,)` in the node; first: the place of the node's first unit among all hinge units. columns: `(c,)`, the
    open units before, of which `lines` on the one box are.
    """

    ascent: DualAscent
    places: np.ndarray
    first: int
    columns: Tensor
    lines: Lines

    @property
    def rows(self) -> Tensor:
        """Both ends of all units, `(2 n, n)`: the lower ones first."""
        count = len(self.places)
        return torch.cat([torch.eye(count), -torch.eye(count)])


def _unit_ascent(question: SplitQuestion, program: SplitProgram, name: str) -> _UnitAscent | None:
    """Return the ascent over the open units of a node; None where none is, or none before them."""
    stages, places = question.stages, program.open_units(name)
    left = torch.cat([torch.full((stage.size,), stage.left) for stage in stages.hinges])
    lines = lines_of(question, program, left)
    k = next(number for number, stage in enumerate(stages.hinges) if stage.source == name)
    first = sum(stage.size for stage in stages.hinges[:k])
    columns = torch.nonzero(lines.span[0, : program.units] > 0).squeeze(1)
    if not len(places) or not len(columns):
        return None
    is_open = lines.span[0] > 0
    is_open[first + torch.from_numpy(places)] = True
    network = up_to_hinge(stages.in_units(question.units, 0), k, is_open, lines.slope[0])
    ascent = ascent_on(question.device, network.to(torch.float32), *question.input_ends)
    return _UnitAscent(ascent, places, first, columns, lines.at(columns))


@dataclass(frozen=True, eq=False)
class _FoundUnitPlanes:
    """Planes for both ends of units: as they are kept, and for ascent, with slopes `(ends, columns)` beside them."""

    kept: UnitPlanes
    lines: PlaneLines
    slopes: Tensor

    def at(self, places: np.ndarray) -> tuple[PlaneLines, Tensor]:
        """Return (planes, slopes) of the lower and then the upper ends of some of the units."""
        count = len(self.kept.places) // 2
        own = torch.from_numpy(np.searchsorted(self.kept.places[:count], places))
        groups = torch.cat([own, own + count])
        return self.lines.of(groups), self.slopes[groups]


def _unit_planes(question: SplitQuestion, program: SplitProgram, name: str, steps: int) -> _FoundUnitPlanes | None:
    """Tighten the box of a node by slopes and planes for both ends of its open units; None where there are none."""
    asked = _unit_ascent(question, program, name)
    units = None if asked is None else first_units(asked.ascent)
    if asked is None or units is None:
        return None
    rows, stage = asked.rows, asked.ascent.network.output
    slopes = first_slopes(asked.lines).expand(len(rows), -1)
    slopes = asked.ascent.ascend(stage, rows, asked.lines, slopes, None, steps, torch.inf)[1]
    found = planes_found(asked.ascent, units, stage, rows, asked.lines, slopes)
    if found is None:
        return None
    columns = asked.columns.numpy().astype(np.int32)
    kept = UnitPlanes(
        name, np.tile(asked.places.astype(np.int32), 2), np.repeat(np.array([1, -1], np.int8), len(asked.places)),
        columns, (found.slopes * STEPS).round().to(torch.uint8).numpy(), found.kept(columns[: len(units.bias)]),
    )  # fmt: skip
    tightened_by_planes(program, kept)
    return _FoundUnitPlanes(kept, found.planes(units), found.slopes)


def _unit_trees(
    question: SplitQuestion,
    program: SplitProgram,
    name: str,
    above: _FoundUnitPlanes | None,
    steps: int,
    splits: int,
    budget: Budget,
) -> UnitTrees | None:
    """Tighten the box of a node by trees for both ends of its open units; None where none is kept.

    Trees without a split are kept where no slopes prove as much.
    """
    asked = _unit_ascent(question, program, name)
    if asked is None:
        return None
    rows, stage, lines = asked.rows, asked.ascent.network.output, asked.lines
    slopes = first_slopes(lines).expand(len(rows), -1)
    if above is not None:
        planes, slopes = above.at(asked.places)
        lines = replace(lines, planes=planes)
    bounds, slopes, _ = asked.ascent.ascend(stage, rows, lines, slopes, None, steps, torch.inf)
    grown = grown_trees(asked.ascent, lines, slopes, bounds, splits, budget)
    units, columns = question.units.units, asked.columns
    powers = units[asked.first + torch.from_numpy(asked.places)][:, None] - units[columns]
    least = 2 if isinstance(question.stages, StagedNetwork) else 1
    trees = grown.as_proved(name, asked.places, columns.numpy(), powers.numpy(), least)
    if trees is not None:
        tightened_by_trees(program, trees, None if above is None else above.kept)
    return trees
