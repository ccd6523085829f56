"""An op of somebody else's: a staircase, which has no slope that leads anywhere."""

from dataclasses import dataclass

import torch

from encoders.ops.base import Op, UnsupportedView


@dataclass(frozen=True, eq=False)
class Staircase(Op):
    """Rounds down to multiples of 1 / steps: a gradient of 0 wherever there is one."""

    kind = "staircase"

    steps: int

    def output_shape(self, *shapes):
        return shapes[0]

    def evaluate(self, *x):
        # floor's own derivative is 0; the product keeps the graph connected.
        return torch.floor(x[0] * self.steps) / self.steps + 0 * x[0]

    def interval(self, *boxes):
        raise UnsupportedView(self, "interval")
