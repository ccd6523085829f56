"""Sums of two nodes, and arithmetic with stored constants. Each is rounded once and widened by one float."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy.sparse import csr_array, diags_array, eye_array, hstack
from torch import Tensor

from encoders.box import Box
from encoders.ops.base import Op, Shape, relaxed_by_matrix
from encoders.rounding import widen
from encoders.views.coefficients import Coefficients, dot_error, underflow_slack
from encoders.views.envelope import ElementwiseEnvelope, Envelope, LinearEnvelope, offsets_at_ends, reach_of
from encoders.views.relaxation import Relaxation, linear_relaxation
from encoders.views.restriction import Restriction


def _same_shape(kind: str, shapes: tuple[Shape, ...]) -> Shape:
    first, second = shapes
    if first != second:
        raise ValueError(f"{kind} takes two inputs of one shape, got {first} and {second}")
    return first


def _constant_shape(kind: str, shape: Shape, constant: Tensor) -> Shape:
    """Check that the constant broadcasts to the shape of the input, not beyond it."""
    own = tuple(constant.shape)
    # torch.broadcast_shapes says the same and takes a hundred times as long.
    aligned = zip(own, shape[len(shape) - len(own) :], strict=True) if len(own) <= len(shape) else [(0, 1)]
    if any(size not in (1, wanted) for size, wanted in aligned):
        raise ValueError(f"{kind}: a constant of shape {tuple(constant.shape)} does not fit an input of {shape}")
    return shape


def _rounded(lower: Tensor, upper: Tensor) -> Box:
    """Return ends that were rounded once, moved outward; an undefined end (inf - inf) becomes infinite."""
    lower, upper = widen(lower, upper, ulps=1)
    return Box.unchecked(
        lower.nan_to_num(nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf),
        upper.nan_to_num(nan=torch.inf, posinf=torch.inf, neginf=-torch.inf),
    )


def _diagonal(factor: Tensor, shape: Shape) -> csr_array:
    return csr_array(diags_array(factor.to(torch.float64).expand(shape).flatten().cpu().numpy().astype(np.float64)))


@dataclass(frozen=True, eq=False)
class Add(Op):
    """y = a + b, two nodes of one shape (a residual connection)."""

    kind = "add"
    linear = True
    arity = 2

    def output_shape(self, *shapes: Shape) -> Shape:
        return _same_shape(self.kind, shapes)

    def evaluate(self, *x: Tensor) -> Tensor:
        return x[0] + x[1]

    def restrict(self, *x: Tensor, direction: Tensor | None = None, tolerance: float = 0.0) -> Restriction:
        return Restriction(self)

    def relax(self, *boxes: Box, around: Box | None = None) -> Relaxation:
        return relaxed_by_matrix(self, *boxes)

    def exact(self, *boxes: Box, segments: int = 1) -> Relaxation:
        return self.relax(*boxes)

    def matrix(self, *shapes: Shape) -> csr_array:
        n = math.prod(shapes[0])
        return csr_array(hstack([eye_array(n), eye_array(n)]))

    def interval(self, *boxes: Box) -> Box:
        a, b = boxes
        return _rounded(a.lower + b.lower, a.upper + b.upper)

    def envelope(self, *boxes: Box, slope: Tensor | None = None) -> Envelope:
        return _exact_envelope(lambda c: (c, c), boxes[0])


@dataclass(frozen=True, eq=False)
class Sub(Op):
    """y = a - b, two nodes of one shape."""

    kind = "sub"
    linear = True
    arity = 2

    def output_shape(self, *shapes: Shape) -> Shape:
        return _same_shape(self.kind, shapes)

    def evaluate(self, *x: Tensor) -> Tensor:
        return x[0] - x[1]

    def restrict(self, *x: Tensor, direction: Tensor | None = None, tolerance: float = 0.0) -> Restriction:
        return Restriction(self)

    def relax(self, *boxes: Box, around: Box | None = None) -> Relaxation:
        return relaxed_by_matrix(self, *boxes)

    def exact(self, *boxes: Box, segments: int = 1) -> Relaxation:
        return self.relax(*boxes)

    def matrix(self, *shapes: Shape) -> csr_array:
        n = math.prod(shapes[0])
        return csr_array(hstack([eye_array(n), -eye_array(n)]))

    def interval(self, *boxes: Box) -> Box:
        a, b = boxes
        return _rounded(a.lower - b.upper, a.upper - b.lower)

    def envelope(self, *boxes: Box, slope: Tensor | None = None) -> Envelope:
        return _exact_envelope(lambda c: (c, c.with_values(-c.values)), boxes[0])


@dataclass(frozen=True, eq=False)
class AddConstant(Op):
    """y = x + constant; the constant broadcasts to the shape of x (no batch axis)."""

    kind = "add-constant"
    linear = True
    one_to_one = True

    constant: Tensor

    def output_shape(self, *shapes: Shape) -> Shape:
        return _constant_shape(self.kind, shapes[0], self.constant)

    def evaluate(self, *x: Tensor) -> Tensor:
        return x[0] + self.constant

    def restrict(self, *x: Tensor, direction: Tensor | None = None, tolerance: float = 0.0) -> Restriction:
        return Restriction(self)

    def relax(self, *boxes: Box, around: Box | None = None) -> Relaxation:
        return relaxed_by_matrix(self, *boxes)

    def exact(self, *boxes: Box, segments: int = 1) -> Relaxation:
        return self.relax(*boxes)

    def matrix(self, *shapes: Shape) -> csr_array:
        return csr_array(eye_array(math.prod(shapes[0])))

    def interval(self, *boxes: Box) -> Box:
        (box,) = boxes
        return _rounded(box.lower + self.constant, box.upper + self.constant)

    def envelope(self, *boxes: Box, slope: Tensor | None = None) -> Envelope:
        return _exact_envelope(lambda c: (c,), boxes[0], self.constant.expand_as(boxes[0].lower))


@dataclass(frozen=True, eq=False)
class MultiplyConstant(Op):
    """y = x * constant, elementwise; the constant broadcasts to the shape of x (no batch axis)."""

    kind = "multiply-constant"
    linear = True
    one_to_one = True

    constant: Tensor

    def output_shape(self, *shapes: Shape) -> Shape:
        return _constant_shape(self.kind, shapes[0], self.constant)

    def evaluate(self, *x: Tensor) -> Tensor:
        return x[0] * self.constant

    def restrict(self, *x: Tensor, direction: Tensor | None = None, tolerance: float = 0.0) -> Restriction:
        return Restriction(self)

    def relax(self, *boxes: Box, around: Box | None = None) -> Relaxation:
        return relaxed_by_matrix(self, *boxes)

    def exact(self, *boxes: Box, segments: int = 1) -> Relaxation:
        return self.relax(*boxes)

    def matrix(self, *shapes: Shape) -> csr_array:
        return _diagonal(self.constant, shapes[0])

    def interval(self, *boxes: Box) -> Box:
        (box,) = boxes
        first, second = box.lower * self.constant, box.upper * self.constant
        return _rounded(torch.minimum(first, second), torch.maximum(first, second))

    def envelope(self, *boxes: Box, slope: Tensor | None = None) -> Envelope:
        line, zero = self.constant.expand_as(boxes[0].lower), torch.zeros_like(boxes[0].lower)
        return ElementwiseEnvelope(line, zero, line, zero, reach_of(boxes[0]))


@dataclass(frozen=True, eq=False)
class DivideConstant(Op):
    """y = x / constant, elementwise, the constant nowhere zero.

    Kept apart from multiplication because 1 / constant is rarely a float: a verdict is about the division that
    the file asks for.
    """

    kind = "divide-constant"
    linear = True
    one_to_one = True

    constant: Tensor

    def __post_init__(self) -> None:
        if bool((self.constant == 0).any()):
            raise ValueError("divide-constant: the divisor holds a zero")

    def output_shape(self, *shapes: Shape) -> Shape:
        return _constant_shape(self.kind, shapes[0], self.constant)

    def evaluate(self, *x: Tensor) -> Tensor:
        return x[0] / self.constant

    def restrict(self, *x: Tensor, direction: Tensor | None = None, tolerance: float = 0.0) -> Restriction:
        return Restriction(self)

    def relax(self, *boxes: Box, around: Box | None = None) -> Relaxation:
        """Return x - constant y = 0: no quotient is rounded."""
        divisor = self.constant.to(torch.float64).expand(boxes[0].shape).flatten().cpu().numpy()
        return linear_relaxation(csr_array(eye_array(len(divisor))), np.zeros(1), divisor)

    def exact(self, *boxes: Box, segments: int = 1) -> Relaxation:
        return self.relax(*boxes)

    def matrix(self, *shapes: Shape) -> csr_array:
        return _diagonal(1.0 / self.constant.to(torch.float64), shapes[0])

    def interval(self, *boxes: Box) -> Box:
        (box,) = boxes
        first, second = box.lower / self.constant, box.upper / self.constant
        return _rounded(torch.minimum(first, second), torch.maximum(first, second))

    def envelope(self, *boxes: Box, slope: Tensor | None = None) -> Envelope:
        return line_envelope(self, boxes[0], (1.0 / self.constant).expand_as(boxes[0].lower))


def line_envelope(op: Op, box: Box, slope: Tensor) -> ElementwiseEnvelope:
    """Return the envelope of an affine function of each unit whose slope is a float only nearly.

    What the slope misses is monotone in x, so the ends of the box bound it.
    """
    ends = [op.interval(Box.unchecked(end, end)) for end in (box.lower, box.upper)]
    least, greatest = offsets_at_ends(ends[0], ends[1], box, slope)
    return ElementwiseEnvelope(slope, least, slope, greatest, reach_of(box))


def _exact_envelope(
    adjoint: Callable[[Coefficients], tuple[Coefficients, ...]], box: Box, constant: Tensor | None = None
) -> Envelope:
    """Return the envelope of an op whose coefficients need no rounding."""
    error = None if constant is None else dot_error(constant)
    slack = torch.zeros(box.batch, 1, dtype=box.dtype, device=box.lower.device)
    if constant is not None:
        slack = slack + underflow_slack(box.shape, box.dtype)
    return LinearEnvelope(adjoint, constant, error, slack)
