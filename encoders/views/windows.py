"""Where the cells of sliding windows lie in a flattened map: for the pieces of a maximum, and for sparse matrices."""

from __future__ import annotations

import scipy
import torch
from torch import Tensor

from encoders.box import Shape


def window_cells(
    shape: Shape,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int, int, int],
    dilation: tuple[int, int] = (1, 1),
) -> Tensor:
    """Return the places `(rows * columns of the output, cells)` in one flattened map of a height and width.

    shape: (..., height, width). Cells are in C order of the kernel; a cell in the padding is -1.
    """
    height, width = shape[-2:]
    top, left, bottom, right = padding
    sizes = [
        (size + before + after - d * (k - 1) - 1) // s + 1
        for size, before, after, k, s, d in zip(
            (height, width), (top, left), (bottom, right), kernel, stride, dilation, strict=True
        )
    ]
    rows = torch.arange(sizes[0])[:, None] * stride[0] - top + torch.arange(kernel[0])[None, :] * dilation[0]
    columns = torch.arange(sizes[1])[:, None] * stride[1] - left + torch.arange(kernel[1])[None, :] * dilation[1]
    # Axes: output row, output column, kernel row, kernel column.
    row, column = rows[:, None, :, None], columns[None, :, None, :]
    inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    places = torch.where(inside, row * width + column, -1)
    return places.reshape(sizes[0] * sizes[1], kernel[0] * kernel[1])


def over_channels(places: Tensor, channels: int, area: int) -> Tensor:
    """Return the places of every channel `(channels * windows, cells)` for maps of `area` values; padding stays -1."""
    offset = torch.arange(channels)[:, None, None] * area
    return torch.where(places >= 0, places + offset, -1).reshape(-1, places.shape[1])


def weighted_windows(cells: Tensor, weights: Tensor, inputs: int) -> scipy.sparse.csr_array:
    """Return the matrix `(windows, inputs)` whose row holds the window's weights at its cells; padding is left out."""
    rows = torch.arange(len(cells))[:, None].expand(cells.shape)
    present = cells >= 0
    entries = (weights[present].numpy(), (rows[present].numpy(), cells[present].numpy()))
    return scipy.sparse.csr_array(scipy.sparse.coo_array(entries, shape=(len(cells), inputs)))
