"""Random ONNX files of one or a few nodes over opsets 8 to 21, for comparing the reader with onnxruntime.

An operator is drawn with attributes of every kind that its opset knows, also such as the reader refuses. Sizes are
small and primes apart, lest a wrong axis fit by chance.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
from onnx import helper, numpy_helper

from encoders.formats.errors import ModelFileError
from encoders.formats.onnx_file import OPSETS
from encoders.formats.onnx_reader import convert
from tests.networks.onnx_drawing import Drawing, Random, Shape
from tests.networks.onnx_models import DOUBLE, FLOAT
from tests.networks.onnx_move_sweep import MOVES
from tests.networks.onnx_window_sweep import WINDOW_SHAPES, WINDOWS


def unary(d: Drawing, x: str, shape: Shape) -> str:
    operator = d.choice(["Relu", "Abs", "Neg", "Sigmoid", "Tanh", "LeakyRelu", "Identity", "Cast"])
    to = d.choice([FLOAT, DOUBLE]) if operator == "Cast" else None
    alpha = d.choice([None, 0.0, 0.25, 1.0, 1.5, -0.5]) if operator == "LeakyRelu" else None
    return d.add(operator, x, alpha=alpha, to=to)


def over_classes(d: Drawing, x: str, shape: Shape) -> str:
    axis = d.choice([None, d.axis(len(shape))])
    if d.chance(0.7):
        return d.add(d.choice(["Softmax", "LogSoftmax"]), x, axis=axis)
    last = d.choice([None, None, None, 0, 1])
    places = d.add("ArgMax", x, axis=axis, keepdims=d.choice([None, 0, 1]), select_last_index=last)
    places = d.add("Mul", places, places) if d.chance(0.1) else places
    return d.axes("Unsqueeze", d.add("Cast", places, to=FLOAT if d.dtype == np.float32 else DOUBLE), [1], 13)


def dropout(d: Drawing, x: str, shape: Shape) -> str:
    inputs = [x]
    if d.opset >= 12 and d.chance():
        inputs.append(d.stored(np.float32(0.5)))
        if d.chance():
            inputs.append(d.stored(np.bool_(d.chance(0.3))))
    return d.add("Dropout", *inputs, ratio=d.choice([None, 0.3]))


def clip(d: Drawing, x: str, shape: Shape) -> str:
    low, high = d.choice([None, 0.0, 0.0, -1.0]), d.choice([None, None, 6.0, 0.5, -2.0])
    if d.opset < 11:
        return d.add("Clip", x, min=low, max=high)
    ends = ["" if end is None else d.stored(np.asarray(end, d.dtype)) for end in (low, high)]
    return d.add("Clip", x, *ends)


# Functions of one number, and the first opset that has them.
CURVES = {
    "Atan": 7, "Celu": 12, "Cos": 8, "Elu": 8, "Erf": 9, "Exp": 8, "Gelu": 20, "HardSigmoid": 8, "HardSwish": 14,
    "Log": 8, "Mish": 18, "Reciprocal": 8, "Selu": 8, "Sign": 9, "Sin": 8, "Softplus": 8, "Softsign": 8, "Sqrt": 8,
}  # fmt: skip


def curve(d: Drawing, x: str, shape: Shape) -> str:
    # Operators of few opsets come more often where they exist; in double onnxruntime has some with float constants.
    names = [name for name, since in CURVES.items() if since <= d.opset for _ in range(5 if since >= 12 else 1)]
    if d.dtype != np.float32:
        names = [name for name in names if name not in ("Celu", "Gelu", "HardSwish")]
    operator = d.choice(names)
    if operator in ("Log", "Sqrt", "Reciprocal"):
        x = away_from_zero(d, x)
    return d.add(
        operator,
        x,
        alpha=d.choice([None, 0.25, 1.5] if operator == "Celu" else [None, 0.0, 0.25, 1.0, 1.5, -0.5]),
        beta=d.choice([None, 0.1]),
        gamma=d.choice([None, 0.7]),
        approximate=d.choice([None, "none", "tanh", "other"]),
    )


def away_from_zero(d: Drawing, x: str) -> str:
    """Return |x| + 1/2: near a pole the rounding of what comes before would be all that is compared."""
    return d.add("Add", d.add("Abs", x), d.stored(np.asarray(0.5, d.dtype)))


def power(d: Drawing, x: str, shape: Shape) -> str:
    exponent = d.choice([2.0, 3.0, 0.5, -1.0, -0.5, 1.5, -2.0, 1.0, 0.0])
    kind = np.int64 if exponent == int(exponent) and d.opset >= 12 and d.chance(0.3) else d.dtype
    stored = np.full(d.choice([(), (1,), (1,) * len(shape), (shape[-1],), (2, *shape)]), exponent, kind)
    return d.add("Pow", x if exponent == int(exponent) > 0 else away_from_zero(d, x), d.stored(stored))


def extreme(d: Drawing, x: str, shape: Shape) -> str:
    others = [x, d.add("Neg", x), d.weight(), d.weight(shape[-1]), d.weight(*shape), d.weight(2, shape[-1])]
    chosen = [d.choice(others) for _ in range(d.integer(0, 2))]
    chosen.insert(d.integer(0, len(chosen)), x)
    return d.add(d.choice(["Max", "Min"]), *chosen)


def prelu(d: Drawing, x: str, shape: Shape) -> str:
    if d.chance(0.1):
        return d.add("PRelu", x, d.add("Neg", x))
    sizes = d.choice([(), (1,), shape[-1:], shape[1:], (shape[1], *[1] * (len(shape) - 2)) if len(shape) > 1 else (1,)])
    return d.add("PRelu", x, d.weight(*sizes))


def binary(d: Drawing, x: str, shape: Shape) -> str:
    operator = d.choice(["Add", "Sub", "Mul", "Div"])
    if d.chance(0.2):
        other = d.choice([x, d.add("Relu", x)])
        # Half of the numbers that a relu leaves are zeros.
        other = away_from_zero(d, other) if operator == "Div" else other
    else:
        sizes = [d.choice([size, size, 1]) for size in shape][d.integer(0, len(shape)) :]
        other = d.weight(*(d.choice([[], [1], [2]]) if d.chance(0.1) else []), *sizes)
        d.weights[other] = np.asarray(d.weights[other] + np.sign(d.weights[other]), d.dtype)
    if d.chance(0.6):
        return d.add(operator, x, other)
    return d.add(operator, other, away_from_zero(d, x) if operator == "Div" else x)


def of_two(d: Drawing, x: str, shape: Shape) -> str:
    """Return a product or a quotient of two computed values, of which one may be broadcast, or a normalisation."""
    draw = d.integer(0, 3)
    if draw == 0 and d.opset >= 17:
        axis = d.axis(len(shape))
        inputs = [x, d.weight(*shape[axis:]), *([d.weight(*shape[axis:])] if d.chance() else [])]
        return d.add("LayerNormalization", *inputs, axis=axis, epsilon=d.choice([None, 0.1]))
    if draw == 1:
        order = [*range(len(shape) - 2), len(shape) - 1, len(shape) - 2] if len(shape) > 1 else None
        pair = [x, d.add("Transpose", d.add("Neg", x), perm=order)]
        return d.add("MatMul", *(pair if d.chance(0.8) else pair[:1] * 2))
    other = d.axes("ReduceMean", x, [d.axis(len(shape))], 18, keepdims=1) if d.chance() else d.add("Tanh", x)
    if draw == 2:
        return d.add("Mul", *([x, other] if d.chance() else [other, x]))
    positive = d.add("Add", d.add("Abs", other), d.stored(np.asarray(0.5, d.dtype)))
    return d.add("Div", d.choice([x, other, d.weight(shape[-1])]), positive)


def gemm(d: Drawing, x: str, shape: Shape) -> str:
    if len(shape) != 2:
        x, shape = d.add("Flatten", x), (shape[0], int(np.prod(shape[1:])))
    outputs, transposed = d.integer(1, 4), d.chance()
    inputs = [x, d.weight(*((outputs, shape[1]) if transposed else (shape[1], outputs)))]
    if d.opset < 11 or d.chance(0.7):
        inputs.append(
            d.weight(*d.choice([(outputs,), (1, outputs), (1,), (1, 1), (), (shape[0], outputs), (shape[0], 1)]))
        )
    if d.chance(0.15):
        inputs[:2] = inputs[1::-1]
    return d.add(
        "Gemm",
        *inputs,
        transA=d.choice([None, 0, 0, 1]),
        transB=int(transposed) if transposed or d.chance() else None,
        alpha=d.choice([None, 1.0, 0.7, -2.0, 0.0]),
        beta=d.choice([None, 1.0, 0.3, 2.0, 0.0]),
    )


def matmul(d: Drawing, x: str, shape: Shape) -> str:
    if d.chance(0.7):
        return d.add("MatMul", x, d.weight(shape[-1], *d.choice([[3], [3], []])))
    rows = shape[-2] if len(shape) > 1 else shape[0]
    return d.add("MatMul", d.weight(*d.choice([[3, rows], [rows]])), x)


def mean(d: Drawing, x: str, shape: Shape) -> str:
    if d.chance(0.3):
        return d.add("GlobalAveragePool", x)
    rank = len(shape)
    axes = d.choice([[2, 3], [-1, -2], [3, 2], [-1, 2], [1, 2, 3], [3], [2], [1], None, [0, 2, 3]])
    if axes and max(axes) >= rank:
        axes = [rank - 1]
    return d.axes(
        "ReduceMean",
        x,
        axes,
        18,
        keepdims=d.choice([None, 0, 1]),
        noop_with_empty_axes=d.choice([None, 0, 1]),
    )


def batch_norm(d: Drawing, x: str, shape: Shape) -> str:
    channels = shape[1] if len(shape) > 1 else shape[0]
    statistics = [d.weight(channels) for _ in range(4)]
    d.weights[statistics[3]] = np.abs(d.weights[statistics[3]])
    return d.add(
        "BatchNormalization",
        x,
        *statistics,
        epsilon=d.choice([None, 1e-3, 0.5]),
        momentum=d.choice([None, 0.5]),
        spatial=d.choice([None, 1, 1]),
        training_mode=d.choice([None, 0, 0, 1]),
    )


def move(d: Drawing, x: str, shape: Shape) -> str:
    rank = len(shape)
    match d.integer(0, 6):
        case 0:
            return d.add("Flatten", x, axis=d.choice([None, d.integer(-rank, rank)]))
        case 1:
            return d.add(
                "Reshape", x, d.stored(np.array(wanted_shape(d, shape))), allowzero=d.choice([None, None, 0, 1])
            )
        case 2:
            order = [int(axis) for axis in d.random.permutation(rank)]
            if d.chance(0.8):
                order = [0, *(axis for axis in order if axis)]
            return d.add("Transpose", x, perm=d.choice([order, order, order, None]))
        case 3:
            new = sorted({d.integer(0, rank) for _ in range(d.integer(1, 2))})
            new = [axis - rank - len(new) if d.chance() else axis for axis in new]
            return d.axes("Unsqueeze", x, new, 13)
        case 4:
            one = d.integer(1, rank)
            wide = d.axes("Unsqueeze", x, [one], 13)
            gone = d.choice([[one], [one - rank - 1], [0], None])
            return d.axes("Squeeze", d.add("Relu", wide), gone, 13)
        case 5:
            parts = [x, d.add("Neg", x), x][: d.integer(1, 3)]
            return d.add("Concat", *parts, axis=d.axis(rank))
        case _:
            return slice_(d, x, shape)


def wanted_shape(d: Drawing, shape: Shape) -> list[int]:
    """Return a shape for Reshape, right or wrong, with 0 and -1."""
    rest = list(d.choice([shape[1:], shape[:0:-1], (int(np.prod(shape[1:])),), (*shape[1:], 1)]))
    wanted = [d.choice([0, shape[0], 1, -1]), *rest]
    if d.chance() and -1 not in wanted:
        wanted[d.integer(0, len(wanted) - 1)] = -1
    if d.chance(0.2):
        wanted[d.integer(0, len(wanted) - 1)] = 0
    return wanted


def slice_(d: Drawing, x: str, shape: Shape) -> str:
    count = d.integer(1, len(shape))
    axes = [int(axis) for axis in d.random.permutation(len(shape))[:count]]
    ends = [-(2**62), -9, -3, -2, -1, 0, 1, 2, 3, 9, 2**31 - 1, 2**62]
    starts = [d.choice([0, 0, 1, 2, -2, -9, 2**40, -(2**62)]) for _ in axes]
    stops, steps = [d.choice(ends) for _ in axes], [d.choice([1, 1, 1, 2, 3, -1, -2]) for _ in axes]
    axes = [axis - len(shape) if d.chance() else axis for axis in axes]
    if d.opset < 10:
        return d.add("Slice", x, starts=starts, ends=stops, axes=axes if d.chance(0.7) else None)
    inputs = [d.stored(np.array(starts)), d.stored(np.array(stops))]
    if d.chance(0.8):
        inputs.append(d.stored(np.array(axes)))
        if d.chance(0.7):
            inputs.append(d.stored(np.array(steps)))
    return d.add("Slice", x, *inputs)


def shape_chain(d: Drawing, x: str, shape: Shape) -> str:
    """Return what exporters write around a reshape, or a value that depends on the size of the batch."""
    limits = {"start": d.choice([None, 0, 1, -2]), "end": d.choice([None, 2, -1])}
    sizes = d.add("Shape", x, **limits)
    if d.chance(0.3):
        sizes = d.add("Cast", sizes, to=FLOAT if d.dtype == np.float32 else DOUBLE)
        return d.add(d.choice(["Mul", "Add"]), x, d.add("Gather", sizes, d.stored(np.array([0]))))
    first = d.add("Gather", sizes, d.stored(np.array(d.choice([0, 0, -1]))), axis=0)
    first = d.axes("Unsqueeze", first, [0], 13)
    target = d.add("Concat", first, d.stored(np.array(d.choice([[-1], [shape[-1], -1]]))), axis=0)
    return d.add("Reshape", x, target)


IMAGES = (mean, mean, batch_norm)
ANY = (unary, unary, dropout, clip, binary, binary, gemm, matmul, matmul, move, move, slice_, slice_, shape_chain)
ONE_NUMBER = (curve, curve, curve, curve, power, extreme, prelu)
OTHERS = (over_classes, over_classes, of_two, of_two)
DRAWERS: tuple[Callable[[Drawing, str, Shape], str], ...] = (
    *IMAGES,
    *WINDOWS,
    *ANY,
    *MOVES,
    *ONE_NUMBER,
    *OTHERS,
)


def input_shape(random: Random) -> tuple[Shape, bool]:
    """Return a shape with its first axis, and whether that is free."""
    shape: Shape = tuple(int(size) for size in random.permutation([2, 3, 5, 7])[: int(random.integers(1, 4))])
    kind = random.random()
    if kind < 0.5:
        return (1, *shape), True
    return ((1, *shape) if kind < 0.8 else shape), False


def draw_one(seed: int) -> tuple[Drawing, str, Shape]:
    """Return a drawing of one operator (and what it needs), its output and the input's shape."""
    random = np.random.default_rng(seed)
    drawer = DRAWERS[int(random.integers(len(DRAWERS)))]
    shape, free = input_shape(random)
    if drawer in IMAGES and random.random() < 0.9:
        shape, free = (1, 4, 7, 6), bool(random.random() < 0.5)
    elif drawer in MOVES and random.random() < 0.5:
        shape = (1, 4, 3, 2) if random.random() < 0.5 else (1, 5, 3)
    elif drawer in WINDOWS:
        shape, free = WINDOW_SHAPES[int(random.integers(3))], bool(random.random() < 0.5)
    dtype = np.float64 if random.random() < 0.25 else np.float32
    d = Drawing(random, int(random.integers(OPSETS[0], OPSETS[-1] + 1)), dtype, free)
    output = drawer(d, "x", shape)
    # An identity is no network of its own.
    plain = d.nodes[-1].op_type in ("Identity", "Dropout", "Cast")
    return d, d.add("Neg", output) if plain or d.chance(0.1) else output, shape


