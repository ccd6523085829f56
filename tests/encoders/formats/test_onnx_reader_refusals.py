"""What the ONNX reader refuses, and that the message names it."""

import gzip
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from encoders import read_network
from encoders.formats import open_runtime
from encoders.formats.errors import ModelFileError
from encoders.formats.onnx_reader import convert
from tests.networks.onnx_models import model

make = helper.make_node
W = np.ones((4, 4))
IMAGE = ["N", 4, 7, 6]
KERNEL = np.ones((4, 4, 3, 3))


def refusal(source: onnx.ModelProto) -> str:
    with pytest.raises(ModelFileError) as error:
        convert(source, "test.onnx")
    assert str(error.value).startswith("test.onnx: ")
    return str(error.value)


def of_node(op: str, shape: list, *weights: np.ndarray, opset: int = 13, **attributes: object) -> str:
    names = [f"w{i}" for i in range(len(weights))]
    node = make(op, ["x", *names], ["y"], **attributes)
    return refusal(model([node], shape, dict(zip(names, weights, strict=True)), opset))


def test_an_unknown_operator_is_refused_with_the_supported_ones() -> None:
    message = of_node("Hardmax", ["N", 3])
    assert "'y' (Hardmax)" in message
    assert "Gemm" in message


def test_all_unsupported_nodes_are_named_at_once() -> None:
    nodes = [
        make("Hardmax", ["x"], ["a"]),
        make("Relu", ["a"], ["b"]),
        make("Asin", ["b"], ["c"]),
        make("Flatten", ["c"], ["d"], axis=1),
        make("Mul", ["d", "x"], ["e"]),
        make("LRN", ["e"], ["y"], size=3),
    ]
    message = refusal(model(nodes, ["N", 3]))
    assert all(f"({op})" in message for op in ("Hardmax", "Asin", "LRN"))
    assert "3 problems" in message


def test_an_unknown_attribute_is_refused_by_name() -> None:
    assert "'axis'" in of_node("Relu", ["N", 3], axis=1)
    assert "'broadcast'" in of_node("Add", ["N", 4], np.ones(4), broadcast=1)
    # known to a handler, but not in this opset
    assert "'axes'" in of_node("Unsqueeze", ["N", 4], axes=[1])


def test_another_domain_is_refused_by_name() -> None:
    node = make("Gelu", ["x"], ["y"], domain="com.microsoft")
    assert "com.microsoft" in refusal(model([node], ["N", 3]))


@pytest.mark.parametrize("opset", [7, 22])
def test_other_opsets_are_refused_with_the_remedy(opset: int) -> None:
    message = of_node("Relu", ["N", 3], opset=opset)
    assert f"opset {opset}" in message
    assert "opset_version" in message


def resized(scales: np.ndarray, opset: int = 13, **attributes: object) -> str:
    return of_node("Resize", IMAGE, np.zeros(0, np.float32), scales, opset=opset, **attributes)


