"""A function of single units, of the table `encoders.ops.curve_functions`: every view follows from its row."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from encoders.box import Box
from encoders.ops.curve_functions import curve_of
from encoders.ops.smooth import SmoothOp
from encoders.views.curve import Function
from encoders.views.envelope import ElementwiseEnvelope


@dataclass(frozen=True, eq=False)
class Curve(SmoothOp):
    """y = f(x). function: its name in the table; arguments: its numbers."""

    kind = "curve"

    function: str
    arguments: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        curve_of(self.function, self.arguments)

    @property
    def curve(self) -> Function:
        """The function."""
        return curve_of(self.function, self.arguments)

    def evaluate(self, *x: Tensor) -> Tensor:
        return self.curve.value(x[0])

    def interval(self, *boxes: Box) -> Box:
        """Return the exact range, widened by the trusted error of the library's functions.

        All numbers where the box leaves the domain of the function, or holds a pole.
        """
        return self.curve.interval(boxes[0])

    def undefined(self, *boxes: Box) -> Tensor | None:
        """Return which boxes leave the domain of the function, or hold a pole: a place where it has no finite limit."""
        spans, (box,) = self.curve.spans, boxes
        ends = [pair for span in spans for pair in zip((span.start, span.end), span.limits, strict=True)]
        poles = [x for x, limit in ends if limit is not None and math.isfinite(x) and not math.isfinite(limit)]
        if not poles and (not spans or (spans[0].start, spans[-1].end) == (-math.inf, math.inf)):
            return None
        beyond = (box.lower < spans[0].start) | (box.upper > spans[-1].end)
        for pole in poles:
            beyond |= (box.lower <= pole) & (pole <= box.upper)
        return beyond.unsqueeze(-1).flatten(1).any(dim=1)

    def derivative(self, x: Tensor) -> Tensor:
        return self.curve.derivative(x)

    def lines(self, box: Box, thin: bool = False) -> ElementwiseEnvelope:
        return self.curve.envelope(box, thin=thin)

    def trusted_error(self, size: Tensor, *x: Tensor) -> Tensor:
        """Return the greatest of value, input and 1: runtimes multiply the input by an approximation of up to 1."""
        return torch.maximum(size, x[0].abs()).clamp(min=1.0)
