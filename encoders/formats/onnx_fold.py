"""Constants that the reader computes: the few operators by which exporters write shapes and rearrange weights.

The table is an allow-list. Every row means the same in opsets 8 to 21 but for what its function asks of the opset, and
gives, bit for bit, what a runtime computes at loading: it moves values, counts in integers that do not overflow, or
rounds once as IEEE 754 says. Whatever sums, or calls an elementary function, would leave open which rounding the
runtime takes, and is refused. Memory is claimed before it is allocated (`Memory.fold`).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from encoders.formats import onnx_cell_ops as cells
from encoders.formats import onnx_index_ops as indices
from encoders.formats.graph import MAXIMUM_RANK, Value
from encoders.formats.onnx_axes import axis_of, flattened, reshaped, squeezed, unsqueezed
from encoders.formats.onnx_cells import folded
from encoders.formats.onnx_node import Constant, OnnxNode
from encoders.formats.onnx_shape_ops import split_sizes
from encoders.formats.onnx_tensor import decode, element_type
from encoders.formats.runtime import Array

# Integers beyond this are no shapes; below it float64 counts exactly, so that an overflow is noticed.
LARGEST_INTEGER = 2**53


def _moved(given: Constant, move: Callable[[Array], Array]) -> Constant:
    """Return the constant with its entries moved, and with them the marks of those that hold the batch."""
    return Constant(move(given.array), None if given.of_batch is None else move(given.of_batch), given.folded)


def _marks(inputs: list[Constant]) -> Array | None:
    """Return where a result of broadcast inputs holds the batch; None if nowhere."""
    if all(given.of_batch is None for given in inputs):
        return None
    marks: Array = np.zeros((), bool)
    for given in inputs:
        own = np.zeros(given.array.shape, bool) if given.of_batch is None else given.of_batch
        marks = marks | own
    return marks


def constant(node: OnnxNode) -> Constant:
    """Return what the node's one attribute stores."""
    if len(node.attributes) != 1:
        raise ValueError(f"stores {sorted(node.attributes)}; supported: one value")
    ((name, value),) = node.attributes.items()
    if name == "value":
        return Constant(decode(value, node.memory.limits))
    dtype = np.float32 if name.startswith("value_float") else np.int64
    return Constant(np.array(value, dtype))


def range_(node: OnnxNode) -> Constant:
    """Return whole numbers from a start to before an end."""
    ends = [node.array(index) for index in range(3)]
    if any(end.size != 1 or end.dtype.kind != "i" or end.dtype != ends[0].dtype for end in ends):
        raise ValueError("takes three whole numbers of one type; export the model with its constants folded")
    numbers = range(*(int(end.item()) for end in ends))
    node.memory.fold(len(numbers) * ends[0].itemsize)
    return Constant(np.array(numbers, ends[0].dtype), folded=True)


def split(node: OnnxNode) -> tuple[Constant, ...]:
    """Return consecutive parts of an axis."""
    given = node.constant(0)
    axis = axis_of(node.attributes.get("axis", 0), given.array.ndim)
    ends = np.cumsum(split_sizes(node, given.array.shape[axis]))[:-1]
    parts = np.split(given.array, ends, axis)
    marks = [None] * len(parts) if given.of_batch is None else np.split(given.of_batch, ends, axis)
    return tuple(Constant(part, mark, True) for part, mark in zip(parts, marks, strict=True))


def constant_of_shape(node: OnnxNode) -> Constant:
    """Return one value repeated, by default a float32 zero."""
    value: Array = np.zeros(1, np.float32)
    if "value" in node.attributes:
        value = decode(node.attributes["value"], node.memory.limits)
    if value.size != 1:
        raise ValueError(f"repeats a value of shape {value.shape}; supported: one number")
    return Constant(_broadcast(node, value.reshape(()), node.integers(0)), folded=True)


def _broadcast(node: OnnxNode, array: Array, shape: list[int]) -> Array:
    if min(shape, default=0) < 0 or len(shape) > MAXIMUM_RANK:
        raise ValueError(f"shape {shape[:8]} is not supported; supported: up to {MAXIMUM_RANK} sizes, none negative")
    node.memory.fold(math.prod(shape) * array.itemsize)
    return np.broadcast_to(array, shape)


