"""Products of two nodes, of single values or of matrices: scores and weighted sums of attention, gates.

With centres a0, b0 and radii r, s of the two boxes, a b = b0 a + a0 b - a0 b0 + (a - a0)(b - b0), and the last product
lies within r s: the mean of McCormick's two planes below and above (McCormick 1976), at the same distance from both.
A matrix product is the sum of such products. Rows hold all four planes. A square is no product but a curve, which knows
that its factors are equal.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from encoders.box import Box, Shape
from encoders.ops.base import Op
from encoders.rationals import PYTHON_COST, Afford, Rationals
from encoders.rounding import gamma, tiny, unit_roundoff, widen
from encoders.views.coefficients import Coefficients, dot_error, underflow_slack
from encoders.views.envelope import Envelope, LinearEnvelope, reach_of
from encoders.views.relaxation import Relaxation, Rows, Size, assembled, sum_up


class _OfTwoNodes(Op):
    """A bilinear function of two nodes."""

    arity = 2
    gains_from_lines = True

    def open_units(self, box: Box) -> Tensor:
        return box.lower < box.upper


@dataclass(frozen=True, eq=False)
class Product(_OfTwoNodes):
    """y = a b, two nodes of one shape."""

    kind = "product"

    def output_shape(self, *shapes: Shape) -> Shape:
        first, second = shapes
        if first != second:
            raise ValueError(f"product takes two inputs of one shape, got {first} and {second}")
        return first

    def evaluate(self, *x: Tensor) -> Tensor:
        return x[0] * x[1]

    def interval(self, *boxes: Box) -> Box:
        """Return the least and the greatest product of two ends, rounded outward."""
        lower, upper = widen(*_corners(*boxes), ulps=1)
        return Box.unchecked(lower, upper)

    def envelope(self, *boxes: Box, slope: Tensor | None = None) -> Envelope:
        a, b = boxes
        (centre_a, radius_a), (centre_b, radius_b) = _parts(a), _parts(b)
        u = unit_roundoff(a.dtype)
        bias = -(centre_a * centre_b)
        error = radius_a * radius_b + bias.abs() * (4.0 * u)
        error = error + (centre_b.abs() * reach_of(a) + centre_a.abs() * reach_of(b)) * (4.0 * u)
        error = error * (1.0 + 32.0 * u) + 16.0 * tiny(a.dtype) + dot_error(bias)

        def adjoint(coefficients: Coefficients) -> tuple[Coefficients, ...]:
            shares = (coefficients.values * coefficients.crop(c.unsqueeze(1)) for c in (centre_b, centre_a))
            return tuple(coefficients.with_values(share) for share in shares)

        return LinearEnvelope(adjoint, bias, error, _slack(a, b, a.shape))

    def relax(self, *boxes: Box, around: Box | None = None) -> Relaxation:
        """Return the four planes of McCormick on one box each."""
        places = np.arange(boxes[0].lower.numel())[:, None]
        return _planes(boxes, places, places)

    def rational(self, *x: Rationals, afford: Afford) -> Rationals:
        return x[0] * x[1]

    def program_size(self, view: str, outputs: int, segments: int) -> Size:
        return Size(4 * outputs, 12 * outputs)


@dataclass(frozen=True, eq=False)
class MatrixProduct(_OfTwoNodes):
    """Y = A B for matrices in the last two axes, `(..., n, k)` and `(..., k, m)`; the axes before are the same."""

    kind = "matrix-product"

    # How many products one output sums, known with the shapes: `(..., n, k)`.
    terms: int

    def output_shape(self, *shapes: Shape) -> Shape:
        first, second = shapes
        if min(len(first), len(second)) < 2 or first[:-2] != second[:-2] or first[-1] != second[-2]:
            raise ValueError(f"matrix-product takes (..., n, k) and (..., k, m), got {first} and {second}")
        if first[-1] != self.terms:
            raise ValueError(f"matrix-product of {self.terms} terms does not fit {first} and {second}")
        return (*first[:-1], second[-1])

    def evaluate(self, *x: Tensor) -> Tensor:
        return x[0] @ x[1]

    def fan_in(self) -> int:
        return self.terms

    def interval(self, *boxes: Box) -> Box:
        """Return the sums of the least and of the greatest products, rounded outward."""
        a, b = boxes
        u = unit_roundoff(a.dtype)
        lower = torch.zeros(a.batch, *self.output_shape(a.shape, b.shape), dtype=a.dtype, device=a.lower.device)
        upper, size = torch.zeros_like(lower), torch.zeros_like(lower)
        for j in range(self.terms):
            # One term at a time: all together would be k times the output.
            column = Box.unchecked(a.lower[..., j : j + 1], a.upper[..., j : j + 1])
            row = Box.unchecked(b.lower[..., j : j + 1, :], b.upper[..., j : j + 1, :])
            least, greatest = _corners(column, row)
            lower, upper = lower + least, upper + greatest
            size = size + torch.maximum(least.abs(), greatest.abs())
        error = size * (gamma(self.terms + 8, a.dtype) * (1.0 + 4.0 * (self.terms + 8) * u))
        error = error + (2.0 * self.terms + 16.0) * tiny(a.dtype)
        lower, upper = lower - error, upper + error
        # A sum that overflowed on its way says nothing, whatever its sign.
        return Box.unchecked(
            torch.where(lower.isfinite(), lower, -torch.inf), torch.where(upper.isfinite(), upper, torch.inf)
        )

    def envelope(self, *boxes: Box, slope: Tensor | None = None) -> Envelope:
        a, b = boxes
        (centre_a, radius_a), (centre_b, radius_b) = _parts(a), _parts(b)
        rows, columns, dtype = a.shape[-2], b.shape[-1], a.dtype
        bias = -(centre_a @ centre_b)
        # Coefficients of A sum over the columns of the output, those of B over its rows.
        error = radius_a @ radius_b + (centre_a.abs() @ centre_b.abs()) * gamma(self.terms + 8, dtype)
        error = error + (reach_of(a) @ centre_b.abs()) * gamma(columns + 8, dtype)
        error = error + (centre_a.abs() @ reach_of(b)) * gamma(rows + 8, dtype)
        count = self.terms + rows + columns + 32
        error = error * (1.0 + 4.0 * count * unit_roundoff(dtype)) + 4.0 * count * tiny(dtype) + dot_error(bias)
        shape = self.output_shape(a.shape, b.shape)

        def adjoint(coefficients: Coefficients) -> tuple[Coefficients, ...]:
            values = coefficients.full(shape)
            of_a = values @ centre_b.unsqueeze(1).transpose(-1, -2)
            return Coefficients(of_a), Coefficients(centre_a.unsqueeze(1).transpose(-1, -2) @ values)

        return LinearEnvelope(adjoint, bias, error, _slack(a, b, shape))

    def relax(self, *boxes: Box, around: Box | None = None) -> Relaxation:
        """Return for each output the sums of McCormick's four planes on one box each."""
        a, b = (np.arange(math.prod(box.shape)).reshape(box.shape) for box in boxes)
        shape = (*a.shape[:-1], b.shape[-1], self.terms)
        first = np.broadcast_to(a[..., :, None, :], shape).reshape(-1, self.terms)
        second = np.broadcast_to(b.swapaxes(-1, -2)[..., None, :, :], shape).reshape(-1, self.terms)
        return _planes(boxes, first, second)

    def program_size(self, view: str, outputs: int, segments: int) -> Size:
        return Size(4 * outputs, 4 * outputs * (2 * self.terms + 1))

    def rational(self, *x: Rationals, afford: Afford) -> Rationals:
        afford(PYTHON_COST * math.prod(x[0].shape) * x[1].shape[-1])
        numerators = np.matmul(x[0].numerators, x[1].numerators)
        return Rationals(numerators, x[0].denominator * x[1].denominator).reduced()


