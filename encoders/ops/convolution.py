"""Two-dimensional convolution (cross-correlation, as in every deep-learning framework)."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional

from encoders.ops.base import LinearOp, Shape


@dataclass(frozen=True, eq=False)
class Conv2d(LinearOp):
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

    def apply(self, x: Tensor) -> Tensor:
        return self._convolve(x, self.weight, None)

    @cached_property
    def _absolute_weight(self) -> Tensor:
        return self.weight.abs() * self.inflation(self.weight.dtype)

    @cached_property
    def _error_bias(self) -> Tensor:
        error = self.inflated_bias(self.bias, self.weight.dtype, self.weight.device)
        return error.expand(self.weight.shape[0]).contiguous()

    def error_radius(self, t: Tensor) -> Tensor:
        return self._convolve(t, self._absolute_weight, self._error_bias)

    def _convolve(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        top, left, bottom, right = self.padding
        if (top, left) != (bottom, right):
            x = functional.pad(x, (left, right, top, bottom))
            top = left = 0
        with _plain_products(x):
            return functional.conv2d(x, weight, bias, self.stride, (top, left), self.dilation, self.groups)


def _plain_products(x: Tensor) -> AbstractContextManager[object]:
    """Return a context in which a float64 convolution is a sum of products.

    The error bound of `LinearOp` does not hold for Winograd and FFT algorithms, which cuDNN may choose.
    """
    if x.is_cuda and x.dtype == torch.float64:
        flags: Callable[..., AbstractContextManager[object]] = torch.backends.cudnn.flags
        return flags(enabled=False)
    return nullcontext()


def sliding_output(
    size: tuple[int, int],
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int, int, int],
    dilation: tuple[int, int] = (1, 1),
) -> tuple[int, int]:
    """Return (height, width) of a sliding window's output, rounded down; raise ValueError if it is empty."""
    top, left, bottom, right = padding
    padded = (size[0] + top + bottom, size[1] + left + right)
    result = [(p - d * (k - 1) - 1) // s + 1 for p, k, s, d in zip(padded, kernel, stride, dilation, strict=True)]
    if min(result) < 1:
        raise ValueError(f"a window of {kernel} does not fit an input of {size} with padding {padding}")
    return result[0], result[1]
