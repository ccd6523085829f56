"""What functions of single units share that have lines around them and no bends: all views but the range follow."""

from abc import abstractmethod
from functools import partial

from torch import Tensor

from encoders.box import Box
from encoders.ops.base import ElementwiseOp
from encoders.views.envelope import ElementwiseEnvelope
from encoders.views.piecewise import piecewise
from encoders.views.pseudogradient import replace_backward
from encoders.views.relaxation import Relaxation, line_relaxation


class SmoothOp(ElementwiseOp):
    """y = f(x), f smooth but for single places."""

    @abstractmethod
    def derivative(self, x: Tensor) -> Tensor:
        """Return the derivative at x."""

    @abstractmethod
    def lines(self, box: Box, thin: bool = False) -> ElementwiseEnvelope:
        """Return a line below and one above on boxes; thin: both of the chord's slope, as strips want them."""

    def envelope(self, *boxes: Box, slope: Tensor | None = None) -> ElementwiseEnvelope:
        return self.lines(boxes[0])

    def relax(self, *boxes: Box, around: Box | None = None) -> Relaxation:
        return line_relaxation(self.lines(boxes[0]))

    def exact(self, *boxes: Box, segments: int = 1) -> Relaxation:
        return piecewise(self.interval, partial(self.lines, thin=True), self.derivative, boxes[0], segments)

    def open_units(self, box: Box) -> Tensor:
        return box.lower < box.upper

    def evaluate_pseudo(self, *x: Tensor, leak: float = 0.0) -> Tensor:
        if leak == 0.0:
            return self.evaluate(*x)
        return replace_backward(self.evaluate, lambda z: self.evaluate(z) + leak * z)(*x)
