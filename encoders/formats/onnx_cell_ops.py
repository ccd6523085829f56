"""ONNX operators that repeat, join, cut, pad and mask entries, as functions of arrays (see `onnx_cells`).

Meaning of the operators: the ONNX operator specification, default domain, opsets 8 to 21.
"""

from typing import Any

import numpy as np

from encoders.formats.cells import check_rank
from encoders.formats.graph import MAXIMUM_RANK, Value
from encoders.formats.onnx_axes import axes_of, sliced
from encoders.formats.onnx_cells import claim, keep_batch, moved, own_axis
from encoders.formats.onnx_node import OnnxNode, integer_list
from encoders.formats.onnx_shape_ops import slice_parts
from encoders.formats.runtime import Array


def expand(node: OnnxNode, data: Array) -> Array:
    """Return the data broadcast together with a shape; the size of the batch may lead it."""
    wanted = node.constant(1)
    marks = None if wanted.of_batch is None else np.atleast_1d(wanted.of_batch)
    if marks is not None and marks.any():
        value = isinstance(node.inputs[0], Value)
        if not value or not marks[0] or marks[1:].any() or len(marks) != data.ndim:
            raise ValueError("a size of its result depends on the size of the batch, which is not supported there")
    return _broadcast(node, data, np.broadcast_shapes(data.shape, tuple(_sizes(wanted.array, 1))))


def _sizes(array: Array, index: int) -> list[int]:
    sizes = integer_list(array, index)
    if min(sizes, default=1) < 1 or len(sizes) > MAXIMUM_RANK:
        raise ValueError(f"shape {sizes[:8]} is not supported; supported: up to {MAXIMUM_RANK} positive sizes")
    return sizes


def _broadcast(node: OnnxNode, data: Array, shape: tuple[int, ...]) -> Array:
    for given in node.inputs:
        if isinstance(given, Value):
            check_rank(node.graph, given, len(shape))
    claim(node, data, shape)
    return np.broadcast_to(data, shape)


def where(node: OnnxNode, a: Array, b: Array) -> Array:
    """Return entries of the second input where the first, a constant mask, is true, else of the third."""
    condition = node.array(0)
    if condition.dtype != np.bool_:
        raise ValueError(f"takes a constant mask, got {condition.dtype}")
    shape = np.broadcast_shapes(condition.shape, a.shape, b.shape)
    return np.where(condition, _broadcast(node, a, shape), b)


def tile(node: OnnxNode, data: Array) -> Array:
    """Return the data repeated along each axis."""
    repeats = _sizes(node.array(1), 1)
    if len(repeats) != data.ndim:
        raise ValueError(f"repeats {repeats} do not fit {data.shape}")
    if repeats and repeats[0] != 1:
        keep_batch(node)
    claim(node, data, [size * count for size, count in zip(data.shape, repeats, strict=True)])
    return np.tile(data, repeats)


def concat_values(node: OnnxNode) -> Value:
    """Return values and constants joined along an axis."""
    if any(node.is_constant(index) for index in range(len(node.inputs))):
        return moved(concat)(node)
    values = [node.value(index) for index in range(len(node.inputs))]
    return node.graph.concat(node.name, values, node.attributes["axis"])


def concat(node: OnnxNode, *parts: Array) -> Array:
    """Return values and constants joined along an axis."""
    axis = own_axis(node, parts[0], node.attributes["axis"])
    ranks = {part.ndim for part in parts}
    if len(ranks) > 1:
        raise ValueError(f"joins values of {sorted(ranks)} axes")
    total = sum(part.shape[axis] for part in parts)
    claim(node, parts[0], (*parts[0].shape[:axis], total, *parts[0].shape[axis + 1 :]))
    return np.concatenate(parts, axis)


def slice_values(node: OnnxNode) -> Value:
    """Return a range of entries along each of the given axes."""
    result, parts = node.value(0), slice_parts(node)
    axes_of([axis for axis, *_ in parts], len(result.shape))
    if any(step < 0 for *_, step in parts):
        return moved(slice_, 0)(node)
    for axis, start, stop, step in parts:
        result = node.graph.slice(node.name, result, axis, start, stop, step)
    return result


def slice_(node: OnnxNode, data: Array) -> Array:
    """Return a range of entries along each of the given axes; negative steps run backwards."""
    parts = slice_parts(node)
    index = [slice(None)] * data.ndim
    for axis, (_, start, stop, step) in zip(axes_of([part[0] for part in parts], data.ndim), parts, strict=True):
        places = sliced(data.shape[axis], start, stop, step)
        if axis == 0 and (start, step) != (0, 1):
            keep_batch(node)
        # A range that runs down to the first entry ends at -1, which would count from the end.
        index[axis] = slice(places.start, None if places.stop < 0 else places.stop, step) if places else slice(0, 0)
    result = data[tuple(index)]
    claim(node, data, result.shape)
    return result


