"""Write the files beside this one with the exporters of scikit-learn (skl2onnx) and torch (both), and their outputs.

    pip install skl2onnx onnxscript && python tests/cases/exporters/write_files.py

Each NAME.onnx comes with NAME.npz: inputs `x`, and `y`, what the framework itself predicts for them.
"""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from skl2onnx import to_onnx
from sklearn.datasets import load_iris
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler
from torch import nn

HERE = Path(__file__).parent
OPSET = 17


def write_scikit_learn() -> None:
    """Write classifiers with and without maps of probabilities, of two classes, with labels of text, and regressors."""
    given, labels = load_iris(return_X_y=True)
    x = given.astype(np.float32)[::7]

    def fit(model: Any, y: Any) -> Any:
        return model.fit(given.astype(np.float32), y)

    def classifier(**settings: Any) -> MLPClassifier:
        return MLPClassifier((5,), max_iter=200, random_state=0, **settings)

    standard = fit(make_pipeline(StandardScaler(), classifier()), labels)
    two = fit(make_pipeline(MinMaxScaler(), classifier(activation="tanh")), labels == 1)
    text = fit(classifier(activation="logistic"), np.array(["setosa", "versicolor", "virginica"])[labels])
    regressor = fit(
        make_pipeline(MinMaxScaler(), MLPRegressor(hidden_layer_sizes=(6,), max_iter=200, random_state=0)), labels
    )
    for name, model, options in (
        ("sklearn-zipmap", standard, {}),
        ("sklearn-probabilities", standard, {"options": {"zipmap": False}}),
        ("sklearn-two-classes", two, {"options": {"zipmap": False}}),
        ("sklearn-text-labels", text, {"options": {"zipmap": False}}),
    ):
        write(name, to_onnx(model, x[:1], target_opset=OPSET, **options), x, model.predict_proba(x))
    write("sklearn-regressor", to_onnx(regressor, x[:1], target_opset=OPSET), x, regressor.predict(x)[:, None])
    wide = x.astype(np.float64)
    write("sklearn-float64", to_onnx(regressor, wide[:1], target_opset=OPSET), wide, regressor.predict(wide)[:, None])


def write(name: str, model: onnx.ModelProto, x: np.ndarray, y: np.ndarray) -> None:
    (HERE / f"{name}.onnx").write_bytes(model.SerializeToString())
    np.savez(HERE / f"{name}.npz", x=x, y=y)


def write_torch() -> None:
    """Write a row of layers and a small convolutional network by the exporter that traces and by the one of dynamo."""
    torch.manual_seed(0)
    rows = nn.Sequential(nn.Linear(4, 6), nn.GELU(), nn.Linear(6, 5), nn.BatchNorm1d(5), nn.ELU(), nn.Linear(5, 3))
    maps = nn.Sequential(
        nn.Conv2d(1, 3, 3, padding=1), nn.BatchNorm2d(3), nn.ReLU(), nn.MaxPool2d(2, ceil_mode=True),
        nn.Upsample(scale_factor=2), nn.ConvTranspose2d(3, 2, 2, 2), nn.ReLU6(), nn.AdaptiveAvgPool2d(3), nn.Flatten(),
        nn.Dropout(), nn.Linear(18, 3),
    )  # fmt: skip
    series = nn.Sequential(
        nn.Conv1d(2, 4, 3, stride=2), nn.SiLU(), nn.AvgPool1d(2), nn.Flatten(), nn.Linear(12, 3), nn.Softmax(1)
    )
    for name, model, shape in (("rows", rows, (4,)), ("maps", maps, (1, 5, 5)), ("series", series, (2, 15))):
        x = torch.randn(6, *shape)
        for exporter in ("trace", "dynamo"):
            path = HERE / f"torch-{name}-{exporter}.onnx"
            dynamic = {"dynamo": False, "dynamic_axes": {"x": {0: "batch"}}}
            if exporter == "dynamo":
                dynamic = {"dynamo": True, "dynamic_shapes": ({0: torch.export.Dim("batch")},), "external_data": False}
            model.eval()
            torch.onnx.export(model, (x[:2],), str(path), input_names=["x"], opset_version=18, **dynamic)
            with torch.no_grad():
                write(path.stem, without_notes(onnx.load(path)), x.numpy(), model(x).numpy())


def without_notes(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model without what the exporter notes about source files and its own steps."""
    del model.metadata_props[:]
    for part in (model.graph, *model.graph.node, *model.graph.value_info, *model.graph.input, *model.graph.output):
        part.doc_string = ""
        del part.metadata_props[:]
    for function in model.functions:
        for node in function.node:
            node.doc_string = ""
            del node.metadata_props[:]
    return model


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    write_scikit_learn()
    write_torch()
