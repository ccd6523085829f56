"""Runtimes: one row out for each row in, whatever batch the framework takes."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from encoders import read_network
from encoders.formats import open_runtime
from tests.networks.onnx_models import model

WEIGHT = np.random.default_rng(0).normal(size=(6, 3))

SHAPES = {"any": ["N", 6], "one": [1, 6], "none": [6]}


def saved(path: Path, source: onnx.ModelProto) -> Path:
    onnx.save(source, str(path))
    return path


@pytest.mark.parametrize("batch", SHAPES)
def test_a_runtime_takes_a_batch_whatever_the_file_takes(tmp_path: Path, batch: str) -> None:
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    path = saved(tmp_path / "model.onnx", model([node], SHAPES[batch], {"w": WEIGHT}))
    runtime = open_runtime(path)
    x = np.random.default_rng(1).normal(size=(5, 6)).astype(np.float32)
    assert (runtime.batch, runtime.input_shape, runtime.dtype) == (batch, (6,), np.float32)
    assert np.allclose(runtime(x), x @ WEIGHT.astype(np.float32), atol=1e-5)
    assert np.allclose(runtime(x), read_network(path).evaluate(x).numpy(), atol=1e-5)


def test_a_file_that_reshapes_to_one_row_inside_is_run_row_by_row(tmp_path: Path) -> None:
    nodes = [helper.make_node("Reshape", ["x", "shape"], ["flat"]), helper.make_node("MatMul", ["flat", "w"], ["y"])]
    source = model(nodes, ["N", 2, 3], {"shape": np.array([1, 6]), "w": WEIGHT})
    path = saved(tmp_path / "model.onnx", source)
    runtime = open_runtime(path)
    x = np.random.default_rng(1).normal(size=(4, 2, 3)).astype(np.float32)
    assert runtime.batch == "one"
    assert np.allclose(runtime(x), read_network(path).evaluate(x).numpy(), atol=1e-5)


def test_a_witness_of_another_shape_or_dtype_is_not_converted(tmp_path: Path) -> None:
    path = saved(tmp_path / "model.onnx", model([helper.make_node("Relu", ["x"], ["y"])], ["N", 6]))
    runtime = open_runtime(path)
    with pytest.raises(ValueError, match="dtype"):
        runtime(np.zeros((1, 6)))
    for shape in ((6,), (1, 5), (0, 6)):
        with pytest.raises(ValueError, match="shape"):
            runtime(np.zeros(shape, np.float32))
