"""ONNX operators that only move values, or leave them as they are."""

import numpy as np

from encoders.formats.graph import Value
from encoders.formats.onnx_axes import axes_of, axis_of, flattened, reshaped, squeezed, unsqueezed
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
        if node.graph.has_batch:
            raise ValueError("without axes it removes the batch axis of a batch of one; export it with axes given")
        axes = [axis for axis, size in enumerate(x.shape) if size == 1]
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


def split(node: OnnxNode) -> tuple[Value, ...]:
    """Return consecutive parts of an axis."""
    x = node.value(0)
    axis = axis_of(node.attributes.get("axis", 0), len(x.shape))
    ends = np.cumsum([0, *split_sizes(node, x.shape[axis])]).tolist()
    parts = zip(node.outputs, ends[:-1], ends[1:], strict=True)
    return tuple(node.graph.slice(name, x, axis, start, stop, 1) for name, start, stop in parts)


def split_sizes(node: OnnxNode, size: int) -> list[int]:
    """Return the lengths of the parts into which Split cuts an axis."""
    count = len(node.outputs)
    if "" in node.outputs:
        # onnxruntime 1.32 reads through a null pointer there.
        raise ValueError("leaves the name of an output out, at which onnxruntime crashes; name every output")
    sizes = node.integers_by_name("split", 1, 13)
    if sizes is None and node.opset >= 18:
        # The last part is the shorter one.
        if node.attributes.get("num_outputs") != count:
            raise ValueError(f"num_outputs = {node.attributes.get('num_outputs')} does not fit {count} outputs")
        part = -(-size // count)
        sizes = [max(min(part, size - start), 0) for start in range(0, part * count, part)]
    elif sizes is None:
        if size % count:
            raise ValueError(f"{size} entries do not split into {count} equal parts")
        sizes = [size // count] * count
    if len(sizes) != count or min(sizes) < 1 or sum(sizes) != size:
        raise ValueError(f"parts of {sizes} do not fit {size} entries and {count} outputs")
    return sizes


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