NODE_REFUSALS = {
    "write the pads out": lambda: of_node(
        "AveragePool", IMAGE, kernel_shape=[2, 2], dilations=[2, 2], auto_pad="SAME_UPPER", opset=19
    ),
    "padding alone": lambda: of_node("AveragePool", IMAGE, kernel_shape=[1, 1], pads=[1, 0, 0, 0]),
    "negative padding": lambda: of_node("ConvTranspose", IMAGE, KERNEL, output_shape=[20, 20]),
    "output_padding": lambda: of_node("ConvTranspose", IMAGE, KERNEL, output_padding=[1, 0]),
    "in 1 groups does not fit": lambda: of_node("ConvTranspose", IMAGE, np.ones((3, 2, 1, 1))),
    "keep the shape": lambda: resized(np.array([1, 1, 1, 1.1], np.float32)),
    "batch axis of a resize": lambda: resized(np.array([2, 1, 1, 1], np.float32)).replace("axis", "axis of a resize"),
    "rounding decides": lambda: of_node("Resize", IMAGE, np.array([1, 1, 0.7, 0.7], np.float32), opset=10),
    "tf_crop_and_resize": lambda: resized(
        np.array([1, 1, 2, 2], np.float32), coordinate_transformation_mode="tf_crop_and_resize"
    ),
    "antialias": lambda: resized(np.array([1, 1, 2, 2], np.float32), opset=18, mode="linear", antialias=1),
    "kernel_shape": lambda: of_node("Conv", IMAGE, KERNEL, kernel_shape=[2, 2]),
    "ambiguous": lambda: of_node("Conv", IMAGE, KERNEL, auto_pad="SAME_UPPER", pads=[1, 1, 1, 1]),
    "one to three axes": lambda: of_node("Conv", ["N", 4, 2, 2, 2, 2], np.ones((4, 4, 1, 1, 1, 1))),
    "batch axis": lambda: of_node("Conv", [3, 4, 7, 7], KERNEL),
    "training_mode": lambda: of_node("BatchNormalization", IMAGE, *[np.ones(4)] * 4, opset=14, training_mode=1),
    "transA": lambda: of_node("Gemm", ["N", 4], W, transA=1),
    "ends 2.0 and 1.0": lambda: of_node("Clip", ["N", 4], np.float32(2), np.float32(1)),
    "ends nan": lambda: of_node("Clip", ["N", 4], np.float32(0), np.float32(np.nan)),
    "constants up to": lambda: of_node("Clip", ["N", 4], np.float32(-1e9)),
    "exponents that differ": lambda: of_node("Pow", ["N", 4], np.float32([1, 2, 3, 4])),
    "exponent of shape (2, 4)": lambda: of_node("Pow", [4], np.full((2, 4), 2.0)),
    "a constant of shape (2, 4)": lambda: of_node("PRelu", [4], np.full((2, 4), 0.5)),
    "a constant of shape (3, 4)": lambda: of_node("Max", [4], np.zeros((3, 4))),
    "a power of 0.0": lambda: of_node("Pow", ["N", 4], np.float32(0)),
    "approximate": lambda: of_node("Gelu", ["N", 4], opset=20, approximate="some"),
    "alpha not 0": lambda: of_node("Celu", ["N", 4], alpha=0.0),
    "(2, 4) does not fit": lambda: of_node("PRelu", ["N", 4], np.ones((2, 4))),
    "holds a zero": lambda: of_node("Div", ["N", 4], np.zeros(4)),
    "acts on the batch axis: mean of all": lambda: of_node("ReduceMean", IMAGE),
    "acts on the batch axis: gather": lambda: of_node("Gather", ["N", 4], np.array([0])),
    "acts on the batch axis: tile": lambda: of_node("Tile", ["N", 4], np.array([2, 1])),
    "acts on the batch axis: pad": lambda: of_node("Pad", ["N", 4], np.array([1, 0, -1, 0])),
    "acts on the batch axis: triangle": lambda: of_node("Trilu", ["N", 4], opset=14),
    "name rows of the batch": lambda: of_node("GatherElements", ["N", 4], np.array([[0, 1]]), axis=1),
    "outside of the 4 entries": lambda: of_node("Gather", ["N", 4], np.array([4]), axis=1),
    "replaced twice": lambda: of_node("ScatterND", [2, 2], np.array([[0], [0]]), np.ones((2, 2))),
    "mirrors more": lambda: of_node("Pad", ["N", 3], np.array([0, 3, 0, 0]), mode="reflect"),
    "is empty": lambda: of_node("Gather", ["N", 4], np.zeros(0, np.int64), axis=1),
    "keep the batch": lambda: of_node("Expand", ["N", 4], np.array([2, 1, 4])),
    "equal parts": lambda: refusal(model([make("Split", ["x"], ["y", "z"], axis=1)], ["N", 5])),
    "an exponent of shape": lambda: of_node("Pow", [3, 4], np.full((2, 3, 4), 2.0)),
    "name every output": lambda: refusal(model([make("Split", ["x"], ["y", ""], axis=1)], ["N", 4])),
    "num_outputs": lambda: refusal(model([make("Split", ["x"], ["y"], axis=1, num_outputs=2)], ["N", 4], opset=18)),
    "acts on the batch": lambda: of_node("Concat", ["N", 4], axis=0),
    "acts on the batch axis": lambda: of_node("Unsqueeze", ["N", 4], np.array([0])),
    "merges the batch": lambda: of_node("Flatten", ["N", 4], axis=0),
    "moves the batch": lambda: of_node("Transpose", ["N", 4]),
    "leading axis": lambda: of_node("Reshape", ["N", 4], np.array([-1, 2])),
    "does not fit": lambda: of_node("Reshape", ["N", 4], np.array([0, 3])),
    "allowzero": lambda: of_node("Reshape", ["N", 4], np.array([0, 4]), opset=14, allowzero=1),
    "removes the batch": lambda: of_node("Squeeze", [1, 4]),
    "step 0": lambda: of_node("Slice", ["N", 4], *(np.array([v]) for v in (3, 0, 1, 0))),
    "a cast": lambda: of_node("Cast", ["N", 4], to=TensorProto.DOUBLE),
    "does not fit an input": lambda: of_node("Add", ["N", 1, 4], np.ones((3, 4))),
    "without its batch": lambda: of_node("Add", [1, 4], np.ones((3, 4))),
    "a matrix product of computed values": lambda: refusal(model([make("MatMul", ["x", "x"], ["y"])], ["N", 4])),
    "stash_type = 10": lambda: of_node("LayerNormalization", ["N", 4], np.ones(4), opset=17, stash_type=10),
    "constant on the left": lambda: refusal(model([make("MatMul", ["w", "x"], ["y"])], ["N", 4, 4], {"w": W[None]})),
    "matrix on the right": lambda: of_node("MatMul", ["N", 4], W[0]),
    "shape mismatch": lambda: refusal(
        model([make("MatMul", ["x", "w"], ["a"]), make("Add", ["x", "a"], ["y"])], ["N", 4], {"w": W[:, :3]})
    ),
    "element type": lambda: of_node("Add", ["N", 4], np.ones(4, np.int64)),
    "'indices'": lambda: refusal(model([make("MaxPool", ["x"], ["y", "indices"], kernel_shape=[2, 2])], IMAGE)),
    "nothing before it": lambda: refusal(model([make("Add", ["x", "missing"], ["y"])], ["N", 4])),
    "exists already": lambda: refusal(model([make("Relu", ["x"], ["x"]), make("Relu", ["x"], ["y"])], ["N", 4])),
    "random": lambda: refusal(
        model([make("RandomNormal", [], ["r"], shape=[4]), make("Add", ["x", "r"], ["y"])], ["N", 4])
    ),
    "NaN": lambda: of_node("Add", ["N", 4], np.full(4, np.nan)),
}


