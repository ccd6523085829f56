"""The leaves of several trees side by side, so that many are evaluated at once whatever tree they are of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from verifier.certificates.error import TooManyLeaves
from verifier.certificates.plane_points import PlanePoints
from verifier.certificates.planes import PlaneMaker, most_rows
from verifier.certificates.sign_tree import SplitTree, along_signs, leaf_signs
from verifier.certificates.split_program import SplitProgram
from verifier.certificates.sweep import Planes

# Leaves evaluated side by side.
PIECE = 512
# Signs of all leaves together, a byte each, that are made at once: 1 GiB.
MOST_SIGNS = 1 << 30


@dataclass(frozen=True, eq=False)
class SignLeaves:
    """Subproblems of a ball, each with the row of the output that is bounded on it.

    rows: `(rivals, outputs)`. open_units: which of all hinge units numbers are of. of: `(leaves,)`, which row each is
    about. signs: `(leaves, units)`. boxes: `(leaves,)`, which of the program's boxes it takes; None for one. planes:
    their groups are by row. maker: of planes that points of numbers name.
    """

    program: SplitProgram
    rows: np.ndarray
    open_units: np.ndarray
    of: np.ndarray
    signs: np.ndarray
    boxes: np.ndarray | None = None
    planes: Planes | None = None
    maker: PlaneMaker | None = None
    # The greatest |row| `(rivals,)` that the boxes of outputs allow.
    reach: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "reach", np.abs(self.rows) @ self.program.reach(self.program.network.output.name))

    @classmethod
    def of_trees(
        cls,
        program: SplitProgram,
        winner: int,
        open_units: np.ndarray,
        trees: Sequence[SplitTree],
        planes: Planes | None = None,
        points: PlanePoints | None = None,
    ) -> SignLeaves:
        """Return the leaves of trees, one after the other; CertificateError if they are too many, or no trees.

        planes: of each class but the winner, in their order. points: of sets of numbers, if they have some.
        """
        count = sum(tree.leaves for tree in trees)
        if count * max(1, program.units) > MOST_SIGNS:
            raise TooManyLeaves(f"{count:,} leaves of {program.units:,} units are more than is evaluated")
        rows = -np.eye(program.network.output_shape[0])[[tree.rival for tree in trees]]
        rows[:, winner] = 1.0
        of = np.repeat(np.arange(len(trees)), [tree.leaves for tree in trees])
        signs = [leaf_signs(tree.splits, program.units) for tree in trees]
        boxes = None
        if program.signs is not None:
            boxes = np.concatenate([np.zeros(t.leaves, np.int32) if t.boxes is None else t.boxes for t in trees])
        if planes is not None:
            planes = replace(planes, groups=np.array([tree.rival - (tree.rival > winner) for tree in trees]))
        maker = None if points is None else PlaneMaker(program.on_box(0), points.units)
        return cls(program, rows, open_units, of, np.concatenate(signs), boxes, planes, maker)

    def __len__(self) -> int:
        return len(self.of)

    def __getitem__(self, leaves: np.ndarray | slice) -> SignLeaves:
        """Return some of the leaves."""
        boxes = None if self.boxes is None else self.boxes[leaves]
        of, signs = self.of[leaves], self.signs[leaves]
        return SignLeaves(self.program, self.rows, self.open_units, of, signs, boxes, self.planes, self.maker)

    def bounds(
        self,
        slopes: np.ndarray,
        multipliers: np.ndarray,
        sets: np.ndarray | None = None,
        points: PlanePoints | None = None,
    ) -> np.ndarray:
        """Return lower bounds `(leaves,)`, proved whatever the numbers are.

        slopes, multipliers: `(sets, open units)`, as a tree keeps them; sets: `(leaves,)`, which each leaf takes, None
        for one each. points: of the sets, of the units of `maker`.
        """
        found, sets = [], np.arange(len(self)) if sets is None else sets
        most = PIECE if points is None else min(PIECE, most_rows(len(points.units), points.points.shape[1]))
        for start in range(0, len(self), most):
            piece = slice(start, start + most)
            chosen = sets[piece]
            signs = self.signs[piece]
            kept = along_signs(multipliers[chosen], signs[:, self.open_units])
            rows, boxes = self.rows[self.of[piece]], None if self.boxes is None else self.boxes[piece]
            planes = None
            if self.planes is not None:
                planes = replace(self.planes, groups=self.planes.groups[self.of[piece]])
            if points is not None and self.maker is not None:
                planes = self.maker.planes(points, *np.unique(chosen, return_inverse=True))
            found.append(leaf_bounds(self.program, rows, signs, self.open_units, slopes[chosen], kept, boxes, planes))
        return np.concatenate(found) if found else np.zeros(0)


def leaf_bounds(
    program: SplitProgram,
    row: np.ndarray,
    signs: np.ndarray,
    open_units: np.ndarray,
    slopes: np.ndarray,
    multipliers: np.ndarray,
    boxes: np.ndarray | None = None,
    planes: Planes | None = None,
) -> np.ndarray:
    """Return lower bounds `(leaves,)` of a row of the output; row: `(outputs,)` or `(leaves, outputs)`.

    boxes: `(leaves,)`, which of the program's boxes each takes; may be left out where there is one. planes: above units
    of the first hinge.
    """
    count = len(signs)
    all_slopes, all_multipliers = np.zeros((count, program.units)), np.zeros((count, program.units))
    all_slopes[:, open_units], all_multipliers[:, open_units] = slopes, multipliers
    rows = np.broadcast_to(row, (count, row.shape[-1]))
    return program.bounds(program.network.output.name, rows, signs, all_slopes, all_multipliers, boxes, planes)
