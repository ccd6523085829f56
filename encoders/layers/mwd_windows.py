"""A layer on vectors slid over images: what a convolutional MWD layer is made of.

Padded places take no part in a window, as if their weight u were 0: a zero would be an input at distance w. So the
windows that reach over an edge have fewer inputs than the others. Windows with the same places on the image are
taken together, as rows of one batch, and go to the dense kernels with the weights of these places.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

# Takes the kernel rows and columns that lie on the image and the windows `(batch * positions, channels * places)` of
# each input; returns values `(batch * positions, units)`.
WindowLayer = Callable[[slice, slice, Sequence[Tensor]], Sequence[Tensor]]


@dataclass(frozen=True)
class Span:
    """Neighbouring positions of a kernel along one axis that have the same places on the image.

    places: of the kernel; inputs: what they cover together; count: how many positions.
    """

    places: slice
    inputs: slice
    count: int


def spans(size: int, kernel: int, stride: int, before: int, after: int) -> list[Span]:
    """Return the positions of a kernel along an axis of `size` inputs, padded at both ends by less than the kernel."""
    result: list[Span] = []
    for start in range(-before, size + after - kernel + 1, stride):
        first, last = max(0, -start), min(kernel, size - start)
        covered = slice(start + first, start + last)
        if result and result[-1].places == slice(first, last):
            previous = result.pop()
            result.append(Span(previous.places, slice(previous.inputs.start, covered.stop), previous.count + 1))
        else:
            result.append(Span(slice(first, last), covered, 1))
    return result


def crop(weight: Tensor, rows: slice, columns: slice) -> Tensor:
    """Return the weights `(outputs, channels, rows, columns)` at some places, as a matrix `(outputs, inputs)`."""
    return weight[:, :, rows, columns].flatten(1)


def over_windows(
    images: Sequence[Tensor],
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int, int, int],
    layer: WindowLayer,
) -> list[Tensor]:
    """Return the layer's values at all positions, each `(batch, units, rows, columns)`; differentiable.

    images: `(batch, channels, height, width)` of one shape; padding: (top, left, bottom, right), below the kernel.
    """
    batch, _, height, width = images[0].shape
    top, left, bottom, right = padding
    bands: list[list[Tensor]] = []
    for vertical in spans(height, kernel[0], stride[0], top, bottom):
        cells: list[list[Tensor]] = []
        for horizontal in spans(width, kernel[1], stride[1], left, right):
            windows = [_windows(image, vertical, horizontal, stride) for image in images]
            values = layer(vertical.places, horizontal.places, windows)
            grids = [value.reshape(batch, vertical.count, horizontal.count, value.shape[-1]) for value in values]
            cells.append([grid.permute(0, 3, 1, 2) for grid in grids])
        bands.append([torch.cat(parts, dim=3) for parts in zip(*cells, strict=True)])
    return [torch.cat(parts, dim=2) for parts in zip(*bands, strict=True)]


def _windows(image: Tensor, vertical: Span, horizontal: Span, stride: tuple[int, int]) -> Tensor:
    """Return the windows of one group as rows, `(batch * positions, channels * places)`."""
    part = image[:, :, vertical.inputs, horizontal.inputs]
    sizes = [span.places.stop - span.places.start for span in (vertical, horizontal)]
    opened = part.unfold(2, sizes[0], stride[0]).unfold(3, sizes[1], stride[1])
    rows: Tensor = opened.permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(0, 2)
    return rows


def place_index(
    shape: tuple[int, int, int], kernel: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int, int, int]
) -> Tensor:
    """Return `(positions, inputs of a window)`: which flat input each place reads, the number of inputs if none."""
    top, left, bottom, right = padding
    count = shape[0] * shape[1] * shape[2]
    numbers = torch.arange(count).reshape(1, *shape)
    padded = torch.nn.functional.pad(numbers, (left, right, top, bottom), value=count)
    opened = padded.unfold(2, kernel[0], stride[0]).unfold(3, kernel[1], stride[1])
    rows: Tensor = opened.permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(0, 2)
    return rows
