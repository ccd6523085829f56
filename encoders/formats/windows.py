"""Convolutions and pools over one to three axes, written with the ops that slide windows over two.

One axis is two of which the first has one place. Of three axes a pool takes the last two, then the first; a convolution
takes the first as further channels, its kernel a block Toeplitz matrix there. What a pool of two axes does not do
(last windows that hang over the end, gaps between cells, padding on one side) is sums along one axis after the other,
divided once: exact in real arithmetic, as divisors are products of numbers for each axis.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from encoders.formats.graph import GraphBuilder, Value
from encoders.ops import Affine, AveragePool2d, Conv2d, DivideConstant, MaxPool2d, Op

Sizes = tuple[int, ...]


class Call(Protocol):
    """A node of a file: what a handler adds ops to."""

    @property
    def name(self) -> str: ...

    @property
    def graph(self) -> GraphBuilder: ...

    def emit(self, op: Op, *inputs: Value, part: str = "") -> Value: ...


@dataclass(frozen=True)
class Windows:
    """Windows that slide over the last axes of a value: a number for each of one to three axes.

    before, after: the padding.
    """

    kernel: Sizes
    stride: Sizes
    before: Sizes
    after: Sizes
    dilation: Sizes

    def axes(self, *chosen: int) -> Windows:
        """Return the windows of some of the axes."""
        fields = (self.kernel, self.stride, self.before, self.after, self.dilation)
        return Windows(*(tuple(field[axis] for axis in chosen) for field in fields))

    def beside(self, first: Windows) -> Windows:
        """Return the windows with further axes in front."""
        return Windows(
            first.kernel + self.kernel, first.stride + self.stride, first.before + self.before,
            first.after + self.after, first.dilation + self.dilation,
        )  # fmt: skip

    @property
    def padding(self) -> tuple[int, int, int, int]:
        """The padding of two axes as (top, left, bottom, right)."""
        return self.before[0], self.before[1], self.after[0], self.after[1]

    @property
    def reach(self) -> Sizes:
        """How many places a window spans."""
        return tuple((k - 1) * d + 1 for k, d in zip(self.kernel, self.dilation, strict=True))

    def outputs(self, sizes: Sizes, ceil: bool = False) -> Sizes:
        """Return how many windows there are; ceil: also one that hangs over the end, if it starts before it."""
        counts = []
        for size, reach, step, before, after in zip(
            sizes, self.reach, self.stride, self.before, self.after, strict=True
        ):
            if step < 1 or size + before + after < reach:
                raise ValueError(f"a window that spans {reach} does not fit {size} places and the padding around them")
            count = -(-(size + before + after - reach) // step) if ceil else (size + before + after - reach) // step
            # A window that would start in the padding after the input is left out (torch, onnxruntime).
            counts.append(count if ceil and count * step >= size + before else count + 1)
        return tuple(counts)

    def covering(self, sizes: Sizes, outputs: Sizes) -> Windows:
        """Return the windows with as much padding after the input as so many of them need."""
        after = [
            max(0, (count - 1) * step + reach - size - before)
            for size, count, step, reach, before in zip(
                sizes, outputs, self.stride, self.reach, self.before, strict=True
            )
        ]
        return Windows(self.kernel, self.stride, self.before, tuple(after), self.dilation)


ONE_PLACE = Windows((1,), (1,), (0,), (0,), (1,))


def convolution(node: Call, x: Value, weight: Tensor, bias: Tensor | None, windows: Windows, groups: int) -> Value:
    """Return the cross-correlation; weight: `(outputs, channels // groups, *kernel)`."""
    axes = len(windows.kernel)
    node.graph.require_batch(x, axes + 2)
    if axes == 2:
        return node.emit(Conv2d(weight, bias, windows.stride[:2], windows.padding, windows.dilation[:2], groups), x)  # type: ignore[arg-type]
    shape = x.shape
    sizes = windows.outputs(shape[2:])
    if axes == 1:
        flat = shaped(node, x, (1, shape[1], 1, shape[2]), "input")
        weight, windows = weight.unsqueeze(2), windows.beside(ONE_PLACE)
    else:
        if weight.shape[1] * groups != shape[1] or (bias is not None and bias.shape != weight.shape[:1]):
            raise ValueError(f"a kernel of shape {tuple(weight.shape)} in {groups} groups does not fit {shape}")
        flat = shaped(node, x, (1, shape[1] * shape[2], *shape[3:]), "input")
        weight = toeplitz(node, weight, taps(windows, sizes[0], shape[2]), shape[2], sizes[0])
        bias = None if bias is None else bias.repeat_interleave(sizes[0])
        windows = windows.axes(1, 2)
    result = convolution(Part(node, "windows"), flat, weight, bias, windows, groups)
    return shaped(node, result, (1, -1, *sizes))


def taps(windows: Windows, starts: int, places: int) -> Iterator[tuple[int, int, int]]:
    """Yield (window, place in its kernel, place under it) along the first axis, for so many windows and places."""
    step, before, dilation = windows.stride[0], windows.before[0], windows.dilation[0]
    for i in range(starts):
        start = i * step - before
        for j in range(max(0, -(start // dilation)), windows.kernel[0]):
            if start + j * dilation >= places:
                break
            yield i, j, start + j * dilation


def toeplitz(node: Call, weight: Tensor, entries: Iterable[tuple[int, int, int]], inputs: int, outputs: int) -> Tensor:
    """Return a kernel `(o * outputs, c * inputs, height, width)` of one `(o, c, depth, height, width)`.

    entries: (output, place of the kernel, input) along the depth; zero elsewhere.
    """
    first, second, _, height, width = (int(size) for size in weight.shape)
    size = first * outputs * second * inputs * height * width * weight.element_size()
    node.graph.limits.check("constant_bytes", size, f"node {node.name!r}: its kernel over all depths")
    whole = torch.zeros(first, outputs, second, inputs, height, width, dtype=weight.dtype)
    for i, j, place in entries:
        whole[:, i, :, place] = weight[:, :, j]
    return whole.reshape(first * outputs, second * inputs, height, width)


def max_pool(node: Call, x: Value, windows: Windows, ceil: bool = False) -> Value:
    """Return maxima over windows; padded places never win."""
    node.graph.require_batch(x, len(windows.kernel) + 2)
    if ceil:
        windows = windows.covering(x.shape[2:], windows.outputs(x.shape[2:], ceil))
    return _pooled(node, x, windows, lambda w: MaxPool2d(w.kernel[:2], w.stride[:2], w.padding, w.dilation[:2]))  # type: ignore[arg-type]


def average_pool(
    node: Call, x: Value, windows: Windows, count_padding: bool, ceil: bool = False, divisor: int | None = None
) -> Value:
    """Return means over windows; divisor: that of every window, else its cells (with the padding's if they count)."""
    node.graph.require_batch(x, len(windows.kernel) + 2)
    sizes = x.shape[2:]
    outputs = windows.outputs(sizes, ceil)
    symmetric = windows.before == windows.after and outputs == windows.outputs(sizes)
    small = all(2 * before <= k for before, k in zip(windows.before, windows.kernel, strict=True))
    if symmetric and small and max(windows.dilation) == 1 and divisor is None:
        return _pooled(
            node, x, windows, lambda w: AveragePool2d(w.kernel[:2], w.stride[:2], w.padding, count_padding)  # type: ignore[arg-type]
        )  # fmt: skip
    check_matrices(node, x, outputs)
    node.graph.limits.check("window_cells", math.prod(windows.kernel), f"node {node.name!r}: its window")
    axes = [_window_sums(windows.axes(axis), sizes[axis], count) for axis, count in enumerate(outputs)]
    if divisor is not None:
        if divisor == 0:
            raise ValueError("a divisor of 0 is not supported")
        return weighted_sums(node, x, [inside for inside, _ in axes], torch.tensor(float(divisor)))
    counts = torch.ones((), dtype=torch.float64)
    for inside, padded in axes:
        counts = counts.unsqueeze(-1) * (padded if count_padding else inside.sum(dim=1))
    if bool((counts == 0).any()):
        raise ValueError("windows that see padding alone are not supported")
    return weighted_sums(node, x, [inside for inside, _ in axes], counts)


def weighted_sums(
    node: Call, x: Value, matrices: Sequence[Tensor], divisors: Tensor | None = None, kind: type[Affine] = Affine
) -> Value:
    """Return what matrices `(outputs, inputs)` make of the last axes, one after the other, over divisors.

    kind: Affine, or Resampling where runtimes compute the entries and round them otherwise.
    """
    first = len(x.shape) - len(matrices)
    changed = [i for i, matrix in enumerate(matrices) if not _is_identity(matrix)]
    dtype = node.graph.dtype
    for i in changed:
        last = i == changed[-1] and divisors is None
        x = along_axis(node, x, first + i, kind(matrices[i].to(dtype)), "" if last else f"axis {i}")
    if divisors is None:
        return x
    return node.emit(DivideConstant(divisors.to(dtype)), x)


def check_matrices(node: Call, x: Value, outputs: Sequence[int]) -> None:
    """Raise LimitError if matrices to so many outputs along the last axes, or what they make, are beyond the limits."""
    limits, sizes = node.graph.limits, x.shape[len(x.shape) - len(outputs) :]
    shape = (*x.shape[: len(x.shape) - len(outputs)], *outputs)
    limits.check("node_values", math.prod(shape), f"node {node.name!r}: its result of shape {shape}")
    # A row costs some hundred bytes before it is a row.
    size = sum(count * (8 * inputs + 256) for count, inputs in zip(outputs, sizes, strict=True))
    limits.check("constant_bytes", size, f"node {node.name!r}: what it does along each axis")


def _is_identity(matrix: Tensor) -> bool:
    rows, columns = matrix.shape
    return rows == columns and torch.equal(matrix, torch.eye(rows, dtype=matrix.dtype))


def along_axis(node: Call, x: Value, axis: int, map_: Affine, part: str = "") -> Value:
    """Return the map of x along one axis of the file, the batch counted."""
    graph, name = node.graph, f"{node.name}/{part}" if part else node.name
    order = [*(i for i in range(len(x.shape)) if i != axis), axis]
    back = [order.index(i) for i in range(len(order))]
    last = axis == len(x.shape) - 1
    moved = graph.transpose(f"{name}/axis last", x, order)
    product = graph.emit(name if last else f"{name}/product", map_, moved)
    return graph.transpose(name, product, back)


def _window_sums(windows: Windows, size: int, outputs: int) -> tuple[Tensor, Tensor]:
    """Return the matrix `(outputs, size)` that sums windows along one axis, and their cells with those of padding."""
    places = torch.arange(outputs)[:, None] * windows.stride[0] - windows.before[0]
    places = places + torch.arange(windows.kernel[0]) * windows.dilation[0]
    matrix = torch.zeros(outputs, size, dtype=torch.float64)
    row, cell = torch.nonzero((places >= 0) & (places < size), as_tuple=True)
    matrix[row, places[row, cell]] = 1.0
    return matrix, (places < size + windows.after[0]).sum(dim=1).to(torch.float64)


def _pooled(node: Call, x: Value, windows: Windows, op: Callable[[Windows], Op]) -> Value:
    """Return a pool over two axes; over one, beside an axis with one place; over three, the last two first."""
    shape = x.shape
    if len(windows.kernel) == 2:
        return node.emit(op(windows), x)
    if len(windows.kernel) == 1:
        lifted = shaped(node, x, (1, shape[1], 1, shape[2]), "input")
        result = node.emit(op(windows.beside(ONE_PLACE)), lifted, part="windows")
        return shaped(node, result, (1, shape[1], -1))
    depth, height, width = windows.outputs(shape[2:])
    maps = shaped(node, x, (1, shape[1] * shape[2], *shape[3:]), "maps")
    maps = node.emit(op(windows.axes(1, 2)), maps, part="maps pooled")
    columns = shaped(node, maps, (1, shape[1], shape[2], height * width), "columns")
    result = node.emit(op(ONE_PLACE.beside(windows.axes(0))), columns, part="columns pooled")
    return shaped(node, result, (1, shape[1], depth, height, width))


def shaped(node: Call, x: Value, shape: Sequence[int], part: str = "") -> Value:
    """Return x under another shape of the file; -1: what is left."""
    known = math.prod(size for size in shape if size > 0)
    full = [math.prod(x.shape) // known if size < 0 else size for size in shape]
    return node.graph.reshape(f"{node.name}/{part}" if part else node.name, x, full)


@dataclass(frozen=True)
class Part:
    """A call whose result is an intermediate value of another."""

    whole: Call
    part: str

    @property
    def name(self) -> str:
        return f"{self.whole.name}/{self.part}"

    @property
    def graph(self) -> GraphBuilder:
        return self.whole.graph

    def emit(self, op: Op, *inputs: Value, part: str = "") -> Value:
        return self.whole.emit(op, *inputs, part=f"{self.part}/{part}" if part else self.part)
