"""Boxes of what hinges read, proved again under the signs of a subproblem, for all subproblems below it.

A bound of a unit holds under the signs of units before it, whose multipliers tighten it: the boxes of a ball do not
know them (Wang et al. 2021, where all boxes are those of the whole ball). What is bounded stays a claim about the
points that have these signs, and `SplitProgram.sweep` uses such boxes for subproblems with these signs alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from verifier.certificates.error import CertificateError
from verifier.certificates.split_program import SplitProgram

# Slopes are stored in this many steps.
STEPS = 255
# Ends of boxes that a program may hold for all subtrees together: 1 GiB.
MOST_ENDS = 1 << 27


@dataclass(frozen=True, eq=False)
class SubtreeBoxes:
    """Numbers that prove boxes under some signs; columns are the open units of a certificate.

    before: the boxes that these narrow, 0 for those of the ball, else 1 and more for those given before. signs:
    `(open units,)`, -1, 0 or 1. units: `(k,)`, columns of the units that are bounded, in the order of the hinges.
    slopes, multipliers: `(2 k, open units)`, the former in steps of 1/255, of the bounds of the units, then of their
    negatives.
    """

    before: int
    signs: np.ndarray
    units: np.ndarray
    slopes: np.ndarray
    multipliers: np.ndarray

    @property
    def size(self) -> int:
        """How many numbers it holds."""
        return self.signs.size + self.units.size + self.slopes.size + self.multipliers.size


def with_subtrees(program: SplitProgram, open_units: np.ndarray, subtrees: Sequence[SubtreeBoxes]) -> SplitProgram:
    """Return a program with the boxes of subtrees after the ball's; CertificateError where numbers name none."""
    if not subtrees:
        return program
    most = most_subtrees(program)
    if len(subtrees) > most:
        raise CertificateError(
            f"it holds boxes of {len(subtrees):,} subtrees, more than the {most:,} that are evaluated"
        )
    signs = np.zeros((1 + len(subtrees), program.units), dtype=np.int8)
    made = [program]
    for number, subtree in enumerate(subtrees, start=1):
        _check(subtree, number, len(open_units))
        signs[number, open_units] = subtree.signs
        inherited = signs[subtree.before]
        if not ((inherited == 0) | (inherited == signs[number])).all():
            raise CertificateError(f"subtree {number} has not the signs of the one whose boxes it narrows")
        made.append(narrowed(made[subtree.before], open_units, subtree))
    return program.joined(made[1:], signs[1:])


def most_subtrees(program: SplitProgram) -> int:
    """Return for how many subtrees boxes of the program may be made, so that they fit in memory."""
    return MOST_ENDS // (2 * sum(box.lower[0].numel() for box in program.boxes.values()))


def narrowed(program: SplitProgram, open_units: np.ndarray, subtree: SubtreeBoxes) -> SplitProgram:
    """Return the program under the signs of a subtree; program: on the one box that it narrows."""
    signs = np.zeros(program.units, dtype=np.int8)
    signs[open_units] = subtree.signs
    made = program.under(signs)
    for hinge in made.hinges:
        own = np.flatnonzero(
            (open_units[subtree.units] >= hinge.units.start) & (open_units[subtree.units] < hinge.units.stop)
        )
        if len(own):
            rows = np.concatenate([own, own + len(subtree.units)])
            slopes, multipliers = np.zeros((2, len(rows), program.units))
            slopes[:, open_units] = subtree.slopes[rows] / STEPS
            multipliers[:, open_units] = subtree.multipliers[rows]
            made.narrow(hinge, open_units[subtree.units[own]] - hinge.units.start, slopes, multipliers)
    return made


def _check(subtree: SubtreeBoxes, number: int, count: int) -> None:
    """Raise CertificateError unless numbers are of the kinds and shapes that the arithmetic takes."""
    signs, units, rows = subtree.signs, subtree.units, 2 * len(subtree.units)
    if not 0 <= subtree.before < number:
        raise CertificateError(f"subtree {number} narrows boxes {subtree.before}, which do not come before it")
    if signs.shape != (count,) or signs.dtype.kind != "i" or not np.isin(signs, (-1, 0, 1)).all():
        raise CertificateError(f"subtree {number}: its signs must be -1, 0 or 1 for each of {count} open units")
    if units.ndim != 1 or units.dtype.kind not in "iu" or len(np.unique(units)) != len(units):
        raise CertificateError(f"subtree {number}: the units that it bounds must be integers, each of them once")
    if len(units) and not 0 <= int(units.min()) <= int(units.max()) < count:
        raise CertificateError(f"subtree {number} bounds a unit that does not exist")
    shape = (rows, count)
    for values in (subtree.slopes, subtree.multipliers):
        if values.shape != shape or values.dtype.kind not in "uf":
            raise CertificateError(
                f"subtree {number}: numbers of type {values.dtype} and shape {values.shape} where real numbers of "
                f"{shape} are expected"
            )
