"""A ball made ready for the search over signs: its boxes are proved, and ascent runs over what these leave open.

Ascent works in units in which all values are of size 1: float32 ends at 2^127, its constants mean these. Only units
whose sign the boxes leave open count in it: the others are part of the affine maps between them. What ascent gives is a
proposal; what the numbers prove is evaluated in float64 (`verifier.certificates.split_program`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from encoders.scaling import exponents
from verifier.bounds.split.device_ascent import ascent_on
from verifier.bounds.split.dual_ascent import DualAscent, Lines
from verifier.bounds.split.form import HingeNetwork
from verifier.bounds.split.operators import open_form
from verifier.bounds.split.own_planes import OwnPlanes
from verifier.bounds.split.plane_lines import PlaneLines
from verifier.bounds.split.plane_search import first_units, planes_found
from verifier.bounds.split.question import SplitQuestion
from verifier.bounds.split.unit_boxes import BoxNumbers, first_slopes, lines_of, proved_boxes
from verifier.budget import Budget
from verifier.certificates.certificate import SLACK, Certificate
from verifier.certificates.plane_points import PlanePoints
from verifier.certificates.planes import made_planes
from verifier.certificates.sign_leaves import leaf_bounds
from verifier.certificates.sign_tree import SplitTree
from verifier.certificates.split_program import SplitProgram
from verifier.certificates.subtree_boxes import SubtreeBoxes
from verifier.certificates.sweep import Planes


@dataclass(frozen=True, eq=False)
class RowPlanes:
    """Planes above the first hinge for each row of the output: as they are kept, for ascent, and as they are proved.

    own: where subproblems have points of their own in their place.
    """

    kept: PlanePoints
    lines: PlaneLines
    proved: Planes
    own: OwnPlanes | None


@dataclass(frozen=True, eq=False)
class PreparedBall:
    """A question with what every subproblem of its ball shares.

    program: holds all nodes, their boxes proved by `boxes`, and after them those of subtrees. reach: the greatest |row|
    `(rivals,)` of the boxes; output: the exponent of the margins' unit. all_stages: float32, in units; ascent: over the
    open units alone, whose places among all units are `open_units` and whose lines on all boxes of the program are
    `lines`. known_slopes: of all hinges on the whole ball, those of open units being of their line above. rows: of the
    question, float32. planes: of these rows, None for lines alone.
    """

    question: SplitQuestion
    program: SplitProgram
    boxes: BoxNumbers
    reach: np.ndarray
    output: int
    all_stages: HingeNetwork
    ascent: DualAscent
    open_units: Tensor
    lines: Lines
    known_slopes: Tensor
    rows: Tensor
    planes: RowPlanes | None

    def split_lines(
        self, signs: Tensor, rows: Tensor, boxes: Tensor | None = None, planes: PlaneLines | None = None
    ) -> Lines:
        """Return the lines of the open units for rows `(batch,)` on subproblems of signs `(batch, open units)`.

        boxes: `(batch,)`, which boxes each takes; None for those of the ball. planes: None for those of the rows.
        """
        own = self.lines[:1] if boxes is None or len(self.lines.lower) == 1 else self.lines[boxes]
        made = own.split(signs, self.ascent.left)
        if planes is None and self.planes is not None:
            planes = self.planes.lines.of(rows)
        return made if planes is None else replace(made, planes=planes)

    @property
    def own_planes(self) -> OwnPlanes | None:
        """What planes of subproblems follow from, where these have points of their own."""
        return None if self.planes is None else self.planes.own

    def planes_of(self, points: Tensor) -> PlaneLines | None:
        """Return the planes that points `(batch, inputs + p)` of subproblems name; None where these have none."""
        return None if self.own_planes is None else self.own_planes.lines(points)

    def lines_on(self, program: SplitProgram) -> Lines:
        """Return the lines of the open units on all boxes of a program."""
        left = torch.zeros(program.units)
        for hinge in program.hinges:
            left[hinge.units] = hinge.left
        return lines_of(self.question, program, left).at(self.open_units)

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
        points: Tensor | None = None,
    ) -> np.ndarray:
        """Return a mask of the subproblems that numbers `(batch, open units)` prove, in the network's own units.

        rows: `(batch,)`, which row each is about; signs: `(batch, open units)`.
        boxes: `(batch,)`, which each takes, None for those of the ball. points: of subproblems that have their own.
        """
        placed, open_units = self.on_all_units(signs).numpy(), self.open_units.numpy()
        of = None if boxes is None or self.program.signs is None else boxes.numpy()
        planes = None if self.planes is None else replace(self.planes.proved, groups=rows)
        if points is not None and self.own_planes is not None:
            planes = self.own_planes.proved(points)
        row = self.question.rows[rows]
        bounds = leaf_bounds(self.program, row, placed, open_units, slopes, multipliers, of, planes)
        is_proved: np.ndarray = bounds > SLACK * self.reach[rows]
        return is_proved

    def certificate(
        self, open_units: np.ndarray, trees: tuple[SplitTree, ...], subtrees: tuple[SubtreeBoxes, ...]
    ) -> Certificate:
        """Return what is proved as data, once trees hold numbers that prove every leaf."""
        question, boxes = self.question, self.boxes
        return Certificate(
            question.digest, question.region.centre[0].numpy(), float(question.region.radius[0]),
            question.region.domain, question.winner, tuple(boxes.slopes), open_units, trees, None, subtrees,
            tuple(boxes.trees), tuple(boxes.planes),
            None if self.planes is None or self.own_planes is not None else self.planes.kept,
        )  # fmt: skip


def prepare(
    question: SplitQuestion,
    steps: int,
    budget: Budget,
    before: PreparedBall | None = None,
    splits: int = 0,
    planes: bool = True,
) -> PreparedBall:
    """Return the ball with boxes of what hinges read proved, by slopes from so many steps of ascent.

    budget: for all that is asked; ascent for boxes takes a part of it. before: prepared without any ascent. splits: of
    a tree for each end of a unit's box, planes: whether the first hinge gets some, where the network is held as
    matrices.
    """
    unit_stages = question.stages.in_units(question.units, 0)
    whole = ascent_on(question.device, unit_stages.to(torch.float32), *question.input_ends)
    program = SplitProgram(question.network, question.region.enclosure())
    known = {} if before is None else before.program.boxes
    boxes = proved_boxes(question, program, whole, steps, budget, known, splits, planes)
    reach = np.abs(question.rows) @ program.reach(program.network.output.name)
    output = int(exponents(reach.max(keepdims=True))[0])
    unit_stages = question.stages.in_units(question.units, output)
    lines = lines_of(question, program, whole.left)
    is_open = lines.span[0] > 0
    open_units = torch.nonzero(is_open).squeeze(1)
    stages = open_form(unit_stages, is_open, lines.slope[0]).to(torch.float32)
    ascent = ascent_on(question.device, stages, *question.input_ends)
    rows, own = torch.from_numpy(question.rows).to(torch.float32), lines.at(open_units)
    takes_planes = planes and steps > 0 and not budget.exhausted
    above = _row_planes(program, ascent, own, rows, open_units, steps) if takes_planes else None
    return PreparedBall(
        question, program, boxes, reach, output, unit_stages.to(torch.float32), ascent, open_units, own,
        lines.slope[0], rows, above,
    )  # fmt: skip


def _row_planes(
    program: SplitProgram, ascent: DualAscent, lines: Lines, rows: Tensor, open_units: Tensor, steps: int
) -> RowPlanes | None:
    """Return planes for rows of the output on the whole ball; None where the network has none."""
    units = first_units(ascent)
    if units is None:
        return None
    stage, slopes = ascent.network.output, first_slopes(lines).expand(len(rows), -1)
    slopes = ascent.ascend(stage, rows, lines, slopes, None, steps, torch.inf)[1]
    found = planes_found(ascent, units, stage, rows, lines, slopes)
    if found is None:
        return None
    kept = found.kept(open_units[: len(units.bias)].numpy())
    own = OwnPlanes.on(program, units, found, kept.units)
    return RowPlanes(kept, found.planes(units), made_planes(program, kept), own)
