"""Transposed convolutions as ordinary ones whose outputs are interleaved: no zeros are inserted, no weight is changed.

With stride s, output place o s away from a tap j d is o = i s + j d - p for input place i. Outputs of one phase
r = (o + p) mod s see the taps with j d = q s + r, at input places t - q for (o + p) = t s + r: a convolution with the
taps in reverse order of q. Its s phases along each axis are channels, which move between the places (Shi et al. 2016).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from encoders.formats.graph import Value
from encoders.formats.windows import ONE_PLACE, Call, Part, Windows, shaped, taps, toeplitz
from encoders.ops import Conv2d


def transposed_outputs(windows: Windows, sizes: Sequence[int], extra: Sequence[int]) -> tuple[int, ...]:
    """Return the output's sizes; extra: places at the end that no tap need reach (output_padding)."""
    return tuple(
        (size - 1) * step + reach + more - before - after
        for size, step, reach, more, before, after in zip(
            sizes, windows.stride, windows.reach, extra, windows.before, windows.after, strict=True
        )
    )


def transposed_convolution(
    node: Call, x: Value, weight: Tensor, bias: Tensor | None, windows: Windows, extra: Sequence[int], groups: int
) -> Value:
    """Return the adjoint of a cross-correlation, plus bias; weight: `(channels, outputs // groups, *kernel)`.

    windows: those that slide over the output, with the padding that is cut off; extra: output_padding.
    """
    axes, shape = len(windows.kernel), x.shape
    node.graph.require_batch(x, axes + 2)
    _check(weight, bias, shape, windows, extra, groups)
    sizes = transposed_outputs(windows, shape[2:], extra)
    if min(sizes) < 1:
        raise ValueError(f"the result of sizes {sizes} is empty")
    if axes == 2:
        return _interleaved(node, x, weight, bias, windows, sizes, groups)
    if axes == 1:
        flat = shaped(node, x, (1, shape[1], 1, shape[2]), "input")
        weight, windows = weight.unsqueeze(2), windows.beside(ONE_PLACE)
        sizes_of_maps = (1, *sizes)
    else:
        flat = shaped(node, x, (1, shape[1] * shape[2], *shape[3:]), "input")
        weight = toeplitz(node, weight, taps(windows, shape[2], sizes[0]), sizes[0], shape[2])
        bias = None if bias is None else bias.repeat_interleave(sizes[0])
        windows, sizes_of_maps = windows.axes(1, 2), sizes[1:]
    result = _interleaved(Part(node, "windows"), flat, weight, bias, windows, sizes_of_maps, groups)
    return shaped(node, result, (1, -1, *sizes))


def _check(
    weight: Tensor, bias: Tensor | None, shape: Sequence[int], windows: Windows, extra: Sequence[int], groups: int
) -> None:
    channels, outputs = int(weight.shape[0]), int(weight.shape[1])
    if channels != shape[1] or groups < 1 or channels % groups:
        raise ValueError(f"a kernel of shape {tuple(weight.shape)} in {groups} groups does not fit {tuple(shape)}")
    if bias is not None and tuple(bias.shape) != (outputs * groups,):
        raise ValueError(f"a bias of shape {tuple(bias.shape)} does not fit {outputs * groups} channels")
    if min(*windows.stride, *windows.dilation) < 1 or min(*windows.before, *windows.after, *extra) < 0:
        raise ValueError("needs strides and dilations of at least 1, and no negative padding")
    if any(
        more >= max(step, spread) for more, step, spread in zip(extra, windows.stride, windows.dilation, strict=True)
    ):
        raise ValueError(f"output_padding {tuple(extra)} must be less than the stride or the dilation")


def _interleaved(
    node: Call, x: Value, weight: Tensor, bias: Tensor | None, windows: Windows, sizes: Sequence[int], groups: int
) -> Value:
    """Return the transposed convolution over two axes, with outputs of the sizes."""
    stride = windows.stride
    phases = stride[0] * stride[1]
    kernel = _phases(node, weight, windows, groups)
    last = [int(size) - 1 for size in kernel.shape[2:]]
    # Places of the output from `before` on are asked for; where no tap reaches any more, windows see padding alone.
    counts = [-(-(windows.before[i] + sizes[i]) // stride[i]) for i in (0, 1)]
    after = [max(last[i], counts[i] - x.shape[i + 2]) for i in (0, 1)]
    bias = None if bias is None else bias.repeat_interleave(phases)
    op = Conv2d(kernel, bias, (1, 1), (last[0], last[1], after[0], after[1]), (1, 1), groups)
    result = node.emit(op, x, part="phases")
    height, width = result.shape[2:]
    graph, channels = node.graph, result.shape[1] // phases
    if phases > 1:
        result = shaped(node, result, (1, channels, *stride, height, width), "split")
        result = graph.transpose(f"{node.name}/interleaved", result, (0, 1, 4, 2, 5, 3))
        result = shaped(node, result, (1, channels, height * stride[0], width * stride[1]), "maps")
    for i in (0, 1):
        start, stop = windows.before[i], windows.before[i] + sizes[i]
        result = graph.slice(node.name if i else f"{node.name}/rows", result, i + 2, start, stop, 1)
    return result


def _phases(node: Call, weight: Tensor, windows: Windows, groups: int) -> Tensor:
    """Return the kernel `(outputs * phases, channels // groups, taps, taps)` of the module docstring."""
    inputs, outputs = int(weight.shape[0]) // groups, int(weight.shape[1])
    stride, dilation, kernel = windows.stride, windows.dilation, windows.kernel
    last = [(kernel[i] - 1) * dilation[i] // stride[i] for i in (0, 1)]
    size = groups * outputs * stride[0] * stride[1] * inputs * (last[0] + 1) * (last[1] + 1)
    node.graph.limits.check("constant_bytes", size * weight.element_size(), f"node {node.name!r}: its kernels")
    result = torch.zeros(groups, outputs, *stride, inputs, last[0] + 1, last[1] + 1, dtype=weight.dtype)
    grouped = weight.reshape(groups, inputs, outputs, *kernel).transpose(1, 2)
    for row in range(kernel[0]):
        for column in range(kernel[1]):
            (down, top), (right, left) = divmod(row * dilation[0], stride[0]), divmod(column * dilation[1], stride[1])
            result[:, :, top, left, :, last[0] - down, last[1] - right] = grouped[..., row, column]
    return result.reshape(groups * outputs * stride[0] * stride[1], inputs, last[0] + 1, last[1] + 1)