@pytest.mark.parametrize("word", NODE_REFUSALS)
def test_a_node_is_refused_by_what_is_wrong_with_it(word: str) -> None:
    assert word.removesuffix(" nan").split(": ")[0] in NODE_REFUSALS[word]()


def test_a_second_dynamic_dimension_is_refused_by_name() -> None:
    message = of_node("Relu", ["N", "length"])
    assert "'x'" in message and "'length'" in message


def test_other_input_types_and_counts_are_refused_by_name() -> None:
    assert "FLOAT16" in refusal(model([make("Relu", ["x"], ["y"])], ["N", 3], elem_type=TensorProto.FLOAT16))
    source = model([make("Relu", ["x"], ["y"])], ["N", 3])
    source.graph.input.append(helper.make_tensor_value_info("second", TensorProto.FLOAT, [1]))
    assert "2 inputs ('x', 'second')" in refusal(source)
    source = model([make("Relu", ["x"], ["y"])], ["N", 3])
    source.graph.output.append(helper.make_tensor_value_info("x", TensorProto.FLOAT, [1]))
    assert "2 outputs" in refusal(source)


def test_an_output_that_is_the_input_or_a_constant_is_refused() -> None:
    assert "input itself" in refusal(model([make("Identity", ["x"], ["y"])], ["N", 3]))
    source = model([make("Identity", ["w"], ["y"])], ["N", 3], {"w": np.ones(3)})
    assert "does not depend" in refusal(source)


def test_malformed_files_are_refused_by_path(tmp_path: Path) -> None:
    good = model([make("MatMul", ["x", "w"], ["y"])], ["N", 4], {"w": W}).SerializeToString()
    contents = {
        "truncated.onnx": good[: len(good) // 2],
        "text.onnx": b"not a model" * 9,
        "empty.onnx": b"",
        "truncated.onnx.gz": gzip.compress(good)[:-12],
        "plain.onnx.gz": good,
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "folder.onnx").mkdir()
    for name in [*contents, "folder.onnx", "missing.onnx", "model.h5", "model"]:
        for read in (read_network, open_runtime):
            with pytest.raises(ModelFileError) as error:
                read(tmp_path / name)
            assert str(tmp_path / name) in str(error.value)


def test_weights_of_the_wrong_length_are_refused(tmp_path: Path) -> None:
    source = model([make("MatMul", ["x", "w"], ["y"])], ["N", 4], {"w": W})
    source.graph.initializer[0].raw_data = source.graph.initializer[0].raw_data[:-4]
    assert "'w'" in refusal(source)


def test_external_weights_are_read_and_their_absence_is_refused(tmp_path: Path) -> None:
    source = model([make("MatMul", ["x", "w"], ["y"])], ["N", 4], {"w": 2 * W})
    path = tmp_path / "model.onnx"
    onnx.save(source, str(path), save_as_external_data=True, location="weights.bin", size_threshold=0)
    x = np.arange(8, dtype=np.float32).reshape(2, 4)
    # Row sums 6 and 22, times 2.
    assert read_network(path).evaluate(x).tolist() == [[12.0] * 4, [44.0] * 4]
    assert open_runtime(path)(x).tolist() == [[12.0] * 4, [44.0] * 4]
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(ModelFileError, match=r"model\.onnx"):
        read_network(path)


def test_weights_listed_among_the_inputs_are_weights() -> None:
    source = model([make("MatMul", ["x", "w"], ["y"])], ["N", 4], {"w": W})
    source.graph.input.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, [4, 4]))
    assert convert(source, "test.onnx").output_shape == (4,)


def test_sparse_weights_are_refused() -> None:
    source = model([make("Relu", ["x"], ["y"])], ["N", 4])
    values = numpy_helper.from_array(np.ones(1, np.float32), "sparse")
    indices = numpy_helper.from_array(np.zeros(1, np.int64))
    source.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [4]))
    assert "'sparse'" in refusal(source)
