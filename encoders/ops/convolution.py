"""Two-dimensional convolution (cross-correlation, as in every deep-learning framework)."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy
import torch
from torch import Tensor
from torch.nn import functional

from encoders.box import Shape
from encoders.ops.linear import WeightedSum
from encoders.ops.sliding import plain_products, sliding_output, spread_window
from encoders.rationals import Afford, Rationals, join, product
from encoders.views.coefficients import Coefficients
from encoders.views.windows import over_channels, weighted_windows, window_cells

# Bytes of the products of a piece of a transposed convolution.
TRANSPOSED_BYTES = 2**19


@dataclass(frozen=True, eq=False)
class Conv2d(WeightedSum):
    """Cross-correlation of `(batch, channels, height, width)` with zero padding.

    weight: `(outputs, channels // groups, rows, columns)`; bias `(outputs,)` or None; padding in the order
    (top, left, bottom, right), as ONNX writes it.
    """

    kind = "conv2d"

    weight: Tensor
    bias: Tensor | None = None
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1

    def __post_init__(self) -> None:
        if self.weight.dim() != 4:
            raise ValueError(f"conv2d weight must have 4 axes, got shape {tuple(self.weight.shape)}")
        if self.bias is not None and tuple(self.bias.shape) != (self.weight.shape[0],):
            raise ValueError(f"conv2d bias {tuple(self.bias.shape)} does not fit {self.weight.shape[0]} channels")
        if self.groups < 1 or self.weight.shape[0] % self.groups:
            raise ValueError(f"conv2d has {self.weight.shape[0]} output channels in {self.groups} groups")
        if min(self.stride) < 1 or min(self.dilation) < 1 or min(self.padding) < 0:
            raise ValueError("conv2d needs stride >= 1, dilation >= 1 and padding >= 0")

    def output_shape(self, *shapes: Shape) -> Shape:
        (shape,) = shapes
        channels = int(self.weight.shape[1]) * self.groups
        if len(shape) != 3 or shape[0] != channels:
            raise ValueError(f"conv2d takes shape ({channels}, height, width), got {shape}")
        return (
            int(self.weight.shape[0]),
            *sliding_output(
                (shape[1], shape[2]),
                (int(self.weight.shape[2]), int(self.weight.shape[3])),
                self.stride,
                self.padding,
                self.dilation,
            ),
        )

    def fan_in(self) -> int:
        return int(self.weight[0].numel())

    def evaluate(self, *x: Tensor) -> Tensor:
        return self._convolve(x[0], self.weight, self.bias)

    def fan_out(self) -> int:
        return int(self.weight.shape[0] // self.groups * self.weight.shape[2] * self.weight.shape[3])

    def apply(self, x: Tensor) -> Tensor:
        return self._convolve(x, self.weight, None)

    def adjoint(self, coefficients: Coefficients, shape: Shape) -> Coefficients:
        values, corner = coefficients.values, coefficients.corner or (0, 0)
        spread = self._transposed(values.flatten(0, 1)).unflatten(0, values.shape[:2])
        return spread_window(spread, corner, self.stride, self.padding, shape)

    def _transposed(self, x: Tensor) -> Tensor:
        """Return the transposed convolution `(rows, channels, height, width)`, without padding.

        In float64 on a processor torch runs it one row at a time; products of a few rows that stay in the cache take
        half the time.
        """
        if x.device.type != "cpu" or x.dtype != torch.float64 or self.groups > 1:
            with plain_products(x):
                return functional.conv_transpose2d(x, self.weight, None, self.stride, 0, 0, self.groups, self.dilation)
        kernel = (int(self.weight.shape[2]), int(self.weight.shape[3]))
        height, width = ((x.shape[i + 2] - 1) * self.stride[i] + (kernel[i] - 1) * self.dilation[i] + 1 for i in (0, 1))
        weight = self.weight.flatten(1).t()
        if (height, width) == kernel:
            return (x.flatten(1) @ weight.t()).view(x.shape[0], -1, *kernel)
        step = max(1, TRANSPOSED_BYTES // (8 * weight.shape[0] * x.shape[2] * x.shape[3]))
        parts = [
            functional.fold(
                torch.matmul(weight, part.flatten(2)), (height, width), kernel, self.dilation, 0, self.stride
            )
            for part in x.split(step)
        ]
        return torch.cat(parts) if len(parts) > 1 else parts[0]

    @cached_property
    def _absolute_weight(self) -> Tensor:
        return self.weight.abs()

    @cached_property
    def _error_bias(self) -> Tensor:
        error = self.inflated_bias(self.bias, self.weight.dtype, self.weight.device)
        return error.expand(self.weight.shape[0]).contiguous()

    def error_radius(self, t: Tensor) -> Tensor:
        # Inflating t rather than the weights: a subnormal weight would not grow.
        return self._convolve(t * self.inflation(t.dtype), self._absolute_weight, self._error_bias)

    def matrix(self, *shapes: Shape) -> scipy.sparse.csr_array:
        (shape,) = shapes
        outputs, group = int(self.weight.shape[0]), int(self.weight.shape[1])
        kernel = (int(self.weight.shape[2]), int(self.weight.shape[3]))
        places = window_cells(shape, kernel, self.stride, self.padding, self.dilation)
        area = shape[1] * shape[2]
        # Axes: channel, window, cell; then for each output its group's channels side by side.
        by_channel = over_channels(places, shape[0], area).reshape(shape[0], *places.shape)
        cells = by_channel.reshape(self.groups, group, *places.shape).transpose(1, 2).flatten(2)
        cells = cells.repeat_interleave(outputs // self.groups, dim=0)
        weights = self.weight.to(device="cpu", dtype=torch.float64).flatten(1)[:, None, :].expand(cells.shape)
        return weighted_windows(cells.flatten(0, 1), weights.flatten(0, 1), shape[0] * area)

    def _convolve(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        top, left, bottom, right = self.padding
        if (top, left) != (bottom, right):
            x = functional.pad(x, (left, right, top, bottom))
            top = left = 0
        with plain_products(x):
            return functional.conv2d(x, weight, bias, self.stride, (top, left), self.dilation, self.groups)

    def trusted_error(self, size: Tensor, *x: Tensor) -> Tensor:
        """Return the greatest of each channel: convolutions by transformed tiles (Winograd) mix its pixels."""
        return size.amax(dim=(2, 3), keepdim=True).expand_as(size)

    def rational(self, *x: Rationals, afford: Afford) -> Rationals:
        (value,) = x
        kernel = (int(self.weight.shape[2]), int(self.weight.shape[3]))
        height, width = self.output_shape(value.shape[1:])[1:]
        cells = window_cells(value.shape[1:], kernel, self.stride, self.padding, self.dilation).numpy()
        # Axes: batch, channel, window, cell; the last place of a flattened map is the padding's.
        maps = value.numerators.reshape(*value.shape[:2], -1)
        padded = np.concatenate([maps, np.zeros_like(maps[:, :, :1])], axis=2)[:, :, cells]
        inputs, outputs = int(self.weight.shape[1]), int(self.weight.shape[0]) // self.groups
        parts = []
        for group in range(self.groups):
            windows = padded[:, group * inputs : (group + 1) * inputs].transpose(0, 2, 1, 3)
            windows = windows.reshape(*windows.shape[:2], -1)
            weight = self.weight[group * outputs : (group + 1) * outputs].flatten(1)
            parts.append(product(Rationals(windows, value.denominator), weight, afford))
        result = functools.reduce(functools.partial(join, axis=2), parts)
        if self.bias is not None:
            result = result + Rationals.of(self.bias)
        return result.map(lambda n: n.transpose(0, 2, 1).reshape(n.shape[0], -1, height, width))