def _planes(boxes: tuple[Box, ...], first: np.ndarray, second: np.ndarray) -> Relaxation:
    """Return the planes around sums of products; first, second: places `(outputs, terms)` of the factors, flat.

    Constants are rounded outward; planes of infinite ends are left out.
    """
    ends = [end.detach().flatten().cpu().double().numpy() for box in boxes for end in (box.lower, box.upper)]
    al, au, bl, bu = ends[0][first], ends[1][first], ends[2][second], ends[3][second]
    (count, terms), inputs = first.shape, len(ends[0]) + len(ends[2])
    row, output = np.repeat(np.arange(count), terms), np.arange(count)
    blocks = []
    for a, b, below in ((al, bl, True), (au, bu, True), (al, bu, False), (au, bl, False)):
        with np.errstate(over="ignore", invalid="ignore"):
            product = a * b if below else -(a * b)
        fine = (np.isfinite(product) & np.isfinite(a) & np.isfinite(b)).all(axis=1, keepdims=True)
        # One float past each nearest product, and their sum rounded up.
        bound = sum_up(np.nextafter(np.where(fine, product, 0.0), np.inf))
        bound = np.where(fine[:, 0], bound, np.inf)
        of_first, of_second = np.where(fine, -b, 0.0).reshape(-1), np.where(fine, -a, 0.0).reshape(-1)
        entries = [
            (row, first.reshape(-1), of_first), (row, len(ends[0]) + second.reshape(-1), of_second),
            (output, inputs + output, np.ones(count)),
        ]  # fmt: skip
        blocks.append(Rows(count, entries, -bound if below else -np.inf, np.inf if below else bound))
    return Relaxation(*assembled(blocks, inputs + count))


def _corners(a: Box, b: Box) -> tuple[Tensor, Tensor]:
    """Return the least and the greatest product of two ends, each rounded to the nearest.

    Zero times infinity is zero; what overflows inward is the largest float.
    """
    pairs = [(x, y) for x in (a.lower, a.upper) for y in (b.lower, b.upper)]
    products = [(x * y).nan_to_num(nan=0.0, posinf=torch.inf, neginf=-torch.inf) for x, y in pairs]
    least = torch.minimum(torch.minimum(products[0], products[1]), torch.minimum(products[2], products[3]))
    greatest = torch.maximum(torch.maximum(products[0], products[1]), torch.maximum(products[2], products[3]))
    most = torch.finfo(a.dtype).max
    return least.clamp(max=most), greatest.clamp(min=-most)


def _parts(box: Box) -> tuple[Tensor, Tensor]:
    """Return a point near the middle, and a radius around it that covers the box, rounded up."""
    centre = (box.lower + box.upper) * 0.5
    radius = torch.maximum(box.upper - centre, centre - box.lower)
    return centre, radius * (1.0 + 8.0 * unit_roundoff(box.dtype)) + tiny(box.dtype)


def _slack(a: Box, b: Box, shape: Shape) -> Tensor:
    """Return what underflows of coefficients can move a bound by, `(batch, 1)`."""
    reaches = [reach_of(box).unsqueeze(-1).flatten(1).sum(dim=1, keepdim=True) for box in (a, b)]
    return (reaches[0] + reaches[1] + 1.0) * sum(underflow_slack(part, a.dtype) for part in (a.shape, b.shape, shape))
