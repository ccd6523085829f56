"""What holds of an ONNX graph as a whole: who may define a value, what a runtime gets to see, what a batch may do."""

import gzip
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from encoders import read_network
from encoders.formats import open_runtime
from encoders.formats.errors import ModelFileError
from encoders.formats.onnx_outputs import without_unused
from encoders.formats.onnx_reader import convert
from encoders.limits import Limits
from tests.networks.onnx_models import model

make = helper.make_node
W = np.arange(16.0).reshape(4, 4)


def product() -> onnx.ModelProto:
    return model([make("MatMul", ["x", "w"], ["y"])], ["N", 4], {"w": W})


def saved(folder: Path, source: onnx.ModelProto) -> Path:
    path = folder / "model.onnx"
    path.write_bytes(source.SerializeToString())
    return path


def twice_stored(source: onnx.ModelProto) -> None:
    source.graph.initializer.append(numpy_helper.from_array(np.ones((4, 4), np.float32), "w"))


def stored_and_computed(source: onnx.ModelProto) -> None:
    source.graph.node.insert(0, make("Neg", ["x"], ["w"]))


def computed_twice(source: onnx.ModelProto) -> None:
    source.graph.node.append(make("Relu", ["x"], ["y"]))


def out_of_order(source: onnx.ModelProto) -> None:
    source.graph.node.insert(0, make("Relu", ["late"], ["y2"]))
    source.graph.node[1].output[0] = "late"
    source.graph.output[0].name = "y2"


def two_fields(source: onnx.ModelProto) -> None:
    source.graph.initializer[0].float_data.extend([1.0] * 16)


def wrong_field(source: onnx.ModelProto) -> None:
    source.graph.initializer[0].ClearField("raw_data")
    source.graph.initializer[0].double_data.extend([1.0] * 16)


def half_precision(source: onnx.ModelProto) -> None:
    source.graph.initializer[0].CopyFrom(numpy_helper.from_array(W.astype(np.float16), "w"))


def brain_precision(source: onnx.ModelProto) -> None:
    source.graph.initializer[0].CopyFrom(helper.make_tensor("w", TensorProto.BFLOAT16, [4, 4], W.reshape(-1)))


def other_precision(source: onnx.ModelProto) -> None:
    source.graph.initializer[0].CopyFrom(numpy_helper.from_array(W, "w"))


def quantised(source: onnx.ModelProto) -> None:
    source.graph.initializer.append(numpy_helper.from_array(np.float32(0.1), "scale"))
    source.graph.initializer[0].CopyFrom(numpy_helper.from_array(W.astype(np.int8), "q"))
    source.graph.node.insert(0, make("DequantizeLinear", ["q", "scale"], ["w"]))


def two_opsets(source: onnx.ModelProto) -> None:
    source.opset_import.add(domain="ai.onnx", version=9)


def overload(source: onnx.ModelProto) -> None:
    source.graph.node[0].overload = "other"


