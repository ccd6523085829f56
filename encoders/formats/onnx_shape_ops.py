"""ONNX operators that only move values, or leave them as they are."""

import math

import numpy as np
from onnx import helper

from encoders.formats.graph import Value
from encoders.formats.onnx_node import OnnxNode


def identity(node: OnnxNode) -> Value:
    """Return the input."""
    return node.value(0)


def dropout(node: OnnxNode) -> Value:
    """Return the input: at inference nothing is dropped."""
    if node.has(2) and bool(node.array(2).any()):
        raise ValueError("training_mode = 1 is not supported; export the model in evaluation mode")
    return node.value(0)


def cast(node: OnnxNode) -> Value:
    """Return the input if it is cast to the type that it has."""
    target = helper.tensor_dtype_to_np_dtype(node.attributes["to"])
    if str(node.graph.dtype) != f"torch.{target}":
        raise ValueError(f"a cast from {node.graph.dtype} to {target} is not supported; export in one float type")
    return node.value(0)


def flatten(node: OnnxNode) -> Value:
    """Return a matrix: axes before `axis` and axes from it on."""
    x = node.value(0)
    axis = node.attributes.get("axis", 1)
    if not -len(x.shape) <= axis <= len(x.shape):
        raise ValueError(f"axis {axis} does not exist in shape {x.shape}")
    axis = axis + len(x.shape) if axis < 0 else axis
    if axis == 0 and node.graph.given.batch == "any":
        raise ValueError("axis 0 merges the batch into the features")
    return node.graph.reshape(node.name, x, (math.prod(x.shape[:axis]), math.prod(x.shape[axis:])))


def reshape(node: OnnxNode) -> Value:
    """Return the value under a constant shape, in which 0 copies a size and -1 is inferred."""
    x, shape = node.value(0), node.integers(1)
    if node.attributes.get("allowzero", 0) and 0 in shape:
        raise ValueError(f"allowzero with shape {shape} is not supported")
    if any(size == 0 and axis >= len(x.shape) for axis, size in enumerate(shape)):
        raise ValueError(f"shape {shape} copies a size that {x.shape} does not have")
    shape = [x.shape[axis] if size == 0 else size for axis, size in enumerate(shape)]
    if shape.count(-1) == 1:
        known = math.prod(size for size in shape if size != -1)
        shape[shape.index(-1)] = math.prod(x.shape) // max(known, 1)
    if min(shape, default=1) < 1 or math.prod(shape) != math.prod(x.shape):
        raise ValueError(f"shape {node.integers(1)} does not fit {x.shape}")
    return node.graph.reshape(node.name, x, shape)


def transpose(node: OnnxNode) -> Value:
    """Return permuted axes."""
    x = node.value(0)
    return node.graph.transpose(node.name, x, node.attributes.get("perm", list(reversed(range(len(x.shape))))))


def squeeze(node: OnnxNode) -> Value:
    """Return the value without axes of size 1."""
    x = node.value(0)
    axes = node.integers_by_name("axes", 1, 13)
    if axes is None:
        raise ValueError("without axes it may remove the batch axis; supported: axes given")
    removed = _normalised(node, axes, len(x.shape))
    if any(x.shape[axis] != 1 for axis in removed):
        raise ValueError(f"axes {axes} are not all of size 1 in {x.shape}")
    return node.graph.reshape(node.name, x, [size for axis, size in enumerate(x.shape) if axis not in removed])


def unsqueeze(node: OnnxNode) -> Value:
    """Return the value with new axes of size 1."""
    x = node.value(0)
    axes = node.integers_by_name("axes", 1, 13)
    if axes is None:
        raise ValueError("axes are missing")
    added = _normalised(node, axes, len(x.shape) + len(axes))
    sizes = iter(x.shape)
    shape = [1 if axis in added else next(sizes) for axis in range(len(x.shape) + len(axes))]
    return node.graph.reshape(node.name, x, shape)


def _normalised(node: OnnxNode, axes: list[int], rank: int) -> set[int]:
    """Return non-negative axes; refuse repeated ones, and the batch axis where it may have any length."""
    result = {axis % rank for axis in axes if -rank <= axis < rank}
    if len(result) != len(axes):
        raise ValueError(f"axes {axes} do not fit rank {rank}")
    if 0 in result and node.graph.given.batch == "any":
        raise ValueError("acts on the batch axis")
    return result


def concat(node: OnnxNode) -> Value:
    """Return computed values joined along an axis."""
    values = [node.value(index) for index in range(len(node.inputs))]
    return node.graph.concat(node.name, values, node.attributes["axis"])


def slice_(node: OnnxNode) -> Value:
    """Return a range of entries along each of the given axes."""
    result = node.value(0)
    if node.opset >= 10:
        starts, stops = node.integers(1), node.integers(2)
        axes = node.integers(3) if node.has(3) else list(range(len(starts)))
        steps = node.integers(4) if node.has(4) else [1] * len(starts)
    else:
        starts, stops = node.attributes["starts"], node.attributes["ends"]
        axes, steps = node.attributes.get("axes", list(range(len(starts)))), [1] * len(starts)
    if not len(starts) == len(stops) == len(axes) == len(steps):
        raise ValueError("starts, ends, axes and steps differ in length")
    if len({axis % len(result.shape) for axis in axes}) != len(axes):
        raise ValueError(f"axes {axes} repeat")
    for axis, start, stop, step in zip(axes, starts, stops, steps, strict=True):
        result = node.graph.slice(node.name, result, axis, start, stop, step)
    return result


def shape_stand_in(shape: tuple[int, ...]) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """Return an array of the shape that takes no memory, for operators that look at the shape alone."""
    return np.broadcast_to(np.float32(0), shape)
