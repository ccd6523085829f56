"""Operators of exported torch graphs that only move values, or leave them as they are."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from encoders.formats.graph import Value
from encoders.formats.torch_cells import moved
from encoders.formats.torch_node import TorchNode

with_constants = moved("aten.cat.default", ("tensors",))


def identity(node: TorchNode) -> Value:
    """Return the input: the call copies it, or returns it under another name or memory layout."""
    node.ignore("memory_format")
    return node.value()


def dropout(node: TorchNode) -> Value:
    """Return the input: at inference nothing is dropped."""
    node.ignore("p")
    node.expect("train", False)
    return node.value("input")


def to_dtype(node: TorchNode) -> Value:
    """Return the input if it is converted to the dtype that it has."""
    node.expect("dtype", None, node.graph.dtype)
    node.ignore("memory_format", "copy", "non_blocking")
    return node.value()


def view(node: TorchNode) -> Value:
    """Return the value under another shape, in which one size may be -1."""
    x = node.value()
    shape = list(node.take("shape" if "shape" in node.arguments else "size"))
    if shape.count(-1) == 1:
        known = math.prod(size for size in shape if size != -1)
        shape[shape.index(-1)] = math.prod(x.shape) // max(known, 1)
    if min(shape, default=1) < 1 or math.prod(shape) != math.prod(x.shape):
        raise ValueError(f"shape {shape} does not fit {x.shape}")
    return node.graph.reshape(node.name, x, shape)


def flatten(node: TorchNode) -> Value:
    """Return the value with a range of axes joined."""
    x = node.value()
    first, last = (_axis(axis, len(x.shape)) for axis in (node.take("start_dim"), node.take("end_dim")))
    if node.graph.given.batch == "any" and first == 0 and last > 0:
        raise ValueError("merges the batch into the features")
    shape = (*x.shape[:first], math.prod(x.shape[first : last + 1]), *x.shape[last + 1 :])
    return node.graph.reshape(node.name, x, shape)


def unflatten(node: TorchNode) -> Value:
    """Return the value with one axis split into several, of which one size may be -1."""
    x = node.value()
    axis, sizes = _axis(node.take("dim"), len(x.shape)), list(node.take("sizes"))
    if axis == 0 and node.graph.given.batch == "any":
        raise ValueError("splits the batch axis")
    if sizes.count(-1) == 1:
        known = math.prod(size for size in sizes if size != -1)
        sizes[sizes.index(-1)] = x.shape[axis] // max(known, 1)
    if math.prod(sizes) != x.shape[axis]:
        raise ValueError(f"sizes {sizes} do not fit axis {axis} of {x.shape}")
    return node.graph.reshape(node.name, x, (*x.shape[:axis], *sizes, *x.shape[axis + 1 :]))


def squeeze(node: TorchNode) -> Value:
    """Return the value without the given axes, where they have size 1."""
    x, given = node.value(), node.take("dim")
    axes = {_axis(axis, len(x.shape)) for axis in ([given] if isinstance(given, int) else given)}
    if 0 in axes and node.graph.given.batch == "any":
        raise ValueError("acts on the batch axis")
    shape = [size for axis, size in enumerate(x.shape) if axis not in axes or size != 1]
    return node.graph.reshape(node.name, x, shape)


def unsqueeze(node: TorchNode) -> Value:
    """Return the value with a new axis of size 1."""
    x = node.value()
    axis = _axis(node.take("dim"), len(x.shape) + 1)
    if axis == 0 and node.graph.given.batch == "any":
        raise ValueError("acts on the batch axis")
    return node.graph.reshape(node.name, x, (*x.shape[:axis], 1, *x.shape[axis:]))


def permute(node: TorchNode) -> Value:
    """Return permuted axes."""
    x = node.value()
    return node.graph.transpose(node.name, x, node.take("dims"))


def transpose(node: TorchNode) -> Value:
    """Return two axes exchanged."""
    x = node.value()
    order = list(range(len(x.shape)))
    first, second = (_axis(node.take(name), len(order)) for name in ("dim0", "dim1"))
    order[first], order[second] = order[second], order[first]
    return node.graph.transpose(node.name, x, order)


def concat(node: TorchNode) -> Value | list[Value]:
    """Return values and constants joined along an axis."""
    values = node.take("tensors")
    if not all(isinstance(value, Value) for value in values):
        return with_constants(node)
    return node.graph.concat(node.name, values, node.take("dim"))


def filled(value: float | None) -> Callable[[TorchNode], Tensor]:
    """Return the handler of a constant of a value's shape (counted as one input), or of one given; None: of a number
    given.
    """

    def handler(node: TorchNode) -> Tensor:
        shape = tuple(node.take("size")) if "size" in node.arguments else node.value().shape
        node.ignore("self", "layout", "device", "pin_memory", "memory_format")
        node.expect("dtype", None, node.graph.dtype)
        node.constants.claim(8 * math.prod(shape), f"node {node.name!r}")
        number = node.take("fill_value") if value is None else value
        if isinstance(number, bool) or not isinstance(number, int | float):
            raise ValueError(f"fill_value = {number!r} must be a number")
        return torch.full(shape, number, dtype=node.graph.dtype)

    return handler


def slice_(node: TorchNode) -> Value:
    """Return a range of entries along an axis."""
    x = node.value()
    start, stop = node.take("start"), node.take("end")
    start, stop = 0 if start is None else start, 2**63 - 1 if stop is None else stop
    return node.graph.slice(node.name, x, node.take("dim"), start, stop, node.take("step"))


def _axis(axis: int, rank: int) -> int:
    if not -rank <= axis < rank:
        raise ValueError(f"axis {axis} does not exist among {rank}")
    return axis % rank