REFUSALS: dict[str, tuple[Callable[[onnx.ModelProto], None], str]] = {
    "a weight is stored twice": (twice_stored, "stored twice"),
    "a weight is also computed": (stored_and_computed, "exists already"),
    "a value is computed twice": (computed_twice, "exists already"),
    "nodes are out of order": (out_of_order, "nothing before it computes"),
    "a weight has values in two fields": (two_fields, "float_data and raw_data"),
    "a weight has values in another type's field": (wrong_field, "double_data"),
    "a weight is float16": (half_precision, "FLOAT16"),
    "a weight is bfloat16": (brain_precision, "BFLOAT16"),
    "a weight has another precision than the input": (other_precision, "float64"),
    "a weight is quantised": (quantised, "INT8"),
    "two opsets are imported": (two_opsets, "opsets [13, 9]"),
    "a node names an overload": (overload, "not supported"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_a_graph_is_refused_where(case: str) -> None:
    change, word = REFUSALS[case]
    source = product()
    change(source)
    with pytest.raises(ModelFileError) as error:
        convert(source, "test.onnx")
    assert word in str(error.value)


def test_a_value_that_depends_on_the_size_of_the_batch_is_refused() -> None:
    nodes = [
        make("Shape", ["x"], ["sizes"]),
        make("Cast", ["sizes"], ["numbers"], to=TensorProto.FLOAT),
        make("Gather", ["numbers", "zero"], ["batch"]),
        make("Mul", ["x", "batch"], ["y"]),
    ]
    weights = {"zero": np.array([0])}
    with pytest.raises(ModelFileError, match="depends on the size of the batch"):
        convert(model(nodes, ["N", 4], weights), "test.onnx")
    # With a batch of one it is 1, and the size of the features is the same for every batch.
    assert convert(model(nodes, [1, 4], weights), "test.onnx").evaluate(np.ones((2, 4))).tolist() == [[1.0] * 4] * 2
    assert convert(model(nodes, ["N", 4], {"zero": np.array([1])}), "t").evaluate(np.ones((1, 4))).tolist() == [
        [4.0] * 4
    ]


def test_onnxruntime_does_not_see_what_the_output_does_not_depend_on(tmp_path: Path) -> None:
    source = product()
    source.graph.node.append(make("ConstantOfShape", ["n"], ["huge"]))
    source.graph.node.append(make("RegexFullMatch", ["text"], ["match"], pattern="(a+)+$"))
    source.graph.initializer.append(numpy_helper.from_array(np.array([2**50]), "n"))
    source.graph.initializer.append(helper.make_tensor("text", TensorProto.STRING, [1], [b"a" * 40 + b"!"]))
    path = saved(tmp_path, source)
    x = np.ones((2, 4), np.float32)
    assert open_runtime(path)(x).tolist() == [[24.0, 28.0, 32.0, 36.0]] * 2
    assert [node.op_type for node in without_unused(source, "y").graph.node] == ["MatMul"]
    assert len(source.graph.node) == 3
    assert without_unused(product(), "y") == product()


def test_a_file_that_looks_like_the_format_of_onnxruntime_is_read_as_onnx(tmp_path: Path) -> None:
    source = product()
    source.producer_name = "ORTM"
    assert source.SerializeToString()[4:8] == b"ORTM"
    assert open_runtime(saved(tmp_path, source))(np.ones((1, 4), np.float32)).shape == (1, 4)


def test_what_onnxruntime_raises_when_it_opens_a_file_is_one_error_of_ours(tmp_path: Path) -> None:
    source = product()
    source.ir_version = 99
    assert read_network(saved(tmp_path, source)).output_shape == (4,)
    with pytest.raises(ModelFileError, match="onnxruntime does not open it"):
        open_runtime(tmp_path / "model.onnx")


def test_limits_reach_the_reader_and_the_runtime(tmp_path: Path) -> None:
    path = saved(tmp_path, product())
    for limits in (Limits(input_values=3), Limits(node_values=3), Limits(weight_bytes=63), Limits(operations=15)):
        for open_file in (read_network, open_runtime):
            with pytest.raises(ModelFileError, match="--allow"):
                open_file(path, limits)
    exactly = Limits(input_values=4, node_values=4, weight_bytes=64, operations=16, nodes=1)
    assert read_network(path, exactly).output_shape == (4,)
    assert open_runtime(path, exactly).input_shape == (4,)


def test_a_compressed_model_is_read_and_its_zeros_only_if_they_are_allowed(tmp_path: Path) -> None:
    source = product()
    path = tmp_path / "model.onnx.gz"
    path.write_bytes(gzip.compress(source.SerializeToString()))
    assert read_network(path).output_shape == open_runtime(path)(np.ones((1, 4), np.float32)).shape[1:] == (4,)
    source.graph.initializer.append(numpy_helper.from_array(np.zeros(2**18, np.float32), "unread"))
    path.write_bytes(gzip.compress(source.SerializeToString()))
    size = len(source.SerializeToString())
    with pytest.raises(ModelFileError, match=f"--allow expanded_bytes={size} "):
        read_network(path, Limits(expanded_bytes=2**20))
    assert read_network(path, Limits(expanded_bytes=size)).output_shape == (4,)


def test_weights_beside_the_model_are_not_followed_through_a_link(tmp_path: Path) -> None:
    source = product()
    onnx.save(source, str(tmp_path / "model.onnx"), save_as_external_data=True, location="real.bin", size_threshold=0)
    assert read_network(tmp_path / "model.onnx").output_shape == (4,)
    (tmp_path / "real.bin").rename(tmp_path / "moved.bin")
    (tmp_path / "real.bin").symlink_to(tmp_path / "moved.bin")
    with pytest.raises(ModelFileError, match="no file in the folder"):
        read_network(tmp_path / "model.onnx")
