"""Average and maximum over sliding windows or whole maps."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from encoders.box import Box
from encoders.ops.base import LinearOp, Op, Shape
from encoders.ops.convolution import sliding_output


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

    def apply(self, x: Tensor) -> Tensor:
        return functional.avg_pool2d(
            x, self.kernel, self.stride, self.padding[:2], count_include_pad=self.count_padding
        )

    def evaluate(self, *x: Tensor) -> Tensor:
        return self.apply(x[0])

    def error_radius(self, t: Tensor) -> Tensor:
        return self.apply(t) * self.inflation(t.dtype) + 2.0 * self.absolute_error(t.dtype)


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

    def apply(self, x: Tensor) -> Tensor:
        return x.mean(dim=tuple(range(2, x.dim())), keepdim=self.keep_axes)

    def evaluate(self, *x: Tensor) -> Tensor:
        return self.apply(x[0])

    def error_radius(self, t: Tensor) -> Tensor:
        return self.apply(t) * self.inflation(t.dtype) + 2.0 * self.absolute_error(t.dtype)


@dataclass(frozen=True, eq=False)
class MaxPool2d(Op):
    """The maximum over windows of `(batch, channels, height, width)`; padded places never win."""

    kind = "max-pool2d"

    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilation: tuple[int, int] = (1, 1)

    def __post_init__(self) -> None:
        _check_window(self.kind, self.kernel, self.stride, self.padding)

    def output_shape(self, *shapes: Shape) -> Shape:
        result = _pooled_shape(self.kind, shapes[0], self.kernel, self.stride, self.padding, self.dilation)
        for axis in (0, 1):
            size, before = shapes[0][axis + 1], self.padding[axis]
            starts = (i * self.stride[axis] - before for i in range(result[axis + 1]))
            places = range(0, self.kernel[axis] * self.dilation[axis], self.dilation[axis])
            if not all(any(0 <= start + place < size for place in places) for start in starts):
                raise ValueError(f"{self.kind}: padding {self.padding} leaves windows without any input in {shapes[0]}")
        return result

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


def _check_window(
    kind: str, kernel: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int, int, int]
) -> None:
    if min(kernel) < 1 or min(stride) < 1 or min(padding) < 0:
        raise ValueError(f"{kind} needs kernel >= 1, stride >= 1 and padding >= 0")
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
