"""Average and maximum over sliding windows or whole maps."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor
from torch.nn import functional

from encoders.box import Box
from encoders.ops.base import LinearOp, Op, Shape
from encoders.ops.convolution import plain_products, sliding_output, spread_window
from encoders.rounding import gamma
from encoders.views.coefficients import Coefficients
from encoders.views.envelope import Envelope, SelectionEnvelope
from encoders.views.exact_window import exact_window
from encoders.views.relaxation import Relaxation, linear_relaxation, window_relaxation
from encoders.views.restriction import Restriction, window_restriction
from encoders.views.windows import over_channels, weighted_windows, window_cells


@dataclass(frozen=True, eq=False)
class AveragePool2d(LinearOp):
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
        _check_window(self.kind, self.kernel, self.stride, self.padding)
        if self.padding[:2] != self.padding[2:]:
            raise ValueError(f"{self.kind} supports symmetric padding only, got {self.padding}")
        if any(2 * p > k for p, k in zip(self.padding[:2], self.kernel, strict=True)):
            raise ValueError(f"{self.kind} supports padding up to half the kernel {self.kernel}, got {self.padding}")

    def output_shape(self, *shapes: Shape) -> Shape:
        return _pooled_shape(self.kind, shapes[0], self.kernel, self.stride, self.padding)

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

    def matrix(self, *shapes: Shape) -> csr_array:
        (shape,) = shapes
        area = shape[1] * shape[2]
        cells = self._places(shape)
        ones = torch.ones((1, *shape), dtype=torch.float64)
        # What a window of ones sums to, over what it averages to, is the divisor.
        counts = (cells >= 0).sum(dim=1, keepdim=True) / self.apply(ones).reshape(-1, 1)
        return weighted_windows(cells, (1.0 / counts).expand(cells.shape), shape[0] * area)


@dataclass(frozen=True, eq=False)
class GlobalAveragePool(LinearOp):
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

    def matrix(self, *shapes: Shape) -> csr_array:
        channels = shapes[0][0]
        cells = torch.arange(channels * self.size).reshape(channels, self.size)
        weights = torch.full(cells.shape, 1.0 / self.size, dtype=torch.float64)
        return weighted_windows(cells, weights, cells.numel())


@dataclass(frozen=True, eq=False)
class MaxPool2d(Op):
    """The maximum over windows of `(batch, channels, height, width)`; padded places never win."""

    kind = "max-pool2d"

    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilation: tuple[int, int] = (1, 1)

    def __post_init__(self) -> None:
        _check_window(self.kind, self.kernel, self.stride, self.padding, self.dilation)

    def output_shape(self, *shapes: Shape) -> Shape:
        result = _pooled_shape(self.kind, shapes[0], self.kernel, self.stride, self.padding, self.dilation)
        if not all(self._sees_input(axis, shapes[0][axis + 1], result[axis + 1]) for axis in (0, 1)):
            raise ValueError(f"{self.kind}: padding {self.padding} leaves windows without any input in {shapes[0]}")
        return result

    def _sees_input(self, axis: int, size: int, outputs: int) -> bool:
        """Return whether every window has a cell in the input along an axis, whatever their number.

        A window that starts inside has one. One that starts in the padding before has `start mod dilation` as its
        first cell that is not before the input, as the padding is less than the kernel.
        """
        stride, dilation, before = self.stride[axis], self.dilation[axis], self.padding[axis]
        if (outputs - 1) * stride - before >= size:
            return False
        if dilation <= size:
            return True
        # Remainders repeat after `dilation` windows; with a dilation beyond the size only tiny kernels fit.
        in_front = min(-(-before // stride), outputs, dilation)
        return all((i * stride - before) % dilation < size for i in range(in_front))

    def evaluate(self, *x: Tensor) -> Tensor:
        (value,) = x
        top, left, bottom, right = self.padding
        if any(self.padding):
            value = functional.pad(value, (left, right, top, bottom), value=-torch.inf)
        return functional.max_pool2d(value, self.kernel, self.stride, 0, self.dilation)

    def interval(self, *boxes: Box) -> Box:
        """Return the exact range: the maximum is monotone in every input and rounds nothing."""
        (box,) = boxes
        return Box.unchecked(self.evaluate(box.lower), self.evaluate(box.upper))

    def restrict(self, *x: Tensor, direction: Tensor | None = None, tolerance: float = 0.0) -> Restriction:
        return self._restriction(x[0], direction, tolerance, with_relu=False)

    def restrict_with_relu(self, x: Tensor, direction: Tensor | None, tolerance: float) -> Restriction:
        """Return the piece of max(0, maximum), which is also the maximum of relus; see `window_restriction`."""
        return self._restriction(x, direction, tolerance, with_relu=True)

    def _restriction(self, x: Tensor, direction: Tensor | None, tolerance: float, with_relu: bool) -> Restriction:
        shape = tuple(x.shape[1:])
        return window_restriction(x, self._places(shape), self.output_shape(shape), direction, tolerance, with_relu)

    def envelope(self, *boxes: Box, slope: Tensor | None = None) -> Envelope:
        """Return each window's input of the greatest lower end as the function below.

        The one above is the same where that input wins on the whole box, else the greatest upper end.
        """
        (box,) = boxes
        lowers, uppers = self._cells(box.lower), self._cells(box.upper)
        lower, chosen = lowers.max(dim=-1)
        upper = uppers.gather(-1, chosen.unsqueeze(-1)).squeeze(-1)
        rival = uppers.scatter(-1, chosen.unsqueeze(-1), -torch.inf).amax(dim=-1)
        reach = torch.maximum(lower.abs(), upper.abs())
        error = reach * gamma(self.kernel[0] * self.kernel[1] + 8, box.dtype)

        def scatter(coefficients: Coefficients) -> Coefficients:
            return self._scatter(coefficients, chosen, box.shape)

        return SelectionEnvelope(scatter, (lower >= rival).to(box.dtype), uppers.amax(dim=-1), error)

    def relax(self, *boxes: Box, around: Box | None = None) -> Relaxation:
        (box,) = boxes
        outer = box if around is None else around
        ends = (outer.lower.flatten(), outer.upper.flatten())
        return window_relaxation(box.lower.flatten(), ends, self._places(box.shape))

    def exact(self, *boxes: Box, segments: int = 1) -> Relaxation:
        (box,) = boxes
        lower, upper = (end.flatten().cpu().numpy() for end in (box.lower, box.upper))
        return exact_window(lower, upper, self._places(box.shape).numpy())

    def open_units(self, box: Box) -> Tensor:
        return box.lower < box.upper

    def _places(self, shape: Shape) -> Tensor:
        """Return the places `(windows, cells)` in the flattened input, -1 in the padding."""
        cells = window_cells(shape, self.kernel, self.stride, self.padding, self.dilation)
        return over_channels(cells, shape[0], shape[1] * shape[2])

    def _cells(self, x: Tensor) -> Tensor:
        """Return the values of each window `(batch, channels, height, width, cells)`, -inf in the padding."""
        top, left, bottom, right = self.padding
        x = functional.pad(x, (left, right, top, bottom), value=-torch.inf)
        for axis in (0, 1):
            reach = (self.kernel[axis] - 1) * self.dilation[axis] + 1
            x = x.unfold(axis + 2, reach, self.stride[axis])
        return x[..., :: self.dilation[0], :: self.dilation[1]].flatten(4)

    def _scatter(self, coefficients: Coefficients, chosen: Tensor, shape: Shape) -> Coefficients:
        """Return the coefficients of the input where each output's goes to its chosen cell."""
        values, corner = coefficients.values, coefficients.corner or (0, 0)
        cell = coefficients.crop(chosen)
        extents, places = [], []
        for axis, step in ((0, cell // self.kernel[1]), (1, cell % self.kernel[1])):
            count = values.shape[axis - 2]
            extents.append((count - 1) * self.stride[axis] + (self.kernel[axis] - 1) * self.dilation[axis] + 1)
            start = torch.arange(count, device=values.device) * self.stride[axis]
            places.append(step * self.dilation[axis] + (start[:, None] if axis == 0 else start))
        index = (places[0] * extents[1] + places[1]).flatten(2).unsqueeze(1).expand(*values.shape[:3], -1)
        spread = torch.zeros(*values.shape[:3], extents[0] * extents[1], dtype=values.dtype, device=values.device)
        spread = spread.scatter_add(3, index, values.flatten(3)).unflatten(3, extents)
        return spread_window(spread, corner, self.stride, self.padding, shape)


def _check_window(
    kind: str,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int, int, int],
    dilation: tuple[int, int] = (1, 1),
) -> None:
    if min(kernel) < 1 or min(stride) < 1 or min(padding) < 0 or min(dilation) < 1:
        raise ValueError(f"{kind} needs kernel >= 1, stride >= 1, dilation >= 1 and padding >= 0")
    if max(padding[0], padding[2]) >= kernel[0] or max(padding[1], padding[3]) >= kernel[1]:
        raise ValueError(f"{kind}: padding {padding} leaves windows without any input (kernel {kernel})")


def _pooled_shape(
    kind: str,
    shape: Shape,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int, int, int],
    dilation: tuple[int, int] = (1, 1),
) -> Shape:
    if len(shape) != 3:
        raise ValueError(f"{kind} takes shape (channels, height, width), got {shape}")
    return (shape[0], *sliding_output((shape[1], shape[2]), kernel, stride, padding, dilation))