def shape(node: OnnxNode) -> Constant:
    """Return the sizes of a value or constant, from `start` to before `end`."""
    given = node.inputs[0]
    assert given is not None
    sizes = given.shape if isinstance(given, Value) else given.array.shape
    marks = np.zeros(len(sizes), bool)
    if isinstance(given, Value) and node.graph.given.batch == "any" and sizes:
        marks[0] = True
    part = slice(node.attributes.get("start", 0), node.attributes.get("end"))
    marks = marks[part]
    return Constant(np.array(sizes, np.int64)[part], marks if marks.any() else None)


def identity(node: OnnxNode) -> Constant:
    """Return the constant."""
    return node.constant(0)


def reshape(node: OnnxNode) -> Constant:
    """Return the constant under another shape."""
    given = node.constant(0)
    target = reshaped(given.array.shape, node.integers(1), bool(node.attributes.get("allowzero", 0)))
    return _viewed(node, given, target)


def flatten(node: OnnxNode) -> Constant:
    """Return the constant as a matrix."""
    given = node.constant(0)
    return _viewed(node, given, flattened(given.array.shape, node.attributes.get("axis", 1)))


def squeeze(node: OnnxNode) -> Constant:
    """Return the constant without axes of size 1: the given ones, or all."""
    given, axes = node.constant(0), node.integers_by_name("axes", 1, 13)
    if axes is None:
        axes = [axis for axis, size in enumerate(given.array.shape) if size == 1]
    return _viewed(node, given, squeezed(given.array.shape, axes))


def unsqueeze(node: OnnxNode) -> Constant:
    """Return the constant with new axes of size 1."""
    given, axes = node.constant(0), node.integers_by_name("axes", 1, 13)
    if axes is None:
        raise ValueError("axes are missing")
    return _viewed(node, given, unsqueezed(given.array.shape, axes))


def _viewed(node: OnnxNode, given: Constant, target: list[int] | tuple[int, ...]) -> Constant:
    """Return the constant in C order under another shape; what lies in another order is copied."""
    if len(target) > MAXIMUM_RANK:
        raise ValueError(f"a constant of {len(target)} axes is not supported; supported: up to {MAXIMUM_RANK}")
    if not given.array.flags.c_contiguous:
        node.memory.fold(given.array.nbytes)
    return _moved(given, lambda array: array.reshape(target))


def transpose(node: OnnxNode) -> Constant:
    """Return permuted axes."""
    given = node.constant(0)
    order = node.attributes.get("perm", list(reversed(range(given.array.ndim))))
    if sorted(order) != list(range(given.array.ndim)):
        raise ValueError(f"{tuple(order)} does not permute the axes of {given.array.shape}")
    return _moved(given, lambda array: array.transpose(order))


def cast(node: OnnxNode) -> Constant:
    """Return the constant in another type: rounded to nearest, or towards zero to an integer that has room for it."""
    given, target = node.constant(0), element_type(node.attributes["to"])
    if target.kind == "i" and given.array.dtype.kind == "f" and given.array.size:
        limit = 2.0 ** (8 * target.itemsize - 1)
        # Written so that NaN is refused too.
        if not bool(((given.array > -limit) & (given.array < limit)).all()):
            raise ValueError(f"a cast to {target} of numbers that do not fit is not supported")
    if target.kind == "i" and given.array.dtype.kind == "i" and bool((given.array != given.array.astype(target)).any()):
        raise ValueError(f"a cast to {target} of numbers that do not fit is not supported")
    node.memory.fold(given.array.size * target.itemsize)
    with np.errstate(all="ignore"):
        return Constant(given.array.astype(target), given.of_batch, True)


def _elementwise(compute: Callable[..., Array], types: str) -> Callable[[OnnxNode], Constant]:
    """Return the folder of an operator on one or two broadcast inputs of one type, of the kinds named."""

    def fold(node: OnnxNode) -> Constant:
        inputs = [node.constant(index) for index in range(len(node.inputs))]
        arrays = [given.array for given in inputs]
        if len({array.dtype for array in arrays}) != 1 or arrays[0].dtype.kind not in types:
            kinds = ", ".join(str(array.dtype) for array in arrays)
            raise ValueError(f"constants of type {kinds} are not computed")
        size = math.prod(np.broadcast_shapes(*(array.shape for array in arrays)))
        # Three times: the result, and in integers the same in float64 with its absolute values.
        node.memory.fold(3 * size * max(8, arrays[0].itemsize) if arrays[0].dtype.kind == "i" else size * 8)
        with np.errstate(all="ignore"):
            result = np.asarray(compute(*arrays))
            if arrays[0].dtype.kind == "i":
                _check_overflow(compute, arrays)
        return Constant(result, _marks(inputs), True)

    return fold


