"""Sums along axes."""

from __future__ import annotations

import math
from dataclasses import dataclass

import scipy
import torch
from torch import Tensor

from encoders.box import Shape
from encoders.ops.linear import WeightedSum
from encoders.rationals import Afford, Rationals
from encoders.views.coefficients import Coefficients
from encoders.views.windows import weighted_windows


@dataclass(frozen=True, eq=False)
class AxisSum(WeightedSum):
    """The sum over axes, the batch not counted; they stay with size 1 if `keep_axes`. size: how many values are added.

    A mean is this and a division by the size.
    """

    kind = "axis-sum"
    bias = None

    axes: tuple[int, ...]
    size: int
    keep_axes: bool = False

    def __post_init__(self) -> None:
        if not self.axes or list(self.axes) != sorted(set(self.axes)) or self.axes[0] < 0 or self.size < 1:
            raise ValueError(f"{self.kind}: axes {self.axes} must rise, and {self.size} values be at least one")

    def output_shape(self, *shapes: Shape) -> Shape:
        (shape,) = shapes
        if self.axes[-1] >= len(shape) or math.prod(shape[axis] for axis in self.axes) != self.size:
            raise ValueError(f"{self.kind}: axes {self.axes} with {self.size} values do not fit shape {shape}")
        if self.keep_axes:
            return self._kept(shape)
        return tuple(size for axis, size in enumerate(shape) if axis not in self.axes)

    def _kept(self, shape: Shape) -> Shape:
        return tuple(1 if axis in self.axes else size for axis, size in enumerate(shape))

    def fan_in(self) -> int:
        return self.size

    def fan_out(self) -> int:
        return 1

    def apply(self, x: Tensor) -> Tensor:
        return x.sum(dim=[axis + 1 for axis in self.axes], keepdim=self.keep_axes)

    def evaluate(self, *x: Tensor) -> Tensor:
        return self.apply(x[0])

    def error_radius(self, t: Tensor) -> Tensor:
        return self.apply(t) * self.inflation(t.dtype) + 2.0 * self.absolute_error(t.dtype)

    def adjoint(self, coefficients: Coefficients, shape: Shape) -> Coefficients:
        values = coefficients.full(self.output_shape(shape))
        batch, rows = values.shape[:2]
        return Coefficients(values.reshape(batch, rows, *self._kept(shape)).expand(batch, rows, *shape))

    def matrix(self, *shapes: Shape) -> scipy.sparse.csr_array:
        (shape,) = shapes
        cells = torch.arange(math.prod(shape)).reshape(shape)
        cells = cells.movedim(self.axes, tuple(range(-len(self.axes), 0))).reshape(-1, self.size)
        return weighted_windows(cells, torch.ones(cells.shape, dtype=torch.float64), cells.numel())

    def rational(self, *x: Rationals, afford: Afford) -> Rationals:
        axes = tuple(axis + 1 for axis in self.axes)
        return x[0].map(lambda n: n.sum(axis=axes, keepdims=self.keep_axes))
