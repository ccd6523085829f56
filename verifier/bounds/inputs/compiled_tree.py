"""The loop of `verifier.bounds.inputs.search` compiled: boxes bounded, cut, halved and tried, the newest first.

A box is a row of numbers: lower, upper `(inputs)`, least and greatest values of units, functions `(rows, inputs + 1)`
below the rows on the box that it is a part of, 1 where there are such functions, and the bound of that box.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from encoders.kept_loops import kept
from verifier.bounds.inputs.compiled import add_gaps, bound_rows, bound_units
from verifier.bounds.inputs.compiled_layers import UNDERFLOW, U, Work, evaluate, inner

# Steps towards the best weights of a group's rows, and rounds in which these cut a box.
WEIGHT_STEPS, ROUNDS = 12, 2


@inner
def cut(row: Any, lower: Any, upper: Any) -> bool:
    """Cut a box to where the function of a row can be at most zero; false where that is nowhere."""
    d = len(lower)
    total, size = row[d], abs(row[d])
    for i in range(d):
        end = min(row[i] * lower[i], row[i] * upper[i])
        total += end
        size += abs(end)
    slack = size * (8.0 * (d + 8) * U) + UNDERFLOW
    if total > slack:
        return False
    for i in range(d):
        s = row[i]
        # s x_i is at most this, the others as low as they can be.
        room = slack - total + min(s * lower[i], s * upper[i])
        end = room / s
        error = abs(end) * (4.0 * U) + UNDERFLOW
        if s > 0.0 and end + error < upper[i]:
            upper[i] = end + error
        elif s < 0.0 and end - error > lower[i]:
            lower[i] = end - error
        if lower[i] > upper[i]:
            return False
    return True


@inner
def combined(rows: Any, start: int, stop: int, lower: Any, upper: Any, weights: Any, total: Any) -> float:
    """Return a lower bound of the best combination of a group's functions, by a few steps of exponentiated ascent."""
    d, best, widest = len(lower), -np.inf, 1e-300
    for r in range(start, stop):
        weights[r], moved = 1.0 / (stop - start), 0.0
        for i in range(d):
            moved += abs(rows[r, i]) * (upper[i] - lower[i])
        widest = max(widest, moved)
    for step in range(WEIGHT_STEPS):
        value, size = 0.0, 0.0
        for i in range(d + 1):
            total[i] = 0.0
            for r in range(start, stop):
                total[i] += weights[r] * rows[r, i]
                reach = 1.0 if i == d else max(abs(lower[i]), abs(upper[i]))
                size += weights[r] * abs(rows[r, i]) * reach
        for i in range(d):
            value += min(total[i] * lower[i], total[i] * upper[i])
        value += total[d] - size * (8.0 * (d + stop - start + 8) * U) - UNDERFLOW
        best = max(best, value)
        highest, share = -np.inf, 0.0
        for turn in range(2):
            for r in range(start, stop):
                at = rows[r, d]
                for i in range(d):
                    at += rows[r, i] * (lower[i] if total[i] > 0.0 else upper[i])
                if turn == 0:
                    highest = max(highest, at)
                else:
                    weights[r] *= np.exp((at - highest) * 4.0 / widest / (1.0 + step) ** 0.5)
                    share += weights[r]
        for r in range(start, stop):
            weights[r] /= share
    return best


@inner
def left(groups: Any, rows: Any, bounds: Any, work: Any, ends: Any, is_open: Any, scratch: Any) -> bool:
    """Cut the box to that around what each group leaves of it; false where that is nothing. is_open: by row."""
    any_open, d = False, len(work.lower)
    lower, upper = ends[0], ends[1]
    for i in range(d):
        ends[2, i], ends[3, i] = np.inf, -np.inf
    for k in range(len(groups) - 1):
        start, stop, possible = groups[k], groups[k + 1], True
        lower[:], upper[:] = work.lower, work.upper
        for r in range(start, stop):
            possible = possible and not bounds[r] > 0.0
        for _ in range(ROUNDS):
            for r in range(start, stop):
                possible = possible and cut(rows[r], lower, upper)
        if possible and stop - start > 1:
            possible = not combined(rows, start, stop, lower, upper, scratch[0], scratch[1]) > 0.0
        is_open[start:stop] = possible
        if possible:
            any_open = True
            for i in range(d):
                ends[2, i], ends[3, i] = min(ends[2, i], lower[i]), max(ends[3, i], upper[i])
    if any_open:
        work.lower[:], work.upper[:] = ends[2], ends[3]
    return any_open


@inner
def best_side(layers: Any, work: Any, rows: Any, is_open: Any, middle: Any, scores: Any) -> int:
    """Return the side with the greatest score; -1 where no side has a middle inside."""
    d, side = len(middle), -1
    scores[:] = 0.0
    for r in range(len(is_open)):
        if is_open[r]:
            add_gaps(layers, work, r, scores)
    if not scores.sum() > 0.0:
        for i in range(d):
            for r in range(len(is_open)):
                scores[i] = max(scores[i], abs(rows[r, i]) * (work.upper[i] - work.lower[i]))
    for i in range(d):
        middle[i] = 0.5 * work.lower[i] + 0.5 * work.upper[i]
        if work.lower[i] < middle[i] < work.upper[i] and (side < 0 or scores[i] > scores[side]):
            side = i
    return side


