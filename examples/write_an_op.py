"""Write an op of your own, use it in a network, and prove something about that network.

An op is a frozen dataclass with a `kind` and as many of the views as it can answer; a method that needs another one
says so by name. The table `OPS` lists what ships and what files may hold: an op that is not in it works in a `Network`
made in Python, but in no file. CONTRIBUTING.md has the steps into the table.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from encoders import BallRegion, Box, Network, Node
from encoders.network import INPUT
from encoders.ops import Affine
from encoders.ops.base import ElementwiseOp
from encoders.views.envelope import ConstantEnvelope, Envelope
from verifier.bounds.linear.margins import linear_margins


@dataclass(frozen=True, eq=False)
class Clamp(ElementwiseOp):
    """y = min(max(x, least), greatest): rounds nothing, so every bound below is exact."""

    kind = "clamp"
    least: float = 0.0
    greatest: float = 1.0

    def __post_init__(self) -> None:
        if not self.least < self.greatest:
            raise ValueError(f"clamp needs least < greatest, got {self.least} and {self.greatest}")

    def evaluate(self, *x: Tensor) -> Tensor:
        return x[0].clamp(self.least, self.greatest)

    def interval(self, *boxes: Box) -> Box:
        """Return the range: the function rises, so its ends are the values of the ends."""
        return Box(self.evaluate(boxes[0].lower), self.evaluate(boxes[0].upper))

    def envelope(self, *boxes: Box, slope: Tensor | None = None) -> Envelope:
        """Return the box as constant functions: sound, and what linear bounds behind the op start from."""
        return ConstantEnvelope(self.interval(*boxes))


def network() -> Network:
    """Return 2 inputs, 8 clamped units, 2 classes, with fixed random weights."""
    generator = torch.Generator().manual_seed(0)
    first = Affine(torch.randn(8, 2, generator=generator), torch.randn(8, generator=generator))
    second = Affine(torch.randn(2, 8, generator=generator), torch.zeros(2))
    nodes = (Node("hidden", first, (INPUT,)), Node("clamp", Clamp(), ("hidden",)), Node("out", second, ("clamp",)))
    return Network(nodes, (2,))


def main() -> None:
    """Print the op's views, a box that was tested against points, and what linear bounds prove."""
    model = network()
    print(f"views of clamp: {', '.join(Clamp().views())}")
    # The law that every view obeys: it contains the value at every point of the box.
    region = BallRegion(torch.tensor([[0.3, 0.6]], dtype=torch.float64), torch.tensor([0.05], dtype=torch.float64))
    (outputs,) = model.interval(region.enclosure())
    points = region.lower + torch.rand(1000, 2, dtype=torch.float64) * (region.upper - region.lower)
    values = model.evaluate(points)
    assert bool(((outputs.lower <= values) & (values <= outputs.upper)).all())
    print(f"outputs lie in {outputs.lower.tolist()} to {outputs.upper.tolist()}")
    winner = model.evaluate(region.centre).argmax(dim=1)
    margins = linear_margins(model, region, winner)
    print(f"class {int(winner)} is proved to win on the ball: {bool(margins.proved)}")


if __name__ == "__main__":
    main()
