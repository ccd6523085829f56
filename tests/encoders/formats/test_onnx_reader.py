"""The ONNX reader against onnxruntime and the standard's reference implementation, operator by operator."""

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import helper

from encoders.formats.errors import ModelFileError
from encoders.formats.onnx_file import OPSETS
from encoders.formats.onnx_operators import OTHER_DOMAINS
from encoders.formats.onnx_reader import HANDLERS, convert
from encoders.network import Network
from tests.networks.onnx_models import FLOAT, in_double, model, run_onnxruntime, run_reference
from tests.networks.onnx_move_cases import MOVE_CASES
from tests.networks.onnx_window_cases import WINDOW_CASES

make = helper.make_node

# float32: two runtimes sum in different orders, which a few hundred summands amplify.
FLOAT_TOLERANCE = 2e-4
# float64: the same, with 29 more bits.
DOUBLE_TOLERANCE = 1e-9
# Functions that the reference has with constants or approximations of float32.
IN_FLOAT, FORMULA_TOLERANCE = ("Erf", "Gelu", "gelu tanh", "HardSwish"), 1e-7


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape) + len(shape)).normal(size=shape)


def one(op: str, shape: list, *weights: np.ndarray, opset: int = 13, **attributes: object) -> onnx.ModelProto:
    """Return a model of one node whose further inputs are constants."""
    names = [f"w{i}" for i in range(len(weights))]
    return model([make(op, ["x", *names], ["y"], **attributes)], shape, dict(zip(names, weights, strict=True)), opset)


IMAGE = ["N", 4, 7, 6]
STATISTICS = (normal(4), normal(4) + 1, normal(4) * 2, np.abs(normal(4)) + 0.1)


def shape_chain() -> onnx.ModelProto:
    """x.view(x.size(0), -1) as old exporters write it."""
    return model(
        [
            make("Shape", ["x"], ["shape"]),
            make("Constant", [], ["zero"], value=helper.make_tensor("", onnx.TensorProto.INT64, [], [0])),
            make("Gather", ["shape", "zero"], ["size"], axis=0),
            make("Unsqueeze", ["size"], ["sizes"], axes=[0]),
            make("Constant", [], ["rest"], value=helper.make_tensor("", onnx.TensorProto.INT64, [1], [-1])),
            make("Concat", ["sizes", "rest"], ["target"], axis=0),
            make("Reshape", ["x", "target"], ["flat"]),
            make("MatMul", ["flat", "w"], ["y"]),
        ],
        ["N", 2, 3, 2],
        {"w": normal(12, 5)},
        opset=9,
    )


def residual() -> onnx.ModelProto:
    return model(
        [
            make("Relu", ["x"], ["a"]),
            make("MatMul", ["a", "w"], ["b"]),
            make("Add", ["x", "b"], ["c"]),
            make("Sub", ["c", "a"], ["d"]),
            make("Concat", ["d", "a", "x"], ["y"], axis=-1),
        ],
        ["N", 4],
        {"w": normal(4, 4)},
    )


# Functions of one number that are defined everywhere.
EVERYWHERE = (
    "Atan", "Celu", "Cos", "Elu", "Erf", "Exp", "Gelu", "HardSigmoid", "HardSwish", "Mish", "Selu", "Sign", "Sin",
    "Softplus", "Softsign",
)  # fmt: skip

