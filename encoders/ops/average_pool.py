"""Averages over sliding windows or whole maps."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import scipy
import torch
from torch import Tensor
from torch.nn import functional

from encoders.box import Box, Shape
from encoders.ops.linear import WeightedSum
from encoders.ops.sliding import check_window, plain_products, pooled_shape, spread_window
from encoders.rationals import Afford, Rationals
from encoders.views.coefficients import Coefficients
from encoders.views.relaxation import Relaxation, linear_relaxation
from encoders.views.windows import over_channels, weighted_windows, window_cells


@dataclass(frozen=True, eq=False)
class AveragePool2d(WeightedSum):
    """The mean over windows of `(batch, channels, height, width)`; padding (top, left, bottom, right) is zero.

    count_padding: whether padded zeros count in the divisor.
    """

    kind = "average-pool2d"
    bias = None
    extra_roundings = 2

    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    count_padding: bool = False

    def __post_init__(self) -> None:
        check_window(self.kind, self.kernel, self.stride, self.padding)
        if self.padding[:2] != self.padding[2:]:
            raise ValueError(f"{self.kind} supports symmetric padding only, got {self.padding}")
        if any(2 * p > k for p, k in zip(self.padding[:2], self.kernel, strict=True)):
            raise ValueError(f"{self.kind} supports padding up to half the kernel {self.kernel}, got {self.padding}")

    def output_shape(self, *shapes: Shape) -> Shape:
        return pooled_shape(self.kind, shapes[0], self.kernel, self.stride, self.padding)

    def fan_in(self) -> int:
        return self.kernel[0] * self.kernel[1]

    def fan_out(self) -> int:
        return self.kernel[0] * self.kernel[1]

    def apply(self, x: Tensor) -> Tensor:
        return functional.avg_pool2d(
            x, self.kernel, self.stride, self.padding[:2], count_include_pad=self.count_padding
        )

    def adjoint(self, coefficients: Coefficients, shape: Shape) -> Coefficients:
        values, corner = coefficients.values, coefficients.corner or (0, 0)
        shares = values / coefficients.crop(self._divisors(shape, values))
        if self.kernel == self.stride:
            spread = shares.repeat_interleave(self.kernel[0], dim=-2).repeat_interleave(self.kernel[1], dim=-1)
        else:
            ones = torch.ones(1, 1, *self.kernel, dtype=values.dtype, device=values.device)
            with plain_products(shares):
                spread = functional.conv_transpose2d(shares.flatten(0, 2).unsqueeze(1), ones, None, self.stride)
            spread = spread.squeeze(1).unflatten(0, values.shape[:3])
        return spread_window(spread, corner, self.stride, self.padding, shape)

    def _divisors(self, shape: Shape, like: Tensor) -> Tensor:
        """Return how many values each window divides by, `(1, height, width)`."""
        size = float(self.kernel[0] * self.kernel[1])
        ones = torch.ones(1, *shape[1:], dtype=like.dtype, device=like.device)
        inside = functional.avg_pool2d(ones, self.kernel, self.stride, self.padding[:2], count_include_pad=True)
        return torch.full_like(inside, size) if self.count_padding else (inside * size).round()

    def evaluate(self, *x: Tensor) -> Tensor:
        return self.apply(x[0])

    def error_radius(self, t: Tensor) -> Tensor:
        return self.apply(t) * self.inflation(t.dtype) + 2.0 * self.absolute_error(t.dtype)

    def relax(self, *boxes: Box, around: Box | None = None) -> Relaxation:
        """Return sum of the window - count y = 0, in whole numbers."""
        shape = boxes[0].shape
        counts, cells = self._divisors(shape, boxes[0].lower), self._places(shape)
        sums = weighted_windows(cells, torch.ones(cells.shape, dtype=torch.float64), math.prod(shape))
        return linear_relaxation(sums, np.zeros(1), counts.expand(shape[0], -1, -1).flatten().cpu().numpy())

    def _places(self, shape: Shape) -> Tensor:
        return over_channels(window_cells(shape, self.kernel, self.stride, self.padding), shape[0], shape[1] * shape[2])

    def matrix(self, *shapes: Shape) -> scipy.sparse.csr_array:
        (shape,) = shapes
        area = shape[1] * shape[2]
        cells = self._places(shape)
        ones = torch.ones((1, *shape), dtype=torch.float64)
        # What a window of ones sums to, over what it averages to, is the divisor.
        counts = (cells >= 0).sum(dim=1, keepdim=True) / self.apply(ones).reshape(-1, 1)
        return weighted_windows(cells, (1.0 / counts).expand(cells.shape), shape[0] * area)

    def rational(self, *x: Rationals, afford: Afford) -> Rationals:
        (value,) = x
        places = self._places(value.shape[1:]).numpy()
        present = places >= 0
        values = value.numerators.reshape(value.shape[0], -1)[:, places]
        sums = np.add.reduce(np.where(present, values, 0), axis=2)
        counts = np.full(len(present), self.fan_in()) if self.count_padding else present.sum(axis=1)
        common = math.lcm(*counts.tolist())
        shares = np.array([common // count for count in counts.tolist()], dtype=object)
        shape = self.output_shape(value.shape[1:])
        return Rationals((sums * shares).reshape(-1, *shape), value.denominator * common)


@dataclass(frozen=True, eq=False)
class GlobalAveragePool(WeightedSum):
    """The mean over all axes after the first (channels), which stay with size 1 if `keep_axes`."""

    kind = "global-average-pool"
    bias = None
    extra_roundings = 2

    size: int
    keep_axes: bool = True

    def output_shape(self, *shapes: Shape) -> Shape:
        (shape,) = shapes
        if len(shape) < 2 or int(torch.Size(shape[1:]).numel()) != self.size:
            raise ValueError(f"{self.kind} over {self.size} values does not fit shape {shape}")
        return (shape[0], *[1] * (len(shape) - 1)) if self.keep_axes else (shape[0],)

    def fan_in(self) -> int:
        return self.size

    def fan_out(self) -> int:
        return 1

    def adjoint(self, coefficients: Coefficients, shape: Shape) -> Coefficients:
        kept = (shape[0], *[1] * (len(shape) - 1))
        values = coefficients.full(kept if self.keep_axes else kept[:1])
        return Coefficients((values / self.size).reshape(*values.shape[:2], *kept).expand(*values.shape[:2], *shape))

    def apply(self, x: Tensor) -> Tensor:
        return x.mean(dim=tuple(range(2, x.dim())), keepdim=self.keep_axes)

    def evaluate(self, *x: Tensor) -> Tensor:
        return self.apply(x[0])

    def error_radius(self, t: Tensor) -> Tensor:
        return self.apply(t) * self.inflation(t.dtype) + 2.0 * self.absolute_error(t.dtype)

    def relax(self, *boxes: Box, around: Box | None = None) -> Relaxation:
        """Return sum of the map - size y = 0, in whole numbers."""
        channels = boxes[0].shape[0]
        cells = torch.arange(channels * self.size).reshape(channels, self.size)
        sums = weighted_windows(cells, torch.ones(cells.shape, dtype=torch.float64), cells.numel())
        return linear_relaxation(sums, np.zeros(1), float(self.size))

    def matrix(self, *shapes: Shape) -> scipy.sparse.csr_array:
        channels = shapes[0][0]
        cells = torch.arange(channels * self.size).reshape(channels, self.size)
        weights = torch.full(cells.shape, 1.0 / self.size, dtype=torch.float64)
        return weighted_windows(cells, weights, cells.numel())

    def rational(self, *x: Rationals, afford: Afford) -> Rationals:
        (value,) = x
        sums = np.add.reduce(value.numerators.reshape(*value.shape[:2], -1), axis=2)
        return Rationals(sums.reshape(-1, *self.output_shape(value.shape[1:])), value.denominator * self.size)
