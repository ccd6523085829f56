"""Windows that slide over `(batch, channels, height, width)`: what convolutions and pools share."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from encoders.box import Shape
from encoders.views.coefficients import Coefficients, Corner


def plain_products(x: Tensor) -> AbstractContextManager[object]:
    """Return a context in which a float64 convolution is a sum of products.

    The error bound of `WeightedSum` does not hold for Winograd and FFT algorithms, which cuDNN may choose.
    """
    if x.is_cuda and x.dtype == torch.float64:
        flags: Callable[..., AbstractContextManager[object]] = torch.backends.cudnn.flags
        return flags(enabled=False)
    return nullcontext()


def spread_window(
    spread: Tensor, corner: Corner, stride: tuple[int, int], padding: tuple[int, int, int, int], shape: Shape
) -> Coefficients:
    """Return the coefficients that a sliding window's adjoint gives, cut to the input.

    spread: `(..., height, width)`, the adjoint of the outputs from `corner` on, padded places included.
    """
    top, left = (corner[i] * stride[i] - padding[i] for i in (0, 1))
    rows = slice(max(0, -top), min(spread.shape[-2], shape[1] - top))
    columns = slice(max(0, -left), min(spread.shape[-1], shape[2] - left))
    if rows.start >= rows.stop or columns.start >= columns.stop:
        # Outputs that see padding alone depend on nothing: one cell with zeros stands for that.
        return Coefficients(torch.zeros_like(spread[..., :1, :1]), (0, 0))
    return Coefficients(spread[..., rows, columns], (max(0, top), max(0, left)))


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


def check_window(
    kind: str,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int, int, int],
    dilation: tuple[int, int] = (1, 1),
) -> None:
    """Return nothing; raise ValueError where a pool's window cannot slide, or can lie in the padding alone."""
    if min(kernel) < 1 or min(stride) < 1 or min(padding) < 0 or min(dilation) < 1:
        raise ValueError(f"{kind} needs kernel >= 1, stride >= 1, dilation >= 1 and padding >= 0")
    if max(padding[0], padding[2]) >= kernel[0] or max(padding[1], padding[3]) >= kernel[1]:
        raise ValueError(f"{kind}: padding {padding} leaves windows without any input (kernel {kernel})")


def pooled_shape(
    kind: str,
    shape: Shape,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int, int, int],
    dilation: tuple[int, int] = (1, 1),
) -> Shape:
    """Return the output's shape of a pool over maps of a shape; raise ValueError if it does not fit."""
    if len(shape) != 3:
        raise ValueError(f"{kind} takes shape (channels, height, width), got {shape}")
    return (shape[0], *sliding_output((shape[1], shape[2]), kernel, stride, padding, dilation))
