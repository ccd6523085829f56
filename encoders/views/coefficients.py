"""Rows of linear functions of a node's value: what backward linear bound propagation carries through the graph."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional

from encoders.box import Box, Shape
from encoders.rounding import gamma, tiny, unit_roundoff

# Places of a row and a column in the last two axes of a node's shape.
Corner = tuple[int, int]


@dataclass(frozen=True, eq=False)
class Coefficients:
    """For each input of a batch, rows of linear functions sum over units of `values * y` of a node's value y.

    values: `(batch, rows, *shape)`, or a part of the shape outside which they are zero. corner: the part is the window
    of the last two axes (height, width) that starts there, as a unit of a convolution sees a patch only. units: the
    part is these units of a shape with one axis, as inactive units pass nothing on.
    """

    values: Tensor
    corner: Corner | None = None
    units: Tensor | None = None

    @property
    def rows(self) -> tuple[int, int]:
        """Return (batch, rows)."""
        return int(self.values.shape[0]), int(self.values.shape[1])

    def with_values(self, values: Tensor) -> Coefficients:
        """Return other values of the same part."""
        return Coefficients(values, self.corner, self.units)

    def crop(self, x: Tensor) -> Tensor:
        """Return the part of `(..., *shape)` that the values stand for."""
        if self.units is not None:
            return x.index_select(-1, self.units)
        if self.corner is None:
            return x
        (top, left), (height, width) = self.corner, self.values.shape[-2:]
        return x[..., top : top + height, left : left + width]

    def only(self, units: Tensor) -> Coefficients:
        """Return the part with the given units of a shape with one axis."""
        if self.units is not None or self.corner is not None:
            return self
        return Coefficients(self.values.index_select(-1, units), None, units)

    def full(self, shape: Shape) -> Tensor:
        """Return the values `(batch, rows, *shape)`, zeros included."""
        if self.units is not None:
            zeros = torch.zeros(*self.values.shape[:2], *shape, dtype=self.values.dtype, device=self.values.device)
            return zeros.index_copy(2, self.units, self.values)
        if self.corner is None:
            return self.values
        return self._within((0, 0), (shape[-2], shape[-1]))

    def dot(self, x: Tensor) -> Tensor:
        """Return the sums `(batch, rows)` of values times x `(batch, *shape)`, in floating point."""
        vector = self.crop(x).unsqueeze(-1).flatten(1).unsqueeze(2)
        return torch.bmm(self.values.unsqueeze(-1).flatten(2), vector).squeeze(2)

    def __abs__(self) -> Coefficients:
        """Return the absolute values."""
        return self.with_values(self.values.abs())

    def plus(self, other: Coefficients, shape: Shape) -> Coefficients:
        """Return the sum, rounded to nearest; its window covers both."""
        if self.corner is None or other.corner is None:
            return Coefficients(self.full(shape) + other.full(shape))
        parts = (self, other)
        corners = (self.corner, other.corner)
        corner = (min(c[0] for c in corners), min(c[1] for c in corners))
        ends = [max(c[i] + part.values.shape[i - 2] for c, part in zip(corners, parts, strict=True)) for i in (0, 1)]
        first, second = (part._within(corner, (ends[0] - corner[0], ends[1] - corner[1])) for part in parts)
        return Coefficients(first + second, corner)

    def _within(self, corner: Corner, size: tuple[int, int]) -> Tensor:
        """Return the values in a larger window, zero around them."""
        assert self.corner is not None
        top, left = (self.corner[i] - corner[i] for i in (0, 1))
        height, width = self.values.shape[-2:]
        padding = (left, size[1] - left - width, top, size[0] - top - height)
        return functional.pad(self.values, padding) if any(padding) else self.values


def terms(shape: Shape) -> int:
    """Return the number of products in a sum over the units of a shape."""
    return max(1, math.prod(shape))


def dot_error(x: Tensor) -> Tensor:
    """Return e `(batch, *shape)` with |fl(c . x) - c . x| <= |c| . e, for sums in any order (Higham 2002, Lemma 3.1).

    gamma_(n+8) where gamma_n would do leaves room for the addition of a few such sums.
    """
    return x.abs() * gamma(terms(tuple(x.shape[1:])) + 8, x.dtype)


def inflated(error: Tensor) -> Tensor:
    """Return e' with fl(|c| . e') >= |c| . e for any coefficients c: the roundings of the sum and its underflows.

    e: `(batch, *shape)`, not negative, may itself be rounded a few times.
    """
    count = terms(tuple(error.shape[1:]))
    factor = 1.0 + 2.0 * (count + 12) * unit_roundoff(error.dtype)
    return error * factor + (2.0 * count + 16.0) * tiny(error.dtype)


def underflow_slack(shape: Shape, dtype: torch.dtype) -> float:
    """Return more than what the underflows of a few sums over a shape can add up to, beside `inflated` errors."""
    return (4.0 * terms(shape) + 32.0) * tiny(dtype)


@dataclass(frozen=True, eq=False)
class BoxMinimum:
    """The least values of linear functions over a batch of boxes, prepared once for many rows.

    min of c . y over the box is c . centre - |c| . radius; the radius is rounded up and holds every error.
    """

    box: Box

    def __call__(self, coefficients: Coefficients) -> Tensor:
        """Return lower bounds `(batch, rows)`; one that is undefined (infinite ends, overflow) is minus infinity."""
        bound = coefficients.dot(self._centre) - abs(coefficients).dot(self._radius)
        bound = bound - underflow_slack(self.box.shape, self.box.dtype)
        return bound.nan_to_num(nan=-torch.inf, posinf=-torch.inf, neginf=-torch.inf)

    @cached_property
    def _centre(self) -> Tensor:
        return (self.box.lower + self.box.upper) * 0.5

    @cached_property
    def _radius(self) -> Tensor:
        radius = torch.maximum(self.box.upper - self._centre, self._centre - self.box.lower)
        radius = radius * (1.0 + 8.0 * unit_roundoff(self.box.dtype)) + tiny(self.box.dtype)
        return inflated(radius + dot_error(self._centre) + dot_error(radius))
