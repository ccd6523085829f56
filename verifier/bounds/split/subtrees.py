"""Boxes of deep subproblems proved again, with the multipliers of their splits, for all that lies below them.

Ascent over the triangles reaches their optimum, and the triangles are those of the whole ball: in deep networks what is
missing lies in the boxes. A few units of each hinge, by what their lines above cost, give nearly all of it.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from verifier.bounds.split.dual_ascent import Lines
from verifier.bounds.split.prepared import PreparedBall
from verifier.bounds.split.subproblems import Subproblems
from verifier.certificates.shortened import short_multipliers
from verifier.certificates.split_program import SplitProgram
from verifier.certificates.subtree_boxes import STEPS, SubtreeBoxes, narrowed

# Units of each hinge that are bounded anew, and steps of ascent for each bound.
UNITS, BOX_STEPS = 20, 10
# Bits of a multiplier: a float32 without its lower half.
BITS = 8


def in_subtrees(
    ball: PreparedBall, subproblems: Subproblems, losses: Tensor
) -> tuple[PreparedBall, Subproblems, list[SubtreeBoxes]]:
    """Return the ball with boxes for each of some subproblems, these with the boxes and their signs, and the numbers.

    losses: `(batch, open units)`, what the lines above of units cost.
    """
    numbers = _box_numbers(ball, subproblems, losses)
    open_units, first = ball.open_units.numpy(), len(ball.lines.lower)
    programs = [narrowed(ball.program.on_box(each.before), open_units, each) for each in numbers]
    signs = np.stack([each.signs for each in numbers])
    whole = ball.program.joined(programs, ball.on_all_units(torch.from_numpy(signs)).numpy())
    made = replace(ball, program=whole, lines=ball.lines_on(whole))
    boxes = torch.arange(first, first + len(numbers))
    # Signs that the boxes imply are known below: nothing is split there, and a proof may name them or not.
    implied = torch.from_numpy(_implied(whole, open_units)[first:])
    known = torch.where(subproblems.signs != 0, subproblems.signs, implied)
    return made, replace(subproblems, boxes=boxes, signs=known), numbers


def _implied(program: SplitProgram, open_units: np.ndarray) -> np.ndarray:
    """Return the signs `(boxes, open units)` of which the ends of boxes leave no doubt, in float64 as proofs do."""
    lower, upper = program.unit_ends(open_units)
    signs: np.ndarray = np.where(lower >= 0, 1, np.where(upper <= 0, -1, 0)).astype(np.int8)
    return signs


def _split_signs(ball: PreparedBall, subproblems: Subproblems) -> np.ndarray:
    """Return the signs `(batch, open units)` that splits gave, without those that boxes imply."""
    signs, open_units, boxes = subproblems.signs.numpy(), ball.open_units.numpy(), subproblems.boxes.numpy()
    if ball.program.signs is None:
        return signs
    given, known = ball.program.signs[:, open_units][boxes], _implied(ball.program, open_units)[boxes]
    own: np.ndarray = np.where(known != 0, given, signs)
    return own


def _box_numbers(ball: PreparedBall, subproblems: Subproblems, losses: Tensor) -> list[SubtreeBoxes]:
    """Return numbers for the boxes of each subproblem, found hinge by hinge, each on the boxes of those before."""
    ascent, count = ball.ascent, len(subproblems)
    lines = ball.split_lines(subproblems.signs, subproblems.rows, subproblems.boxes)
    lower, upper = lines.lower.expand(count, -1).clone(), lines.upper.expand(count, -1).clone()
    losses = torch.where(subproblems.signs == 0, losses, -1.0)
    found: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
    # What the first hinge reads is affine in the input.
    for stage, own in list(zip(ascent.network.hinges, ascent.units, strict=True))[1:]:
        most = losses[:, own].topk(min(UNITS, own.stop - own.start), dim=1)
        of, column = torch.nonzero(most.values > 0, as_tuple=True)
        if not len(of):
            continue
        places, each = most.indices[of, column], torch.arange(len(of))
        rows = torch.zeros(2 * len(of), stage.size)
        rows[each, places], rows[each + len(of), places] = 1.0, -1.0
        twice, units = torch.cat([of, of]), places + own.start
        bounds, slopes, multipliers = ascent.ascend(
            stage, rows, Lines.on(lower, upper, ascent.left)[twice], subproblems.slopes[twice],
            torch.zeros(len(rows), len(ascent.left)), BOX_STEPS, 0.0,
        )  # fmt: skip
        assert multipliers is not None
        low, high = bounds.nan_to_num(-torch.inf, torch.inf, -torch.inf).chunk(2)
        lower[of, units] = torch.minimum(torch.maximum(lower[of, units], low), upper[of, units])
        upper[of, units] = torch.maximum(torch.minimum(upper[of, units], -high), lower[of, units])
        # Of other units and of known ones no slope counts.
        slopes[:, own.start :] = 0.0
        slopes[subproblems.signs[twice] != 0] = 0.0
        found.append((of, units, slopes, multipliers))
    signs = _split_signs(ball, subproblems)
    return [_of_one(ball, int(subproblems.boxes[i]), signs[i], i, found) for i in range(count)]


def _of_one(
    ball: PreparedBall, before: int, signs: np.ndarray, i: int, found: list[tuple[Tensor, Tensor, Tensor, Tensor]]
) -> SubtreeBoxes:
    """Return the numbers of subproblem i as they are kept, in the network's own units."""
    powers = ball.question.units.units[ball.open_units].numpy()
    units, slopes, multipliers = list[np.ndarray](), list[list[np.ndarray]](), list[list[np.ndarray]]()
    for of, own_units, own_slopes, own_multipliers in found:
        own = torch.nonzero(of == i).squeeze(1)
        rows = torch.cat([own, own + len(of)])
        places = own_units[own].numpy()
        exponents = np.concatenate([powers[places]] * 2)[:, None] - powers
        exact = np.ldexp(own_multipliers[rows].numpy().astype(np.float64), exponents)
        units.append(places)
        slopes.append(np.split((own_slopes[rows] * STEPS).round().to(torch.uint8).numpy(), 2))
        multipliers.append(np.split(short_multipliers(exact, BITS).astype(np.float32), 2))
    return SubtreeBoxes(
        before, signs, np.concatenate([np.zeros(0, np.int32), *units]).astype(np.int32),
        _halves(slopes, np.zeros((0, len(signs)), np.uint8)),
        _halves(multipliers, np.zeros((0, len(signs)), np.float32)),
    )  # fmt: skip


def _halves(parts: list[list[np.ndarray]], none: np.ndarray) -> np.ndarray:
    """Return the first halves of all parts and then their second halves."""
    return np.concatenate([none, *(part[0] for part in parts), *(part[1] for part in parts)])
