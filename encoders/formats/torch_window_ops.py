"""Torch operators that slide windows over one to three axes, or pool to a size."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from encoders.formats.graph import Value
from encoders.formats.reductions import mean_over
from encoders.formats.torch_node import TorchNode
from encoders.formats.transposed_windows import transposed_convolution
from encoders.formats.windows import Part, Sizes, Windows, average_pool, check_matrices, max_pool, weighted_sums
from encoders.formats.windows import convolution as slid


def convolution(node: TorchNode) -> Value:
    """Return the cross-correlation with a constant kernel; its adjoint where `transposed`."""
    x, weight = node.value("input"), node.weight("weight")
    if "transposed" in node.arguments:
        if node.take("transposed"):
            return _transposed(node, x, weight)
        node.expect("output_padding", [0], [0] * (weight.dim() - 2))
    windows = _kernel_windows(node, x, weight)
    return slid(node, x, weight, node.optional_weight("bias"), windows, node.take("groups"))


def transposed(node: TorchNode) -> Value:
    """Return the transposed convolution with a constant kernel."""
    return _transposed(node, node.value("input"), node.weight("weight"))


def _transposed(node: TorchNode, x: Value, weight: Tensor) -> Value:
    windows = _kernel_windows(node, x, weight)
    extra = node.numbers("output_padding", len(windows.kernel))
    return transposed_convolution(node, x, weight, node.optional_weight("bias"), windows, extra, node.take("groups"))


def _kernel_windows(node: TorchNode, x: Value, weight: Tensor) -> Windows:
    kernel = tuple(int(size) for size in weight.shape[2:])
    axes = len(kernel)
    if not 1 <= axes <= 3:
        raise ValueError(f"kernels of shape {tuple(weight.shape)} are not supported; supported: one to three axes")
    node.graph.require_batch(x, axes + 2)
    stride, dilation = node.numbers("stride", axes), node.numbers("dilation", axes)
    mode = node.arguments["padding"]
    if not isinstance(mode, str):
        padding = node.numbers("padding", axes)
        return Windows(kernel, stride, padding, padding, dilation)
    node.expect("padding", "same", "valid")
    if mode == "valid":
        return Windows(kernel, stride, (0,) * axes, (0,) * axes, dilation)
    if max(stride) != 1:
        raise ValueError(f"padding 'same' with stride {stride} is not supported")
    # More at the end.
    totals = [spread * (size - 1) for spread, size in zip(dilation, kernel, strict=True)]
    before, after = tuple(total // 2 for total in totals), tuple(total - total // 2 for total in totals)
    return Windows(kernel, stride, before, after, dilation)


def maxima(axes: int) -> Callable[[TorchNode], Value]:
    """Return the handler of maxima over windows."""

    def handler(node: TorchNode) -> Value:
        x, windows = _pooling(node, axes, node.numbers("dilation", axes))
        return max_pool(node, x, windows, node.take("ceil_mode"))

    return handler


def means(axes: int) -> Callable[[TorchNode], Value]:
    """Return the handler of means over windows."""

    def handler(node: TorchNode) -> Value:
        x, windows = _pooling(node, axes, (1,) * axes)
        divisor = node.take("divisor_override") if "divisor_override" in node.arguments else None
        return average_pool(node, x, windows, node.take("count_include_pad"), node.take("ceil_mode"), divisor)

    return handler


def _pooling(node: TorchNode, axes: int, dilation: Sizes) -> tuple[Value, Windows]:
    """Return input and windows; the stride is the kernel if left out."""
    x = node.value()
    node.graph.require_batch(x, axes + 2)
    kernel, padding = node.numbers("kernel_size", axes), node.numbers("padding", axes)
    stride = node.numbers("stride", axes) if node.take("stride") else kernel
    if min(*kernel, *stride, *dilation) < 1 or min(padding) < 0:
        raise ValueError("needs kernel >= 1, stride >= 1, dilation >= 1 and padding >= 0")
    return x, Windows(kernel, stride, padding, padding, dilation)


def adaptive_means(axes: int) -> Callable[[TorchNode], Value]:
    """Return the handler of means over as many windows as there are outputs, each with ends of its own."""

    def handler(node: TorchNode) -> Value:
        x, spans = _adaptive(node, axes)
        if all(len(ends) == 1 for ends in spans):
            return mean_over(node.graph, node.name, x, range(2, axes + 2), True)
        regular = _regular(spans)
        if regular is not None:
            return average_pool(node, x, regular, False)
        matrices, counts = [], torch.ones((), dtype=torch.float64)
        for ends, size in zip(spans, x.shape[2:], strict=True):
            places = torch.arange(size)
            inside = [((places >= start) & (places < stop)).to(torch.float64) for start, stop in ends]
            matrices.append(torch.stack(inside))
            counts = counts.unsqueeze(-1) * matrices[-1].sum(dim=1)
        return weighted_sums(node, x, matrices, counts)

    return handler


def adaptive_maxima(axes: int) -> Callable[[TorchNode], Value]:
    """Return the handler of maxima over as many windows as there are outputs, each with ends of its own."""

    def handler(node: TorchNode) -> Value:
        x, spans = _adaptive(node, axes)
        return _maxima_over(node, x, spans)

    return handler


def _adaptive(node: TorchNode, axes: int) -> tuple[Value, list[list[tuple[int, int]]]]:
    """Return the input and, for each axis, where the window of each output starts and stops."""
    x = node.value()
    node.graph.require_batch(x, axes + 2)
    asked = node.take("output_size")
    outputs = asked if isinstance(asked, list) else [asked]
    if len(outputs) != axes or not all(type(count) is int and count >= 1 for count in outputs):
        raise ValueError(f"output_size = {asked} is not supported; supported: {axes} numbers of at least 1")
    check_matrices(node, x, outputs)
    return x, [
        [(i * size // count, -(-(i + 1) * size // count)) for i in range(count)]
        for size, count in zip(x.shape[2:], outputs, strict=True)
    ]


def _regular(spans: Sequence[Sequence[tuple[int, int]]]) -> Windows | None:
    """Return windows of one size and stride that start and stop there; None if there are none."""
    kernel, stride = [], []
    for ends in spans:
        widths = {stop - start for start, stop in ends}
        steps = {second - first for (first, _), (second, _) in itertools.pairwise(ends)}
        if len(widths) > 1 or len(steps) > 1 or 0 in steps:
            return None
        kernel.append(widths.pop())
        stride.append(steps.pop() if steps else kernel[-1])
    none = (0,) * len(spans)
    return Windows(tuple(kernel), tuple(stride), none, none, (1,) * len(spans))


def _maxima_over(node: TorchNode | Part, x: Value, spans: list[list[tuple[int, int]]]) -> Value:
    """Return the maxima over the windows that start and stop there; axes with several sizes of windows are cut."""
    axis = next((i for i, ends in enumerate(spans) if _regular([ends]) is None), None)
    if axis is None:
        windows = _regular(spans)
        assert windows is not None
        return max_pool(node, x, windows)
    parts = []
    for number, (start, stop) in enumerate(spans[axis]):
        part = Part(node, f"window {number} of axis {axis}")
        cut = node.graph.slice(f"{part.name}/input", x, axis + 2, start, stop, 1)
        parts.append(_maxima_over(part, cut, [*spans[:axis], [(0, stop - start)], *spans[axis + 1 :]]))
    return node.graph.concat(node.name, parts, axis + 2)


HANDLERS: dict[str, Callable[[TorchNode], Value]] = {
    "aten._adaptive_avg_pool2d.default": adaptive_means(2),
    "aten._adaptive_avg_pool3d.default": adaptive_means(3),
    "aten.adaptive_avg_pool1d.default": adaptive_means(1),
    "aten.adaptive_avg_pool2d.default": adaptive_means(2),
    "aten.adaptive_avg_pool3d.default": adaptive_means(3),
    "aten.adaptive_max_pool1d.default": adaptive_maxima(1),
    "aten.adaptive_max_pool2d.default": adaptive_maxima(2),
    "aten.adaptive_max_pool3d.default": adaptive_maxima(3),
    "aten.avg_pool1d.default": means(1),
    "aten.avg_pool2d.default": means(2),
    "aten.avg_pool3d.default": means(3),
    "aten.conv1d.default": convolution,
    "aten.conv1d.padding": convolution,
    "aten.conv2d.default": convolution,
    "aten.conv2d.padding": convolution,
    "aten.conv3d.default": convolution,
    "aten.conv3d.padding": convolution,
    "aten.conv_transpose1d.default": transposed,
    "aten.conv_transpose2d.input": transposed,
    "aten.conv_transpose3d.input": transposed,
    "aten.convolution.default": convolution,
    "aten.max_pool1d.default": maxima(1),
    "aten.max_pool1d_with_indices.default": maxima(1),
    "aten.max_pool2d.default": maxima(2),
    "aten.max_pool2d_with_indices.default": maxima(2),
    "aten.max_pool3d.default": maxima(3),
    "aten.max_pool3d_with_indices.default": maxima(3),
}