def _check_overflow(compute: Callable[..., Array], arrays: list[Array]) -> None:
    """Raise ValueError if integers grow so large that runtimes might wrap them in different ways."""
    largest = min(LARGEST_INTEGER, 2 ** (8 * arrays[0].itemsize - 1) - 1)
    results = [*arrays, np.asarray(compute(*(array.astype(np.float64) for array in arrays)))]
    if any(bool((np.abs(result.astype(np.float64)) > largest).any()) for result in results):
        raise ValueError(f"integers beyond {largest} are not computed")


def _divide(a: Array, b: Array) -> Array:
    """Return the quotient; integers are cut off towards zero, as in C."""
    if a.dtype.kind == "i":
        if bool((b == 0).any()):
            raise ValueError("an integer constant is divided by zero")
        quotient: Array = (np.abs(a) // np.abs(b)) * np.sign(a) * np.sign(b)
        return quotient
    result: Array = a / b
    return result


def where(node: OnnxNode) -> Constant:
    """Return entries of the second input where the first is true, else of the third; broadcast."""
    inputs = [node.constant(index) for index in range(3)]
    condition, a, b = (given.array for given in inputs)
    if condition.dtype != np.bool_ or a.dtype != b.dtype:
        raise ValueError(f"constants of type {condition.dtype}, {a.dtype}, {b.dtype} are not computed")
    node.memory.fold(math.prod(np.broadcast_shapes(condition.shape, a.shape, b.shape)) * a.itemsize)
    return Constant(np.where(condition, a, b), _marks(inputs), True)


# Operator: (the function, the attributes that it understands).
FOLDERS: dict[str, tuple[Callable[[OnnxNode], Constant | tuple[Constant, ...]], tuple[str, ...]]] = {
    "Abs": (_elementwise(np.abs, "if"), ()),
    "Add": (_elementwise(np.add, "if"), ()),
    # saturate only matters for casts to 8-bit floats, which are refused.
    "Cast": (cast, ("to", "saturate")),
    "Concat": (folded(cells.concat), ("axis",)),
    "Constant": (constant, ("value", "value_float", "value_floats", "value_int", "value_ints")),
    "ConstantOfShape": (constant_of_shape, ("value",)),
    "Div": (_elementwise(_divide, "if"), ()),
    "Equal": (_elementwise(np.equal, "ifb"), ()),
    "Expand": (folded(cells.expand, 0), ()),
    "Flatten": (flatten, ("axis",)),
    "Gather": (folded(indices.gather, 0), ("axis",)),
    "GatherElements": (folded(indices.gather_elements, 0), ("axis",)),
    "GatherND": (folded(indices.gather_nd, 0), ("batch_dims",)),
    "Identity": (identity, ()),
    "Mul": (_elementwise(np.multiply, "if"), ()),
    "Neg": (_elementwise(np.negative, "if"), ()),
    "Pad": (folded(cells.pad, 0, fill=cells.padding_value), ("mode", "pads", "value")),
    "Range": (range_, ()),
    "Reshape": (reshape, ("allowzero",)),
    "ScatterElements": (folded(indices.scatter_elements, 0, 2), ("axis", "reduction")),
    "ScatterND": (folded(indices.scatter_nd, 0, 2), ("reduction",)),
    "Shape": (shape, ("start", "end")),
    "Slice": (folded(cells.slice_, 0), ("starts", "ends", "axes")),
    "Split": (split, ("axis", "num_outputs", "split")),
    "Sqrt": (_elementwise(np.sqrt, "f"), ()),
    "Squeeze": (squeeze, ("axes",)),
    "Sub": (_elementwise(np.subtract, "if"), ()),
    "Tile": (folded(cells.tile, 0), ()),
    "Transpose": (transpose, ("perm",)),
    "Trilu": (folded(cells.trilu, 0, fill=cells.zero), ("upper",)),
    "Unsqueeze": (unsqueeze, ("axes",)),
    "Where": (where, ()),
}


def fold(node: OnnxNode) -> Constant | tuple[Constant, ...]:
    """Return the node's outputs; raise ValueError for an operator that is not folded, LimitError for a large result."""
    if node.kind not in FOLDERS:
        raise ValueError(
            "is computed from constants alone, by an operator that is not folded (nothing random, no text, no sums, no "
            f"control flow); folded: {', '.join(FOLDERS)}. Export the model with its constants folded"
        )
    return FOLDERS[node.kind][0](node)