def draw_chain(seed: int) -> tuple[Drawing, str, Shape]:
    """Return a drawing of up to five operators in a row, each of which the reader takes."""
    random = np.random.default_rng(seed)
    free = bool(random.random() < 0.5)
    d = Drawing(random, int(random.integers(OPSETS[0], OPSETS[-1] + 1)), np.float32, free)
    value, shape = "x", (1, 4, 7, 6)
    for _ in range(8):
        count, weights = len(d.nodes), dict(d.weights)
        drawer = d.choice([one for one in DRAWERS if len(shape) == 4 or one not in (*WINDOWS, mean)])
        output = drawer(d, value, shape)
        try:
            network = convert(d.model((1, 4, 7, 6), output), "prefix")
        except ModelFileError:
            del d.nodes[count:]
            d.weights = weights
            continue
        value, shape = output, (1, *network.output_shape)
        if len(d.nodes) > 4:
            break
    return d, d.add("Abs", value), (1, 4, 7, 6)


def dress(d: Drawing, source: onnx.ModelProto) -> onnx.ModelProto:
    """Return the file in one of the ways in which exporters write the same graph."""
    graph, way = source.graph, d.integer(0, 5)
    if way == 0:
        source.ir_version = 3
        for tensor in graph.initializer:
            graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    elif way == 1:
        constants = [helper.make_node("Constant", [], [tensor.name], value=tensor) for tensor in graph.initializer]
        nodes = [*constants, *graph.node]
        del graph.initializer[:], graph.node[:]
        graph.node.extend(nodes)
    elif way == 2:
        for node in graph.node:
            node.domain = "ai.onnx"
            node.input.extend([""] if node.op_type in ("Dropout", "Slice") and len(node.input) == 1 else [])
    elif way == 3:
        for tensor in graph.initializer:
            values = numpy_helper.to_array(tensor)
            tensor.CopyFrom(helper.make_tensor(tensor.name, tensor.data_type, values.shape, values.reshape(-1)))
    return source


def drawn_model(seed: int) -> onnx.ModelProto:
    """Return the file of a seed: every fifth is a chain."""
    d, output, shape = draw_chain(seed) if seed % 5 == 0 else draw_one(seed)
    return dress(d, d.model(shape, output))
