"""Handlers and folders of ONNX operators that only move entries: each is a function of arrays, whatever they hold.

`moved` makes the handler of a node on computed values, `folded` the one on constants alone; constants among the values
are taken too.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from encoders.formats.cells import Cells
from encoders.formats.graph import MAXIMUM_RANK, Value
from encoders.formats.onnx_axes import axis_of
from encoders.formats.onnx_node import Constant, OnnxNode, as_tensor
from encoders.formats.runtime import Array

Move = Callable[..., Array]
# What stands where nothing is moved to, of the element type given.
Fill = Callable[[OnnxNode, np.dtype[Any]], Array]


def moved(move: Move, *data: int, fill: Fill | None = None) -> Callable[[OnnxNode], Value]:
    """Return the handler of an operator whose inputs `data` (none: all) are moved; constants say how."""

    def handler(node: OnnxNode) -> Value:
        given = [index for index in data or range(len(node.inputs)) if node.has(index)]
        inputs = [node.weight(i) if node.is_constant(i) else node.value(i) for i in given]
        extra = [] if fill is None else [as_tensor(fill(node, np.dtype(str(node.graph.dtype).removeprefix("torch."))))]
        cells = Cells(node.graph, [*inputs, *extra])
        return cells.emit(node.name, move(node, *cells.arrays))

    return handler


def folded(move: Move, *data: int, fill: Fill | None = None) -> Callable[[OnnxNode], Constant]:
    """Return the folder of the operator: the same on constants, with the marks of those entries that hold the batch."""

    def folder(node: OnnxNode) -> Constant:
        given = [node.constant(index) for index in data or range(len(node.inputs)) if node.has(index)]
        dtype = given[0].array.dtype
        given += [] if fill is None else [Constant(fill(node, dtype))]
        if any(constant.array.dtype != dtype for constant in given):
            raise ValueError("moves constants of several types into one")
        result = move(node, *(constant.array for constant in given))
        if all(constant.of_batch is None for constant in given):
            return Constant(result, None, True)
        marks = [np.zeros(c.array.shape, bool) if c.of_batch is None else c.of_batch for c in given]
        return Constant(result, move(node, *marks), True)

    return folder


def claim(node: OnnxNode, data: Array, shape: Sequence[int]) -> None:
    """Claim the memory of a result, before it is made."""
    if len(shape) > MAXIMUM_RANK:
        raise ValueError(f"a result of {len(shape)} axes is not supported; supported: up to {MAXIMUM_RANK}")
    node.memory.fold(math.prod(shape) * data.itemsize)


def own_axis(node: OnnxNode, data: Array, axis: int) -> int:
    """Return an axis counted from the front; the batch must not be it."""
    axis = axis_of(axis, data.ndim)
    if axis == 0:
        keep_batch(node)
    return axis


def keep_batch(node: OnnxNode) -> None:
    """Refuse to touch the axis of a batch, unless all is constant."""
    if node.graph.has_batch and any(isinstance(given, Value) for given in node.inputs):
        raise ValueError("acts on the batch axis")


def fixed_batch(node: OnnxNode) -> None:
    """Refuse places that are given for a batch of one, where a batch may have any length."""
    if node.graph.given.batch == "any" and any(isinstance(given, Value) for given in node.inputs):
        raise ValueError("its indices name rows of the batch; export the model with a batch of fixed size 1")
