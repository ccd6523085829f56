"""Of a label and scores, the scores are the network; of several scores, none is."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from encoders.formats.errors import ModelFileError
from encoders.formats.onnx_outputs import output_of, said_output, without_unused
from encoders.formats.onnx_reader import convert
from tests.networks.onnx_models import model, run_onnxruntime

make = helper.make_node
SCORES = make("Relu", ["x"], ["y"])
LABEL = make("ArgMax", ["y"], ["label"], axis=1)


def with_outputs(nodes: list[onnx.NodeProto], outputs: dict[str, int]) -> onnx.ModelProto:
    source = model(nodes, ["N", 3])
    del source.graph.output[:]
    source.graph.output.extend(helper.make_tensor_value_info(name, kind, None) for name, kind in outputs.items())
    return source


@pytest.mark.parametrize("order", [("label", "y"), ("y", "label")])
def test_scores_beside_a_label_are_the_output(order: tuple[str, str]) -> None:
    kinds = {"label": TensorProto.INT64, "y": TensorProto.FLOAT}
    source = with_outputs([SCORES, LABEL], {name: kinds[name] for name in order})
    assert output_of(source, "f") == "y"
    assert said_output(source, "f") == {"output": f"y, of the outputs {', '.join(order)}"}
    kept = without_unused(source, "y")
    assert [node.op_type for node in kept.graph.node] == ["Relu"]
    assert [value.name for value in kept.graph.output] == ["y"]
    x = np.array([[1.0, -2.0, 3.0]], np.float32)
    assert np.array_equal(run_onnxruntime(kept, x), convert(source, "f").evaluate(x).numpy())


def test_maps_are_read_as_the_tensor_that_they_are_made_of() -> None:
    zipped = make("ZipMap", ["y"], ["maps"], domain="ai.onnx.ml", classlabels_int64s=[0, 1, 2])
    source = with_outputs([SCORES, LABEL, zipped], {"label": TensorProto.INT64})
    source.opset_import.append(helper.make_opsetid("ai.onnx.ml", 1))
    maps = helper.make_map_type_proto(TensorProto.INT64, helper.make_tensor_type_proto(TensorProto.FLOAT, []))
    source.graph.output.append(helper.make_value_info("maps", helper.make_sequence_type_proto(maps)))
    assert output_of(source, "f") == "y"
    kept = without_unused(source, "y")
    x = np.array([[1.0, -2.0, 3.0]], np.float32)
    assert np.array_equal(run_onnxruntime(kept, x), np.maximum(x, 0))


@pytest.mark.parametrize(
    "outputs",
    [
        {"y": TensorProto.FLOAT, "z": TensorProto.FLOAT},
        {"label": TensorProto.INT64, "z": TensorProto.INT64},
        {},
    ],
)
def test_files_that_leave_it_open_are_refused_with_the_remedy(outputs: dict[str, int]) -> None:
    source = with_outputs([SCORES, LABEL, make("Abs", ["x"], ["z"])], outputs)
    with pytest.raises(ModelFileError, match=f"{len(outputs)} outputs .*extract_model"):
        convert(source, "f")


def test_a_file_with_nothing_to_leave_out_is_not_copied() -> None:
    source = model([SCORES], ["N", 3])
    assert without_unused(source, "y") is source
