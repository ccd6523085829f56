"""Steps of slopes and multipliers towards a higher bound, in Adam's direction (Kingma, Ba 2015)."""

from __future__ import annotations

import torch
from torch import Tensor

from verifier.bounds.adam import adam

RATE = 0.25
DECAY = 0.98
# Multipliers move by what the bound lacks of the goal at first, at least this, over the width of the unit's box.
LEAST_LACK = 0.01


class DualSteps:
    """Slopes `(batch, units)` in [0, 1] and multipliers `(batch, units)`, or None for none, while they move.

    span: `(batch or 1, units)`, by how much a slope tilts the line below, 0 for units that are split, of which alone
    multipliers move; width: of their boxes before splits. goal: finite where there are multipliers.
    """

    def __init__(self, span: Tensor, width: Tensor, slopes: Tensor, multipliers: Tensor | None, goal: float) -> None:
        self.slopes, self.multipliers = slopes, multipliers
        self._span, self._width, self._goal, self._step = span, width, goal, 0
        self._slope_averages, self._multiplier_averages = (
            [torch.zeros_like(slopes), torch.zeros_like(slopes)] for _ in range(2)
        )
        self._size: Tensor | None = None

    def move(self, bound: Tensor, slope_gain: Tensor, multiplier_gain: Tensor) -> None:
        """Take a step from what the numbers gave: the bounds `(batch,)` and their gradients `(batch, units)`."""
        decay = DECAY**self._step
        direction = adam(self._slope_averages, slope_gain, self._step)
        self.slopes = (self.slopes + RATE * decay * direction).clamp(0.0, 1.0)
        if self.multipliers is not None:
            if self._size is None:
                lack = (self._goal - bound).clamp(min=LEAST_LACK)[:, None]
                self._size = torch.where(self._span == 0, lack / self._width, 0.0)
            direction = adam(self._multiplier_averages, multiplier_gain, self._step)
            moved = self.multipliers + self._size * decay * direction
            # At 0 a multiplier changes over to the other end of the box: it stops there for a step.
            self.multipliers = torch.where(moved * self.multipliers < 0, 0.0, moved)
        self._step += 1
