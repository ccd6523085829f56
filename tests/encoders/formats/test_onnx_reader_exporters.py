"""Files of other tools' exporters: the network that is read predicts what the framework predicts."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

import verifier
from encoders import read_network
from encoders.formats import ModelFileError, open_runtime
from encoders.formats.onnx_reader import convert
from tests.conftest import REPOSITORY
from tests.networks.onnx_models import model, run_onnxruntime

FILES = sorted((REPOSITORY / "tests" / "cases" / "exporters").glob("*.onnx"))
# Some dozens of float32 operations on numbers near 1, in another order.
TOLERANCE = {np.dtype(np.float32): 2e-6, np.dtype(np.float64): 1e-13}


def test_there_are_files_of_every_exporter() -> None:
    names = {file.stem for file in FILES}
    assert {"sklearn-zipmap", "sklearn-probabilities", "sklearn-two-classes", "sklearn-regressor"} <= names
    assert {"torch-maps-trace", "torch-maps-dynamo"} <= names


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_the_network_and_its_runtime_predict_what_the_framework_does(file: Path) -> None:
    case = np.load(file.with_suffix(".npz"))
    network, runtime = read_network(file), open_runtime(file)
    expected, tolerance = case["y"], TOLERANCE[case["x"].dtype]
    for value in (network.evaluate(case["x"]).numpy(), runtime(case["x"])):
        assert value.shape == expected.shape and np.abs(value - expected).max() <= tolerance


@pytest.mark.parametrize("name", ["sklearn-zipmap", "sklearn-probabilities", "sklearn-two-classes"])
def test_classifiers_of_scikit_learn_are_certified_and_say_what_was_read(name: str) -> None:
    file = next(file for file in FILES if file.stem == name)
    case = np.load(file.with_suffix(".npz"))
    labels = case["y"].argmax(axis=1)
    result = verifier.certify(str(file), (case["x"], labels), [1e-3], method="crown", limit=4)
    assert result.results[0].certified_accuracy > 0.5
    assert ", of the outputs " in verifier.show(file).metadata["output"]


@pytest.mark.parametrize("count", [1, 3])
def test_a_scaler_is_read_as_onnxruntime_runs_it(count: int) -> None:
    random = np.random.default_rng(count)
    numbers = {"offset": random.normal(size=count).tolist(), "scale": random.normal(size=count).tolist()}
    source = model([helper.make_node("Scaler", ["x"], ["y"], domain="ai.onnx.ml", **numbers)], ["N", 3])
    source.opset_import.append(helper.make_opsetid("ai.onnx.ml", 1))
    x = random.normal(size=(4, 3)).astype(np.float32)
    expected = run_onnxruntime(source, x)
    assert expected is not None and np.array_equal(convert(source, "f").evaluate(x).numpy(), expected)


@pytest.mark.parametrize(
    ("numbers", "words"),
    [
        ({"offset": [0.0, 1.0], "scale": [1.0, 2.0]}, "do not fit"),
        ({"offset": [0.0], "scale": [1.0, 2.0, 3.0]}, "do not fit"),
        ({"scale": [1.0]}, "0 offsets"),
    ],
)
def test_a_scaler_that_does_not_fit_is_refused(numbers: dict[str, list[float]], words: str) -> None:
    node = helper.make_node("Scaler", ["x"], ["y"], domain="ai.onnx.ml", **numbers)
    with pytest.raises(ModelFileError, match=words):
        convert(model([node], ["N", 3]), "f")


def test_an_operator_is_only_known_in_its_own_domain() -> None:
    for operator, domain in (("Scaler", ""), ("Relu", "ai.onnx.ml"), ("Imputer", "ai.onnx.ml")):
        with pytest.raises(ModelFileError, match="is not supported"):
            convert(model([helper.make_node(operator, ["x"], ["y"], domain=domain)], ["N", 3]), "f")


def keras_network(random: np.random.Generator) -> tuple[onnx.ModelProto, dict[str, np.ndarray]]:
    """Return a file as tf2onnx writes a Keras network: images (height, width, channels), transposed around layers."""
    weights = {
        "kernel": random.normal(size=(3, 2, 3, 3)),
        "bias": random.normal(size=3),
        "dense": random.normal(size=(27, 4)),
        "shift": random.normal(size=4),
    }
    nodes = [
        helper.make_node("Transpose", ["x"], ["chw"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["chw", "kernel", "bias"], ["c"], auto_pad="SAME_UPPER", strides=[2, 2]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("MaxPool", ["r"], ["p"], kernel_shape=[2, 2], strides=[1, 1], auto_pad="SAME_UPPER"),
        helper.make_node("Transpose", ["p"], ["hwc"], perm=[0, 2, 3, 1]),
        helper.make_node("Reshape", ["hwc", "flat"], ["f"]),
        helper.make_node("MatMul", ["f", "dense"], ["m"]),
        helper.make_node("Add", ["m", "shift"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["y"], axis=-1),
    ]
    return model(nodes, ["N", 5, 6, 2], {**weights, "flat": np.array([-1, 27])}), weights


def keras_prediction(x: np.ndarray, weights: dict[str, np.ndarray]) -> np.ndarray:
    """Return the network's prediction for one image by its definition: padding at the end, in channels last."""
    convolved = np.zeros((3, 3, 3))
    # SAME: 5 rows padded by 1 at both ends, 6 columns by 1 at the end.
    padded = np.pad(x, ((1, 1), (0, 1), (0, 0)))
    for row, column, channel in np.ndindex(convolved.shape):
        patch = padded[2 * row : 2 * row + 3, 2 * column : 2 * column + 3]
        convolved[row, column, channel] = (patch * weights["kernel"][channel].transpose(1, 2, 0)).sum()
    active = np.maximum(convolved + weights["bias"], 0)
    pooled = np.array([[active[i : i + 2, j : j + 2].max(axis=(0, 1)) for j in range(3)] for i in range(3)])
    logits = pooled.reshape(-1) @ weights["dense"] + weights["shift"]
    shares = np.exp(logits - logits.max())
    return shares / shares.sum()


def test_a_keras_network_predicts_by_its_definition_in_channels_last() -> None:
    random = np.random.default_rng(4)
    source, weights = keras_network(random)
    network = convert(source, "keras.onnx")
    x = random.normal(size=(5, 5, 6, 2))
    expected = np.array([keras_prediction(image, weights) for image in x])
    assert np.abs(network.evaluate(x.astype(np.float32)).numpy() - expected).max() < 1e-4
    assert network.input_shape == (5, 6, 2)
