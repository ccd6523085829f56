"""Sums, means and maxima over axes of a file, as ops: what the ONNX and the torch reader share.

A maximum over axes is a max pool over one window that holds them all.
"""

import math
from collections.abc import Sequence

import torch

from encoders.formats.graph import GraphBuilder, Value
from encoders.ops import AxisSum, DivideConstant, GlobalAveragePool, MaxPool2d, MultiplyConstant


def sum_over(graph: GraphBuilder, name: str, x: Value, axes: Sequence[int], keep_axes: bool) -> Value:
    """Return the sum over axes of the file, which must not be the batch."""
    own, size, target = _reduced(graph, x, axes, keep_axes)
    if size > 1:
        x = graph.emit(name, AxisSum(own, size, keep_axes), x)
    return graph.reshape(name, x, target)


def mean_over(graph: GraphBuilder, name: str, x: Value, axes: Sequence[int], keep_axes: bool) -> Value:
    """Return the mean over axes of the file, which must not be the batch."""
    own, size, target = _reduced(graph, x, axes, keep_axes)
    rank = len(graph.sample_shape(x))
    if size == 1:
        return graph.reshape(name, x, target)
    if rank > 1 and own == tuple(range(1, rank)):
        return graph.emit(name, GlobalAveragePool(size, keep_axes), x)
    total = sum_over(graph, f"{name}/sum", x, axes, keep_axes)
    # float64 holds the size exactly.
    return graph.emit(name, DivideConstant(torch.tensor(float(size), dtype=torch.float64)), total)


def greatest_over(graph: GraphBuilder, name: str, x: Value, axes: Sequence[int], keep_axes: bool) -> Value:
    """Return the maximum over axes of the file, which must not be the batch."""
    own, size, target = _reduced(graph, x, axes, keep_axes)
    if size > 1:
        shift = len(x.shape) - len(graph.sample_shape(x))
        last = [axis + shift for axis in own]
        kept = [axis for axis in range(len(x.shape)) if axis not in last]
        windows = math.prod(x.shape) // size
        x = graph.transpose(f"{name}/last", x, [*kept, *last])
        x = graph.reshape(f"{name}/window", x, (*[1] * shift, windows, 1, size))
        x = graph.emit(name, MaxPool2d((1, size), (1, 1)), x)
    return graph.reshape(name, x, target)


def least_over(graph: GraphBuilder, name: str, x: Value, axes: Sequence[int], keep_axes: bool) -> Value:
    """Return the minimum over axes of the file: minus the maximum of minus x."""
    minus = MultiplyConstant(torch.tensor(-1, dtype=graph.dtype))
    greatest = greatest_over(graph, f"{name}/greatest", graph.emit(f"{name}/minus", minus, x), axes, keep_axes)
    return graph.emit(name, minus, greatest)


def _reduced(
    graph: GraphBuilder, x: Value, axes: Sequence[int], keep_axes: bool
) -> tuple[tuple[int, ...], int, list[int]]:
    """Return the axes of the sample in order, how many values fall together, and the file's shape of the result."""
    own = tuple(sorted(graph.axis(x, axis) for axis in axes))
    if len(set(own)) < len(own):
        raise ValueError(f"axes {tuple(axes)} repeat")
    shape = graph.sample_shape(x)
    target = [1 if axis in own else size for axis, size in enumerate(shape) if keep_axes or axis not in own]
    lead = [1] * (len(x.shape) - len(shape))
    return own, math.prod(shape[axis] for axis in own), [*lead, *target]