CASES: dict[str, Callable[[], onnx.ModelProto]] = {
    "abs": lambda: one("Abs", ["N", 5]),
    "add constant": lambda: one("Add", ["N", 3, 2], normal(3, 1)),
    "add constant in front": lambda: model([make("Add", ["w", "x"], ["y"])], ["N", 3], {"w": normal(3)}),
    "add constant with batch axis": lambda: one("Add", [1, 3], normal(1, 3)),
    "arg max": lambda: model(
        [make("ArgMax", ["x"], ["p"], axis=-1, keepdims=0), make("Cast", ["p"], ["y"], to=FLOAT)], ["N", 2, 5]
    ),
    "average pool": lambda: one("AveragePool", IMAGE, kernel_shape=[3, 2], strides=[2, 1]),
    "average pool padded": lambda: one("AveragePool", IMAGE, kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
    "average pool counting": lambda: one(
        "AveragePool", IMAGE, kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1
    ),
    "batch norm": lambda: one("BatchNormalization", IMAGE, *STATISTICS, epsilon=1e-3),
    "batch norm of vectors": lambda: one("BatchNormalization", ["N", 4], *STATISTICS, opset=9, momentum=0.5),
    "cast to the same type": lambda: model(
        [make("Cast", ["x"], ["a"], to=onnx.TensorProto.FLOAT), make("Relu", ["a"], ["y"])], ["N", 5]
    ),
    "clip as relu": lambda: one("Clip", ["N", 5], np.float32(0), opset=13),
    "clip as relu with infinity": lambda: one("Clip", ["N", 5], np.float32(0), np.float32(np.inf), opset=11),
    "clip as relu by attribute": lambda: one("Clip", ["N", 5], opset=8, min=0.0),
    "clip": lambda: one("Clip", ["N", 5], np.float32(-0.5), np.float32(0.7)),
    "clip by attribute": lambda: one("Clip", ["N", 5], opset=8, max=0.3, min=-0.25),
    "concat": residual,
    "conv": lambda: one("Conv", IMAGE, normal(5, 4, 3, 2)),
    "conv with everything": lambda: one(
        "Conv",
        IMAGE,
        normal(6, 2, 3, 2),
        normal(6),
        group=2,
        pads=[2, 0, 1, 3],
        strides=[2, 1],
        dilations=[1, 2],
        kernel_shape=[3, 2],
    ),
    "conv same upper": lambda: one("Conv", IMAGE, normal(2, 4, 3, 2), auto_pad="SAME_UPPER", strides=[2, 2]),
    "conv same lower": lambda: one("Conv", IMAGE, normal(2, 4, 4, 2), auto_pad="SAME_LOWER", strides=[2, 1]),
    "conv valid": lambda: one("Conv", IMAGE, normal(2, 4, 3, 2), auto_pad="VALID"),
    "constant minus value": lambda: model([make("Sub", ["w", "x"], ["y"])], ["N", 3], {"w": normal(3)}),
    "div": lambda: one("Div", ["N", 3], np.array([0.3, -2.0, 7.0])),
    "dropout": lambda: model([make("Dropout", ["x"], ["a"]), make("Relu", ["a"], ["y"])], ["N", 3]),
    "dropout by attribute": lambda: model(
        [make("Dropout", ["x"], ["a", "mask"], ratio=0.5), make("Relu", ["a"], ["y"])], ["N", 3], opset=10
    ),
    "flatten": lambda: one("Flatten", ["N", 3, 2]),
    "flatten a fixed batch from axis 0": lambda: one("Flatten", [1, 3, 2], axis=0),
    "flatten from the end": lambda: one("Flatten", ["N", 3, 2], axis=-2),
    "gemm": lambda: one("Gemm", ["N", 4], normal(4, 3), normal(3)),
    "gemm transposed": lambda: one("Gemm", ["N", 4], normal(3, 4), normal(1, 3), transB=1),
    "gemm scaled": lambda: one("Gemm", ["N", 4], normal(4, 3), normal(1), alpha=0.7, beta=1.3),
    "gemm without bias": lambda: one("Gemm", ["N", 4], normal(4, 3), alpha=-0.1, opset=11),
    "gemm with beta 0": lambda: one("Gemm", ["N", 4], normal(4, 3), normal(3), beta=0.0),
    "gemm without batch": lambda: one("Gemm", [3, 4], normal(4, 5), normal(3, 5)),
    "global average pool": lambda: one("GlobalAveragePool", IMAGE),
    "identity": lambda: model([make("Identity", ["x"], ["a"]), make("Abs", ["a"], ["y"])], ["N", 3]),
    "leaky relu": lambda: one("LeakyRelu", ["N", 5]),
    "leaky relu with slope": lambda: one("LeakyRelu", ["N", 5], alpha=0.3),
    "matmul": lambda: one("MatMul", ["N", 4], normal(4, 3)),
    "matmul on rows": lambda: one("MatMul", ["N", 5, 4], normal(4, 3)),
    "matmul without batch": lambda: one("MatMul", [4], normal(4, 3)),
    "matmul from the left": lambda: model([make("MatMul", ["w", "x"], ["y"])], [4], {"w": normal(3, 4)}),
    "matmul of a column": lambda: model(
        [make("MatMul", ["w", "x"], ["a"]), make("Add", ["a", "b"], ["y"])],
        [4, 1],
        {"w": normal(3, 4), "b": normal(3, 1)},
    ),
    "max pool": lambda: one("MaxPool", IMAGE, kernel_shape=[2, 3], strides=[2, 1], pads=[1, 0, 0, 2]),
    "max pool dilated": lambda: one("MaxPool", IMAGE, kernel_shape=[2, 2], dilations=[2, 3], storage_order=0),
    "max pool same": lambda: one("MaxPool", IMAGE, kernel_shape=[3, 3], strides=[2, 2], auto_pad="SAME_UPPER"),
    "layer normalization": lambda: one("LayerNormalization", ["N", 3, 4], normal(3, 4), normal(3, 4), opset=17, axis=1),
    "layer normalization of the last axis": lambda: one("LayerNormalization", ["N", 3, 4], normal(4), opset=17),
    "matmul of two": lambda: model(
        [make("Transpose", ["x"], ["a"], perm=[0, 2, 1]), make("MatMul", ["x", "a"], ["y"])], ["N", 3, 4]
    ),
    "matmul of rows from the left": lambda: model(
        [make("MatMul", ["w", "x"], ["y"])], ["N", 3, 4], {"w": normal(2, 3)}
    ),
    "mul of two": lambda: model([make("Tanh", ["x"], ["a"]), make("Mul", ["a", "x"], ["y"])], ["N", 3]),
    "div of two": lambda: model([make("Exp", ["x"], ["a"]), make("Div", ["x", "a"], ["y"])], ["N", 3]),
    "log softmax": lambda: one("LogSoftmax", ["N", 3, 4], axis=1),
    "mul": lambda: one("Mul", ["N", 3, 2], normal(3, 2)),
    "mul in front": lambda: model([make("Mul", ["w", "x"], ["y"])], ["N", 3], {"w": normal(1)}),
    "neg": lambda: one("Neg", ["N", 3]),
    "reduce mean": lambda: one("ReduceMean", IMAGE, axes=[-1, 2], keepdims=0),
    "reduce mean by input": lambda: one("ReduceMean", IMAGE, np.array([2, 3]), opset=18),
    "relu": lambda: one("Relu", ["N", 5]),
    "reshape": lambda: one("Reshape", ["N", 6, 2], np.array([0, -1, 3])),
    "reshape to a batch of one": lambda: one("Reshape", ["N", 6, 2], np.array([1, 12])),
    "shape chain": shape_chain,
    "sigmoid": lambda: one("Sigmoid", ["N", 5]),
    "slice": lambda: one("Slice", IMAGE, np.array([1, -4]), np.array([3, 2**62]), np.array([1, -1]), np.array([1, 2])),
    "slice by attribute": lambda: one("Slice", IMAGE, opset=9, starts=[0, 1], ends=[2**40, -1], axes=[0, 2]),
    **{name: lambda name=name: one(name, ["N", 5], opset=20) for name in EVERYWHERE},
    **{
        name: lambda name=name: model([make("Abs", ["x"], ["a"]), make(name, ["a"], ["y"])], ["N", 5])
        for name in ("Log", "Reciprocal", "Sqrt")
    },
    **{f"power {p}": lambda p=p: one("Pow", ["N", 5], np.float32(p)) for p in (2.0, 3.0, -1.0, -2.0)},
    "power by integer": lambda: one("Pow", ["N", 5], np.array([2])),
    "power of a fraction": lambda: model(
        [make("Abs", ["x"], ["a"]), make("Pow", ["a", "p"], ["y"])], ["N", 5], {"p": np.float32(1.7)}
    ),
    "gelu tanh": lambda: one("Gelu", ["N", 5], opset=20, approximate="tanh"),
    "celu": lambda: one("Celu", ["N", 5], alpha=0.4),
    "elu negative": lambda: one("Elu", ["N", 5], alpha=-0.4),
    "elu of 0": lambda: one("Elu", ["N", 5], alpha=0.0),
    "hard sigmoid": lambda: one("HardSigmoid", ["N", 5], alpha=0.7, beta=-0.1),
    "selu": lambda: one("Selu", ["N", 5], alpha=0.5, gamma=1.5),
    "leaky relu reversed": lambda: one("LeakyRelu", ["N", 5], alpha=-0.3),
    "prelu": lambda: one("PRelu", ["N", 3, 2], np.array([[0.25], [-0.5], [1.75]])),
    "prelu with one slope": lambda: one("PRelu", ["N", 3, 2], np.array([0.25])),
    "max": lambda: model(
        [make("Neg", ["x"], ["a"]), make("Max", ["a", "c", "x", "d"], ["y"])],
        ["N", 3],
        {"c": normal(3), "d": np.array(0.1)},
    ),
    "min": lambda: model(
        [make("Neg", ["x"], ["a"]), make("Min", ["x", "a", "c"], ["y"])], ["N", 3], {"c": normal(3)}, opset=8
    ),
    "softmax": lambda: one("Softmax", ["N", 3, 4]),
    "softmax of all axes": lambda: one("Softmax", ["N", 3, 4], opset=11),
    "squeeze and unsqueeze": lambda: model(
        [
            make("Unsqueeze", ["x"], ["a"], axes=[1, -1]),
            make("Relu", ["a"], ["b"]),
            make("Squeeze", ["b"], ["y"], axes=[-1]),
        ],
        ["N", 3],
        opset=11,
    ),
    "squeeze and unsqueeze by input": lambda: model(
        [make("Unsqueeze", ["x", "i"], ["a"]), make("Abs", ["a"], ["b"]), make("Squeeze", ["b", "i"], ["y"])],
        ["N", 3],
        {"i": np.array([2])},
    ),
    "squeeze a fixed batch": lambda: model(
        [make("Squeeze", ["x"], ["a"], axes=[0]), make("Relu", ["a"], ["y"])], [1, 1, 3], opset=11
    ),
    "sub constant": lambda: one("Sub", ["N", 3], normal(3)),
    "tanh": lambda: one("Tanh", ["N", 5]),
    "transpose": lambda: one("Transpose", IMAGE, perm=[0, 2, 3, 1]),
    "value plus itself": lambda: model([make("Add", ["x", "x"], ["y"])], ["N", 3]),
}


def network(source: onnx.ModelProto) -> Network:
    return convert(source, "test.onnx")


def inputs(source: onnx.ModelProto, dtype: type) -> np.ndarray:
    shape = [d.dim_value or 1 for d in source.graph.input[0].type.tensor_type.shape.dim]
    return np.random.default_rng(1).normal(size=shape).astype(dtype)


def assert_agrees(source: onnx.ModelProto, expected: np.ndarray, x: np.ndarray, tolerance: float) -> None:
    read = network(source)
    value = read.evaluate(x.reshape(1, *read.input_shape)).numpy()
    assert value.dtype == expected.dtype
    has_batch = x.shape != tuple(read.input_shape)
    assert value.shape[0 if has_batch else 1 :] == expected.shape
    assert np.abs(value.reshape(expected.shape) - expected).max() <= tolerance * max(1e-30, np.abs(expected).max())


CASES |= MOVE_CASES
# onnxruntime has no float64 kernels for most of the others, and ONNX's reference stops at groups and blocks.
FLOAT_CASES = CASES | WINDOW_CASES


def test_every_handler_has_a_case() -> None:
    covered = {node.op_type for build in FLOAT_CASES.values() for node in build().graph.node}
    assert set(HANDLERS) - set(OTHER_DOMAINS) <= covered


@pytest.mark.parametrize("name", FLOAT_CASES)
def test_float_values_agree_with_onnxruntime(name: str) -> None:
    source = FLOAT_CASES[name]()
    x = inputs(source, np.float32)
    expected = run_onnxruntime(source, x)
    assert expected is not None
    assert_agrees(source, expected, x, FLOAT_TOLERANCE)


@pytest.mark.parametrize("name", CASES)
def test_double_values_agree_with_onnxruntime_or_the_reference(name: str) -> None:
    source = in_double(CASES[name]())
    x = inputs(source, np.float64)
    if name.lower() == "celu":
        return  # of the standard's float32 alone
    expected = run_onnxruntime(source, x)
    if expected is None:
        expected = run_reference(source, x)
    if name == "leaky relu" and expected.dtype == np.float64:
        # The reference takes the default slope in double, the standard stores it in float.
        expected = np.where(x < 0, np.float64(np.float32(0.01)) * x, x)
    assert_agrees(source, expected, x, FORMULA_TOLERANCE if name in IN_FLOAT else DOUBLE_TOLERANCE)


def test_matmul_and_add_become_one_affine_with_bias() -> None:
    source = model(
        [make("MatMul", ["x", "w"], ["a"]), make("Add", ["a", "b"], ["y"])],
        ["N", 3],
        {"w": normal(3, 2), "b": normal(2)},
    )
    read = network(source)
    assert [(node.name, node.op.kind) for node in read.nodes] == [("y", "affine")]
    assert read.output.op.bias is not None


def test_weights_keep_the_stored_dtype() -> None:
    read = network(in_double(one("MatMul", ["N", 3], normal(3, 2))))
    assert str(read.dtype) == str(read.output.op.weight.dtype) == "torch.float64"


def test_no_identity_is_emitted() -> None:
    source = model(
        [
            make("Identity", ["x"], ["a"]),
            make("Flatten", ["a"], ["b"]),
            make("Dropout", ["b"], ["c"]),
            make("Transpose", ["c"], ["d"], perm=[0, 1]),
            make("Relu", ["d"], ["y"]),
        ],
        ["N", 3],
    )
    assert [node.op.kind for node in network(source).nodes] == ["relu"]


def test_nodes_behind_the_output_are_dropped_unread() -> None:
    source = model([make("Relu", ["x"], ["y"]), make("Softmax", ["y"], ["unused"])], ["N", 3])
    assert [node.name for node in network(source).nodes] == ["y"]


def test_a_value_called_input_does_not_shadow_the_input() -> None:
    source = model([make("Relu", ["x"], ["input"]), make("Abs", ["input"], ["y"])], ["N", 3])
    read = network(source)
    assert read.nodes[1].inputs == (read.nodes[0].name,)


def test_leading_dimension_is_the_batch_if_symbolic_or_one_with_rank_two() -> None:
    shapes = {("N", 3): (3,), (1, 3): (3,), (2, 3): (2, 3), (3,): (3,), (1,): (1,)}
    for given, expected in shapes.items():
        assert network(one("Relu", list(given))).input_shape == expected


@pytest.mark.parametrize("opset", [OPSETS[0], OPSETS[-1]])
def test_the_first_and_last_opset_are_read(opset: int) -> None:
    assert network(one("Gemm", ["N", 4], normal(4, 3), normal(3), opset=opset)).output_shape == (3,)


def test_beta_is_applied_without_rounding_or_refused() -> None:
    exact = one("Gemm", ["N", 4], normal(4, 3), normal(3), beta=0.1)
    constant = network(exact).output.op.constant
    expected = normal(3).astype(np.float32).astype(np.float64) * np.float64(np.float32(0.1))
    assert constant.tolist() == expected.tolist()
    rounding = model([make("Gemm", ["x", "w", "b"], ["y"], beta=0.1)], ["N", 4], {"w": normal(4, 3), "b": normal(3)})
    rounding = in_double(rounding)
    rounding.graph.initializer[1].CopyFrom(onnx.numpy_helper.from_array(normal(3), "b"))
    with pytest.raises(ModelFileError, match="would round the bias"):
        network(rounding)


BATCHED = [name for name, build in CASES.items() if build().graph.input[0].type.tensor_type.shape.dim[0].dim_param]


@pytest.mark.parametrize("name", [name for name in BATCHED if name != "reshape to a batch of one"])
def test_rows_of_a_batch_are_independent_as_in_onnxruntime(name: str) -> None:
    source = CASES[name]()
    read = network(source)
    x = np.random.default_rng(2).normal(size=(3, *read.input_shape)).astype(np.float32)
    expected = run_onnxruntime(source, x)
    value = read.evaluate(x).numpy()
    assert value.shape == expected.shape
    assert np.abs(value - expected).max() <= FLOAT_TOLERANCE * np.abs(expected).max()


def random_move(name: str, shape: tuple[int, ...], random: np.random.Generator) -> tuple[list, dict, tuple[int, ...]]:
    """Return nodes from `name` to `name + "'"` that move values, their weights, and the shape without the batch."""
    target, rank, weight = f"{name}'", len(shape) + 1, f"{name}w"
    axis = int(random.integers(1, rank))
    match int(random.integers(5)):
        case 0:
            order = [0, *(int(a) + 1 for a in random.permutation(rank - 1))]
            return [make("Transpose", [name], [target], perm=order)], {}, tuple(shape[a - 1] for a in order[1:])
        case 1:
            size = shape[axis - 1]
            wanted = np.array([0, *shape[: axis - 1], -1, *shape[axis:]]) if axis > 1 else np.array([0, -1, size])
            new = shape if axis > 1 else (int(np.prod(shape)) // size, size)
            return [make("Reshape", [name, weight], [target])], {weight: wanted}, new
        case 2:
            start, stop = int(random.integers(0, shape[axis - 1])), int(random.integers(-1, 9))
            kept = len(range(*slice(start, stop).indices(shape[axis - 1])))
            if kept:
                starts = {f"{weight}{i}": np.array([v]) for i, v in enumerate((start, stop, axis))}
                new = tuple(kept if a == axis - 1 else n for a, n in enumerate(shape))
                return [make("Slice", [name, *starts], [target])], starts, new
        case 3:
            new = tuple(2 * n if a == axis - 1 else n for a, n in enumerate(shape))
            return [make("Concat", [name, name], [target], axis=axis - rank)], {}, new
        case 4 if rank < 5:
            return (
                [make("Unsqueeze", [name, weight], [target])],
                {weight: np.array([axis])},
                (
                    *shape[: axis - 1],
                    1,
                    *shape[axis - 1 :],
                ),
            )
    return [make("Relu", [name], [target])], {}, shape


@pytest.mark.parametrize("seed", range(40))
def test_random_chains_of_moves_are_exact(seed: int) -> None:
    random = np.random.default_rng(seed)
    shape: tuple[int, ...] = (2, 3, 4)
    nodes, weights, name = [], {}, "x"
    for _ in range(6):
        more, constants, shape = random_move(name, shape, random)
        nodes += more
        weights |= constants
        name += "'"
    nodes.append(make("Neg", [name], ["y"]))
    source = model(nodes, ["N", 2, 3, 4], weights)
    x = random.normal(size=(2, 2, 3, 4)).astype(np.float32)
    expected = run_onnxruntime(source, x)
    assert expected is not None and expected.shape == (2, *shape)
    assert np.array_equal(network(source).evaluate(x).numpy(), expected)
