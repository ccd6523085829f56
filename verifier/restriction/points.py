"""From the optimum of a program to points of the real model: over the tie, and onto whole pixels.

An optimum normally is a tie, and a float32 model may round it to either side; so points a little further along the
step are tried too. Whole pixels: rounding moves each value by at most half a pixel, a label row therefore by at most
|row|_1 / 510, which is the margin that each input needs (`pixel_alpha`); Bastani et al. (2016) demand one margin,
alpha = 3, of all. `pixel_points` needs no margin in the program: it rounds to nearest, then turns the coordinates that
count most towards the target until the margin is kept, last all of them. No coordinate leaves the radius rounded up to
whole pixels. Whatever is proposed here is replayed by the caller.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from verifier.restriction.question import Question

# Shares by which a step is lengthened to get over a tie.
NUDGES = (0.0, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2)
# How far from whole pixels an input may be, in pixels, to count as an image of whole pixels.
OFF_GRID = 1e-3


def nudged(question: Question, step: np.ndarray) -> Tensor:
    """Return the points `(count, *shape)` that end the step and steps a little longer, inside the domain."""
    shares = 1.0 + np.array(NUDGES)[:, None]
    steps = np.clip(step * shares, question.lower, question.upper)
    return question.centre + torch.from_numpy(steps).to(question.centre.device).reshape(-1, *question.centre.shape[1:])


def pixel_alpha(question: Question, levels: int = 255) -> float:
    """Return a margin that no rounding to whole pixels inside the region can use up: max |label row|_1 / (2 levels)."""
    return float(np.abs(question.rows(np.arange(question.label_rows))).sum(axis=1).max()) / (2 * levels)


def pixel_points(question: Question, step: np.ndarray, levels: int = 255) -> Tensor:
    """Return candidates `(count, *shape)` on the grid k / levels around the end of the step, most careful last.

    Raises ValueError if the input itself is not on the grid.
    """
    shape = question.centre.shape[1:]
    centre = question.centre.flatten().cpu().numpy()
    whole = np.round(centre * levels)
    off = float(np.abs(centre * levels - whole).max())
    if off > OFF_GRID:
        raise ValueError(
            f"the input lies {off:.3g} of a level off the grid of {levels}: it is no image of whole pixels"
        )
    exact = whole + step * levels
    # A little slack, so that an optimum at a whole number of pixels stays there.
    low, high = np.floor(exact + 1e-6), np.ceil(exact - 1e-6)
    row = int(np.argmin(question.values(step)[: question.label_rows]))
    gradient = question.rows(np.array([row]))[0]
    towards = np.where(gradient > 0, high, low)
    nearest = np.clip(np.round(exact), low, high)
    candidates = [nearest]
    order = np.argsort(-np.abs(gradient * (towards - nearest)), kind="stable")
    missing = -float(gradient @ (nearest - exact))
    gains = np.cumsum((gradient * (towards - nearest))[order])
    turned = int(np.searchsorted(gains, missing)) + 1
    if missing > 0:
        greedy = nearest.copy()
        greedy[order[:turned]] = towards[order[:turned]]
        candidates.append(greedy)
    candidates.append(towards)
    pixels = np.clip(np.stack(candidates), np.ceil((centre + question.lower) * levels - 1e-6),
                     np.floor((centre + question.upper) * levels + 1e-6))  # fmt: skip
    return torch.from_numpy(pixels / levels).to(question.centre.device).reshape(-1, *shape)
