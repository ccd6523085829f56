"""Random ONNX files whose first nodes compute a constant, by every operator that the reader folds and some it does not.

The file is y = x + constant, so that at x = 0 the output has the constant's bits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from encoders.formats.onnx_file import OPSETS
from tests.networks.onnx_drawing import Drawing, Shape
from tests.networks.onnx_models import DOUBLE, FLOAT
from tests.networks.onnx_move_sweep import by_element, by_place, pad, repeat, split, triangle
from tests.networks.onnx_sweep import move, slice_

TYPES = (np.float32, np.float32, np.float64, np.int64, np.int32)


def values(d: Drawing, dtype: Any, shape: Shape) -> str:
    """Return the name of new numbers of a type, zeros, halves and signs among them."""
    numbers = d.random.normal(size=shape) * 3 if d.chance(0.8) else d.random.integers(-3, 4, size=shape) / 2
    if dtype in (np.int64, np.int32, np.bool_):
        numbers = d.random.integers(-7, 8, size=shape)
    return d.stored(np.asarray(numbers).astype(dtype))


def arithmetic(d: Drawing, c: str, shape: Shape) -> str:
    if d.chance(0.3):
        name = d.choice(["Abs", "Neg", "Identity", "Sqrt"])
        return d.add(name, d.add("Abs", c) if name == "Sqrt" else c)
    other = values(d, d.weights[c].dtype, tuple(d.choice([n, 1]) for n in shape)[d.integer(0, len(shape)) :])
    pair = [c, other] if d.chance() else [other, c]
    return d.add(d.choice(["Add", "Sub", "Mul", "Div"]), *pair)


def choosing(d: Drawing, c: str, shape: Shape) -> str:
    if d.opset < 11 and d.weights[c].dtype.kind == "f":
        return d.add("Identity", c)
    equal = d.add("Equal", c, values(d, d.weights[c].dtype, shape[1:]))
    if d.opset < 9 or d.chance(0.3):
        return d.add("Cast", equal, to=FLOAT)
    return d.add("Where", equal, values(d, np.float32, shape), values(d, np.float32, (1,)))


def cast(d: Drawing, c: str, shape: Shape) -> str:
    names = [FLOAT, DOUBLE, TensorProto.INT64, TensorProto.INT32, TensorProto.BOOL]
    return d.add("Cast", d.add("Cast", c, to=d.choice(names)), to=FLOAT)


def rounding_cast(d: Drawing, c: str, shape: Shape) -> str:
    """Return numbers of 64 bits in float32: ties, subnormal and huge ones among them."""
    exact = np.array([1 + 2.0**-24, 1 + 3 * 2.0**-24, 1e-40, -1e-46, 3e38, 0.1, -1 / 3, 2.0**-149 * 1.5])
    whole = np.array([2**24 + 1, 2**24 + 3, -(2**53) + 1, 2**62 - 1, 7], np.int64)
    return d.add("Cast", d.stored(d.choice([exact, whole])), to=FLOAT)


def gather(d: Drawing, c: str, shape: Shape) -> str:
    axis = d.axis(len(shape))
    size = shape[axis]
    indices = d.random.integers(-size if d.opset >= 11 else 0, size, size=d.choice([(), (2,), (1, 3)]))
    return d.add("Gather", c, d.stored(np.asarray(indices, d.choice([np.int64, np.int32]))), axis=axis)


def made(d: Drawing, c: str, shape: Shape) -> str:
    match d.integer(0 if d.opset >= 9 else 1, 4 if d.opset >= 11 else 3):
        case 0:
            value = numpy_helper.from_array(d.random.normal(size=1).astype(np.float32))
            return d.add("ConstantOfShape", d.stored(np.array(shape)), value=d.choice([None, value]))
        case 1:
            wanted = d.choice([shape, (2, *shape), tuple(1 for _ in shape), shape[-1:]])
            return d.add("Expand", c, d.stored(np.array(wanted)))
        case 2:
            sizes = d.add("Shape", c, start=d.choice([None, 0, 1, -1]), end=d.choice([None, 2, -1, 9]))
            return d.add("Cast", sizes, to=FLOAT)
        case 4:
            ends = [d.stored(np.array(d.integer(-9, 9), d.choice([np.int64, np.int64, np.int32]))) for _ in range(2)]
            return d.add("Cast", d.add("Range", *ends, d.stored(np.array(d.choice([1, 2, -1])))), to=FLOAT)
        case _:
            one, many = float(d.random.normal()), [float(v) for v in d.random.normal(size=3)]
            given = d.choice([{"value_float": one}, {"value_floats": many}]) if d.opset >= 12 else {}
            return d.add("Constant", **(given or {"value": numpy_helper.from_array(np.array(many, np.float32))}))


def other(d: Drawing, c: str, shape: Shape) -> str:
    """Return a node that sums, rounds in its own way or means different things in different opsets."""
    operator = d.choice(["Softmax", "LogSoftmax", "Hardmax", "Exp", "Log", "ReduceSum", "Sigmoid", "Erf", "Relu"])
    return d.add(operator if onnx.defs.has(operator, d.opset, "") else "Exp", c)


def squeeze(d: Drawing, c: str, shape: Shape) -> str:
    ones = [axis for axis, size in enumerate(shape) if size == 1]
    wide = c if ones else d.axes("Unsqueeze", c, [0], 13)
    return d.axes("Squeeze", wide, d.choice([None, ones or [0], [axis - len(shape) for axis in ones] or [0]]), 13)


FOLDED: tuple[Callable[[Drawing, str, Shape], str], ...] = (
    *(arithmetic, arithmetic, arithmetic, choosing, cast, rounding_cast, gather, made, made),
    *(move, move, squeeze, slice_, other),
    *(by_element, by_element, by_place, by_place, pad, pad, repeat, repeat, split, triangle),
)


def drawn_constant(seed: int) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    """Return the file that computes a constant alone (no input), and the nodes of the same in a model to complete."""
    random = np.random.default_rng(seed)
    d = Drawing(random, int(random.integers(OPSETS[0], OPSETS[-1] + 1)), np.float32, False)
    shape = tuple(int(n) for n in random.permutation([1, 2, 3])[: int(random.integers(1, 4))])
    drawer = FOLDED[int(random.integers(len(FOLDED)))]
    constant = values(d, d.choice(TYPES), shape)
    output = drawer(d, constant, shape)
    if d.chance(0.3) and drawer is not other:
        output = d.add("Identity", output)
    graph = helper.make_graph(
        d.nodes,
        "constant",
        [],
        [onnx.ValueInfoProto(name=output)],
        [numpy_helper.from_array(value, name) for name, value in d.weights.items()],
    )
    alone = helper.make_model(graph, opset_imports=[helper.make_opsetid("", d.opset)], ir_version=8)
    return alone, added_to_input(alone, output)


def added_to_input(alone: onnx.ModelProto, constant: str) -> onnx.ModelProto:
    """Return y = x + constant; the shape and the type of x are left to be filled in."""
    source = onnx.ModelProto()
    source.CopyFrom(alone)
    source.graph.node.append(helper.make_node("Add", ["x", constant], ["y"]))
    source.graph.output[0].CopyFrom(onnx.ValueInfoProto(name="y"))
    return source


def with_input(source: onnx.ModelProto, constant: np.ndarray) -> onnx.ModelProto:
    """Return the file with an input to which the constant fits; integers are cast first."""
    copy = onnx.ModelProto()
    copy.CopyFrom(source)
    if constant.dtype.kind != "f":
        last = copy.graph.node[-1]
        copy.graph.node.insert(len(copy.graph.node) - 1, helper.make_node("Cast", [last.input[1]], ["cast"], to=FLOAT))
        copy.graph.node[-1].input[1] = "cast"
    element = DOUBLE if constant.dtype == np.float64 else FLOAT
    copy.graph.input.append(helper.make_tensor_value_info("x", element, [1, *(constant.shape or (1,))]))
    copy.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", element, None))
    return copy
