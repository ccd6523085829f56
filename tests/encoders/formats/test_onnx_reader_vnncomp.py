"""The reader on the networks of a competition, against onnxruntime, in float32 and in float64."""

import gzip
from pathlib import Path

import numpy as np
import onnx
import pytest

from encoders import read_network
from encoders.formats import open_runtime
from encoders.formats.onnx_reader import convert
from tests.conftest import SHARED_DATA
from tests.networks.onnx_models import in_double, run_onnxruntime, run_reference, true_input

# As in test_onnx_reader.
FLOAT_TOLERANCE = 2e-4
DOUBLE_TOLERANCE = 1e-9
ROWS = 2
LARGE_BYTES = 50 << 20

NETWORKS = sorted(path for suffix in ("onnx", "onnx.gz") for path in (SHARED_DATA / "vnncomp").rglob(f"*.{suffix}"))


def unpacked_size(path: Path) -> int:
    if path.suffix != ".gz":
        return path.stat().st_size
    # The last four bytes of a gzip file hold the size of its content.
    return int.from_bytes(path.read_bytes()[-4:], "little")


def parameter(path: Path) -> object:
    marks = [pytest.mark.slow] if unpacked_size(path) > LARGE_BYTES else []
    return pytest.param(path, id=str(path.relative_to(SHARED_DATA / "vnncomp")), marks=marks)


@pytest.mark.skipif(not NETWORKS, reason="the optional data sets are not here")
@pytest.mark.parametrize("path", [parameter(path) for path in NETWORKS])
def test_a_competition_network_agrees_with_onnxruntime(path: Path) -> None:
    network = read_network(path)
    runtime = open_runtime(path)
    assert network.output.op.kind in ("affine", "relu", "reshape")
    x = np.random.default_rng(3).uniform(-1, 1, (ROWS, *network.input_shape)).astype(np.float32)
    expected = runtime(x)
    value = network.evaluate(x).numpy()
    assert value.shape == expected.shape == (ROWS, *network.output_shape)
    assert np.abs(value - expected).max() <= FLOAT_TOLERANCE * np.abs(expected).max()


@pytest.mark.skipif(not NETWORKS, reason="the optional data sets are not here")
@pytest.mark.parametrize("path", [parameter(path) for path in NETWORKS])
def test_a_competition_network_in_double_agrees_with_onnxruntime_or_the_reference(path: Path) -> None:
    content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    source = in_double(onnx.load_model_from_string(content))
    network = convert(source, path.name)
    shape = [d.dim_value or 1 for d in true_input(source).type.tensor_type.shape.dim]
    x = np.random.default_rng(3).uniform(-1, 1, shape)
    expected = run_onnxruntime(source, x)
    if expected is None:
        # It has no double-precision convolution.
        expected = run_reference(source, x)
    value = network.evaluate(x.reshape(1, *network.input_shape)).numpy()
    assert np.abs(value.reshape(expected.shape) - expected).max() <= DOUBLE_TOLERANCE * np.abs(expected).max()