def padding_value(node: OnnxNode, dtype: np.dtype[Any]) -> Array:
    """Return what Pad puts around in its mode `constant`: zero unless it says otherwise."""
    if not node.has(2):
        return np.array(node.attributes.get("value", 0.0), dtype)
    value = node.array(2)
    if value.size != 1 or value.dtype != dtype:
        raise ValueError(f"pads by {value.dtype} of shape {value.shape}; supported: one number of the element type")
    return value.reshape(())


def pad(node: OnnxNode, data: Array, value: Array) -> Array:
    """Return the data with a constant, mirrored or repeated entries around it; negative widths cut off."""
    before, after = _widths(node, data.ndim)
    mode = node.attributes.get("mode", "constant")
    if mode not in ("constant", "reflect", "edge"):
        raise ValueError(f"mode {mode!r} is not supported; supported: constant, reflect, edge")
    if data.ndim and (before[0] or after[0]):
        keep_batch(node)
    if mode != "constant" and min(*before, *after, 0) < 0:
        raise ValueError(f"negative widths in mode {mode!r} are not supported")
    most = [size - 1 for size in data.shape]
    if mode == "reflect" and any(max(pair) > n for *pair, n in zip(before, after, most, strict=True)):
        raise ValueError(f"mirrors more than there is in {data.shape}")
    cut = tuple(
        slice(max(-a, 0), max(size - max(-b, 0), 0)) for a, b, size in zip(before, after, data.shape, strict=True)
    )
    inner, widths = data[cut], [(max(a, 0), max(b, 0)) for a, b in zip(before, after, strict=True)]
    if 0 in inner.shape:
        raise ValueError(f"cuts all of {data.shape} off")
    claim(node, data, [size + a + b for size, (a, b) in zip(inner.shape, widths, strict=True)])
    if mode == "constant":
        return np.pad(inner, widths, constant_values=value)
    return np.pad(inner, widths, mode)


def _widths(node: OnnxNode, rank: int) -> tuple[list[int], list[int]]:
    """Return how many entries Pad adds before and after each axis."""
    given = node.integers(1) if node.opset >= 11 else node.attributes["pads"]
    axes = axes_of(node.integers(3), rank) if node.has(3) else list(range(rank))
    if len(given) != 2 * len(axes):
        raise ValueError(f"pads = {given} do not fit {len(axes)} axes")
    before, after = [0] * rank, [0] * rank
    for place, axis in enumerate(axes):
        before[axis], after[axis] = given[place], given[place + len(axes)]
    return before, after


def zero(node: OnnxNode, dtype: np.dtype[Any]) -> Array:
    """Return a zero."""
    return np.zeros((), dtype)


def trilu(node: OnnxNode, data: Array, nothing: Array) -> Array:
    """Return the upper or lower triangle of the last two axes, zeros beside it."""
    if data.ndim < 2:
        raise ValueError(f"takes matrices, got shape {data.shape}")
    if data.ndim == 2:
        keep_batch(node)
    offsets = node.integers(1) if node.has(1) else [0]
    height, width = data.shape[-2:]
    claim(node, data, data.shape)
    away = np.arange(width) - np.arange(height)[:, None]
    kept = away >= offsets[0] if node.attributes.get("upper", 1) else away <= offsets[0]
    return np.where(kept, data, nothing)


def depth_to_space(node: OnnxNode, data: Array) -> Array:
    """Return channels laid out in blocks of pixels."""
    block = _block(node, data)
    batch, channels, height, width = data.shape
    if channels % block**2:
        raise ValueError(f"{channels} channels are no blocks of {block} x {block}")
    rest = channels // block**2
    mode = node.attributes.get("mode", "DCR")
    if mode not in ("DCR", "CRD"):
        raise ValueError(f"mode {mode!r} is unknown")
    claim(node, data, data.shape)
    if mode == "DCR":
        spread = data.reshape(batch, block, block, rest, height, width).transpose(0, 3, 4, 1, 5, 2)
    else:
        spread = data.reshape(batch, rest, block, block, height, width).transpose(0, 1, 4, 2, 5, 3)
    return spread.reshape(batch, rest, height * block, width * block)


def space_to_depth(node: OnnxNode, data: Array) -> Array:
    """Return blocks of pixels laid out as channels."""
    block = _block(node, data)
    batch, channels, height, width = data.shape
    if height % block or width % block:
        raise ValueError(f"{height} x {width} pixels are no blocks of {block} x {block}")
    claim(node, data, data.shape)
    spread = data.reshape(batch, channels, height // block, block, width // block, block).transpose(0, 3, 5, 1, 2, 4)
    return spread.reshape(batch, channels * block**2, height // block, width // block)


def _block(node: OnnxNode, data: Array) -> int:
    block = int(node.attributes["blocksize"])
    if data.ndim != 4 or block < 1:
        raise ValueError(f"takes 4 axes and a blocksize of at least 1, got shape {data.shape} and {block}")
    return block
