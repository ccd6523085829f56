"""What is random about an op: nothing, unless it says otherwise.

A randomised op stands for many ordinary ones; everything else that it answers is about what stands for them all.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch


class Draws:
    """Draws of an op, and what holds for all of them: ops, too; see `Network.draw` and `Network.over_draws`."""

    # Whether the op stands for many, of which `draw` gives one; its views are those of what stands for them all.
    randomised: ClassVar[bool] = False
    # Whether it has one value at a point; its bounds hold for all that it has.
    is_function: ClassVar[bool] = True

    def draw(self, generator: torch.Generator) -> Any:
        """Return an ordinary op that this may be, the op itself where nothing is random."""
        return self

    def over_draws(self, deviations: float) -> Any:
        """Return an op whose bounds hold for many draws, the op itself where nothing is random."""
        return self

    @property
    def normal_weights(self) -> int:
        """How many weights are drawn from normal distributions."""
        return 0
