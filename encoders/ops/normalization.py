"""Batch normalisation at inference: a fixed affine map for each channel."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
import scipy
import torch
from torch import Tensor

from encoders.arithmetic import Arithmetic
from encoders.box import Box, Shape
from encoders.ops.elementwise import line_envelope
from encoders.ops.linear import LinearOp
from encoders.rationals import Afford, NotEvaluated, Rationals
from encoders.rounding import gamma, next_up, tiny
from encoders.views.envelope import ElementwiseEnvelope, Envelope, reach_of
from encoders.views.relaxation import Relaxation, line_relaxation


@dataclass(frozen=True, eq=False)
class BatchNorm(LinearOp):
    """y = (x - mean) / sqrt(variance + epsilon) * scale + shift, for each channel (first axis).

    All four tensors have shape `(channels,)`. The op is not folded into the layer before it: folding rounds the
    weights, and an interval through the two ops is as tight.
    """

    kind = "batch-norm"
    one_to_one = True

    mean: Tensor
    variance: Tensor
    scale: Tensor
    shift: Tensor
    epsilon: float = 1e-5

    def __post_init__(self) -> None:
        shapes = {tuple(t.shape) for t in (self.mean, self.variance, self.scale, self.shift)}
        if len(shapes) != 1 or self.mean.dim() != 1:
            raise ValueError(f"batch-norm statistics must be vectors of one length, got {sorted(shapes)}")
        square = self.variance + self.epsilon
        if not self.epsilon >= 0 or not bool(((self.variance >= 0) & (square > 0) & (square < torch.inf)).all()):
            raise ValueError("batch-norm needs epsilon >= 0, variance >= 0 and 0 < variance + epsilon < infinity")

    def output_shape(self, *shapes: Shape) -> Shape:
        if not shapes[0] or shapes[0][0] != self.mean.shape[0]:
            raise ValueError(f"batch-norm has {self.mean.shape[0]} channels, got shape {shapes[0]}")
        return shapes[0]

    def evaluate(self, *x: Tensor) -> Tensor:
        (value,) = x
        axes = (-1, *[1] * (value.dim() - 2))
        deviation = torch.sqrt(self.variance + self.epsilon).reshape(axes)
        return (value - self.mean.reshape(axes)) / deviation * self.scale.reshape(axes) + self.shift.reshape(axes)

    def relax(self, *boxes: Box, around: Box | None = None) -> Relaxation:
        """Return the line with a float slope, its offset widened by what the slope misses."""
        return line_relaxation(self._line(boxes[0]), parallel=True)

    def exact(self, *boxes: Box, segments: int = 1) -> Relaxation:
        """Return the same row; its gap is that rounding error, as the slope is not a float."""
        line = self._line(boxes[0])
        gap = next_up(line.upper_offset - line.lower_offset).nan_to_num(torch.inf).max()
        return replace(line_relaxation(line, parallel=True), gap=float(gap))

    def matrix(self, *shapes: Shape) -> scipy.sparse.csr_array:
        factor = self.scale.to(torch.float64) / torch.sqrt(self.variance.to(torch.float64) + self.epsilon)
        axes = (-1, *[1] * (len(shapes[0]) - 1))
        return scipy.sparse.csr_array(
            scipy.sparse.diags_array(factor.reshape(axes).expand(shapes[0]).flatten().cpu().numpy())
        )

    def execution_error(self, boxes: Sequence[Box], errors: Sequence[Tensor], arithmetic: Arithmetic) -> Tensor:
        """Return the error of k x - k m + shift, k = scale / root, however it is ordered, and k may be stored."""
        (box,), (error,) = boxes, errors
        axes = (-1, *[1] * (box.lower.dim() - 2))
        factor, mean, shift, scale = (
            values.abs().reshape(axes)
            for values in (
                self.scale / torch.sqrt(self.variance + self.epsilon), self.mean, self.shift, self.scale
            )
        )  # fmt: skip
        size = factor * (reach_of(box) + error + mean) + shift
        slack = arithmetic.absolute(8) * (1.0 + scale + factor)
        # 1 / root is on the way in some of these orders.
        biggest = torch.maximum(size, (1.0 / torch.sqrt(self.variance + self.epsilon)).reshape(axes))
        return arithmetic.bounded(factor * error + arithmetic.relative(8) * size + slack, biggest)

    def interval(self, *boxes: Box) -> Box:
        """Return the range, which the ends give as the map is monotone, with its rounding error bounded.

        Six roundings precede the last addition, so the product errs by gamma_8 of its own size, and the sum by
        one rounding more. An underflow of the quotient is multiplied by the scale.
        """
        (box,) = boxes
        axes = (-1, *[1] * (box.lower.dim() - 2))
        relative = gamma(12, box.dtype)
        absolute = (16.0 + 4.0 * self.scale.abs().reshape(axes)) * tiny(box.dtype)
        ends = []
        for end in (box.lower, box.upper):
            value = self.evaluate(end)
            shift = self.shift.reshape(axes)
            size = (value - shift).abs() + value.abs() + shift.abs()
            ends.append((value, size * relative + absolute))
        (first, first_error), (second, second_error) = ends
        lower = torch.minimum(first - first_error, second - second_error)
        upper = torch.maximum(first + first_error, second + second_error)
        return Box.unchecked(
            lower.nan_to_num(nan=-torch.inf, posinf=torch.finfo(box.dtype).max, neginf=-torch.inf),
            upper.nan_to_num(nan=torch.inf, posinf=torch.inf, neginf=torch.finfo(box.dtype).min),
        )

    def envelope(self, *boxes: Box, slope: Tensor | None = None) -> Envelope:
        return self._line(boxes[0])

    def _line(self, box: Box) -> ElementwiseEnvelope:
        axes = (-1, *[1] * (box.lower.dim() - 2))
        factor = (self.scale / torch.sqrt(self.variance + self.epsilon)).reshape(axes)
        return line_envelope(self, box, factor.expand_as(box.lower))

    def rational(self, *x: Rationals, afford: Afford) -> Rationals:
        """Return the value where the root of each variance is rational, or its scale is 0."""
        axes = (-1, *[1] * (len(x[0].shape) - 2))
        factors, divisors = [], []
        for variance, scale in zip(
            Rationals.of(self.variance).values(), Rationals.of(self.scale).values(), strict=True
        ):
            root = Fraction(1) if scale == 0 else _root(variance + Fraction(self.epsilon))
            if root is None:
                raise NotEvaluated("batch-norm divides by the root of a number that is no square")
            factors.append(scale.numerator * root.denominator)
            divisors.append(scale.denominator * root.numerator)
        common = math.lcm(*divisors)
        whole = np.array([f * (common // d) for f, d in zip(factors, divisors, strict=True)], dtype=object)
        mean, shift = (Rationals.of(part.reshape(axes)) for part in (self.mean, self.shift))
        return (x[0] - mean) * Rationals(whole.reshape(axes), common) + shift


def _root(value: Fraction) -> Fraction | None:
    """Return the square root of a positive number if it is rational."""
    root = Fraction(math.isqrt(value.numerator), math.isqrt(value.denominator))
    return root if root * root == value else None