@inner
def lowest(groups: Any, bounds: Any) -> float:
    """Return the bound of the group that is farthest from a proof; minus infinity where one is not a number."""
    least = np.inf
    for k in range(len(groups) - 1):
        greatest = -np.inf
        for r in range(groups[k], groups[k + 1]):
            greatest = max(greatest, bounds[r]) if bounds[r] == bounds[r] else greatest
        least = min(least, greatest)
    return least


@inner
def is_unsafe(layers: Any, work: Any, x: Any, values: Any) -> bool:
    """Return whether all rows of a group are met at a point, in floats."""
    evaluate(layers, work, x, values)
    for k in range(len(layers.groups) - 1):
        met = True
        for r in range(layers.groups[k], layers.groups[k + 1]):
            met = met and values[r] <= 0.0
        if met:
            return True
    return False


@inner
def read(box: Any, work: Any) -> bool:
    """Set what is known of a box from its row; return whether there are functions."""
    d, n = len(work.lower), len(work.least)
    work.lower[:], work.upper[:] = box[:d], box[d : 2 * d]
    work.least[:], work.greatest[:] = box[2 * d : 2 * d + n], box[2 * d + n : 2 * d + 2 * n]
    at = 2 * d + 2 * n
    for r in range(len(work.half)):
        for i in range(d + 1):
            work.half[r, i] = box[at]
            at += 1
    return bool(box[at] > 0.0)


@inner
def write(box: Any, work: Any, rows: Any, bound: float) -> None:
    """Write the row of a box."""
    d, n = len(work.lower), len(work.least)
    box[:d], box[d : 2 * d] = work.lower, work.upper
    box[2 * d : 2 * d + n], box[2 * d + n : 2 * d + 2 * n] = work.least, work.greatest
    at = 2 * d + 2 * n
    for r in range(len(rows)):
        for i in range(d + 1):
            box[at] = rows[r, i]
            at += 1
    box[at], box[at + 1] = 1.0, bound


@inner
def workspace(layers: Any) -> Any:
    """Return room for one box."""
    d, rows, n = layers.sizes[0], layers.sizes[-1], layers.units[-1]
    widest = layers.sizes.max()
    lines = np.empty((5, n))
    return Work(
        np.empty(d), np.empty(d), np.empty(n), np.empty(n), np.empty((rows, d + 1)), np.zeros((n, d)),
        layers.sizes.copy(), np.zeros(n, dtype=np.int64), np.empty(len(layers.matrix)),
        lines[0], lines[1], lines[2], lines[3], lines[4], np.empty((2, widest)), np.empty((2, widest)),
    )  # fmt: skip


@kept("compiled*.py", nogil=True, error_model="numpy")
def grown(
    layers: Any, boxes: Any, count: int, most: int, tries: bool, point: Any, least: Any
) -> tuple[int, int, int, bool]:
    """Bound and halve up to `most` boxes; return (boxes that wait, bounded, without a middle, whether point is unsafe).

    boxes: `(room, width)`, of which `count` wait; it ends where there is no room for two more. tries: whether points
    are tried; it ends at the first that is unsafe in floats, which is written into point. least: `(1,)`, lowered to the
    bounds of boxes without a middle.
    """
    work, rows = workspace(layers), layers.sizes[-1]
    d = layers.sizes[0]
    found, bounds, is_open = np.empty((rows, d + 1)), np.empty(rows), np.ones(rows, dtype=np.bool_)
    ends, scratch = np.empty((4, d)), np.empty((2, max(rows, d + 1)))
    middle, scores = np.empty(d), np.empty(d)
    bounded, thin = 0, 0
    while count > 0 and bounded < most and count + 1 < len(boxes):
        count -= 1
        bounded += 1
        # Of several groups a point may be in any, so none of their half-spaces holds.
        halves = rows if read(boxes[count], work) and len(layers.groups) == 2 else 0
        if not bound_units(layers, work, halves):
            continue
        bound_rows(layers, work, halves, found, bounds)
        if not left(layers.groups, found, bounds, work, ends, is_open, scratch):
            continue
        side = best_side(layers, work, found, is_open, middle, scores)
        bound = lowest(layers.groups, bounds)
        if side < 0:
            thin, least[0] = thin + 1, min(least[0], bound)
        else:
            split(boxes, count, work, found, bound, side, middle[side])
            count += 2
        if tries and tried(layers, work, found, bounds, middle, point):
            return count, bounded, thin, True
    return count, bounded, thin, False


@inner
def split(boxes: Any, count: int, work: Any, rows: Any, bound: float, side: int, middle: float) -> None:
    """Write both halves of a box after the boxes that wait."""
    d = len(work.lower)
    write(boxes[count], work, rows, bound)
    write(boxes[count + 1], work, rows, bound)
    boxes[count, d + side] = middle
    boxes[count + 1, side] = middle


@inner
def tried(layers: Any, work: Any, rows: Any, bounds: Any, middle: Any, point: Any) -> bool:
    """Write the middle of a box, or where the lowest row ends, into point where one is unsafe in floats."""
    values = np.empty(len(bounds))
    point[:] = middle
    if is_unsafe(layers, work, point, values):
        return True
    worst = int(bounds.argmin())
    for i in range(len(middle)):
        point[i] = work.lower[i] if rows[worst, i] > 0.0 else work.upper[i]
    return is_unsafe(layers, work, point, values)
