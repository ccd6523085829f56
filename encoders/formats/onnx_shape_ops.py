"""ONNX operators that only move values, or leave them as they are."""

import numpy as np

from encoders.formats.graph import Value
from encoders.formats.onnx_axes import axes_of, flattened, reshaped, squeezed, unsqueezed
from encoders.formats.onnx_node import OnnxNode, integer_list
from encoders.formats.onnx_tensor import element_type


def identity(node: OnnxNode) -> Value:
    """Return the input."""
    return node.value(0)


def dropout(node: OnnxNode) -> Value:
    """Return the input: at inference nothing is dropped."""
    if node.has(2) and bool(node.array(2).any()):
        raise ValueError(
            "is in training mode (training_mode = 1), where it drops at random; export the model in evaluation mode: "
            "model.eval() before torch.onnx.export"
        )
    return node.value(0)


def cast(node: OnnxNode) -> Value:
    """Return the input if it is cast to the type that it has."""
    target = element_type(node.attributes["to"])
    if str(node.graph.dtype) != f"torch.{target}":
        raise ValueError(f"a cast from {node.graph.dtype} to {target} is not supported; export in one float type")
    return node.value(0)


def flatten(node: OnnxNode) -> Value:
    """Return a matrix: axes before `axis` and axes from it on."""
    x = node.value(0)
    axis = node.attributes.get("axis", 1)
    target = flattened(x.shape, axis)
    if axis in (0, -len(x.shape)) and node.graph.given.batch == "any":
        raise ValueError("axis 0 merges the batch into the features")
    return node.graph.reshape(node.name, x, target)


def reshape(node: OnnxNode) -> Value:
    """Return the value under a constant shape, in which 0 copies a size and -1 is inferred.

    The size of the batch may stand in front, as in x.view(x.size(0), -1).
    """
    x, given = node.value(0), node.constant(1)
    if given.of_batch is not None and bool(np.atleast_1d(given.of_batch)[1:].any()):
        raise ValueError("a size after the first depends on the size of the batch, which is not supported")
    wanted = integer_list(given.array, 1)
    return node.graph.reshape(node.name, x, reshaped(x.shape, wanted, bool(node.attributes.get("allowzero", 0))))


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
    _keep_batch(node, axes, len(x.shape))
    return node.graph.reshape(node.name, x, squeezed(x.shape, axes))


def unsqueeze(node: OnnxNode) -> Value:
    """Return the value with new axes of size 1."""
    x = node.value(0)
    axes = node.integers_by_name("axes", 1, 13)
    if axes is None:
        raise ValueError("axes are missing")
    _keep_batch(node, axes, len(x.shape) + len(axes))
    return node.graph.reshape(node.name, x, unsqueezed(x.shape, axes))


def _keep_batch(node: OnnxNode, axes: list[int], rank: int) -> None:
    """Refuse the batch axis where it may have any length."""
    if 0 in axes_of(axes, rank) and node.graph.given.batch == "any":
        raise ValueError("acts on the batch axis")


def concat(node: OnnxNode) -> Value:
    """Return computed values joined along an axis."""
    values = [node.value(index) for index in range(len(node.inputs))]
    return node.graph.concat(node.name, values, node.attributes["axis"])


def slice_(node: OnnxNode) -> Value:
    """Return a range of entries along each of the given axes."""
    result = node.value(0)
    parts = slice_parts(node)
    axes_of([axis for axis, *_ in parts], len(result.shape))
    for axis, start, stop, step in parts:
        result = node.graph.slice(node.name, result, axis, start, stop, step)
    return result


def slice_parts(node: OnnxNode) -> list[tuple[int, int, int, int]]:
    """Return (axis, start, stop, step) for each axis that a Slice names."""
    if node.opset >= 10:
        starts, stops = node.integers(1), node.integers(2)
        axes = node.integers(3) if node.has(3) else list(range(len(starts)))
        steps = node.integers(4) if node.has(4) else [1] * len(starts)
    else:
        starts, stops = node.attributes["starts"], node.attributes["ends"]
        axes, steps = node.attributes.get("axes", list(range(len(starts)))), [1] * len(starts)
    if not len(starts) == len(stops) == len(axes) == len(steps):
        raise ValueError("starts, ends, axes and steps differ in length")
    return list(zip(axes, starts, stops, steps, strict=True))
