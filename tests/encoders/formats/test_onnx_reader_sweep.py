"""Thousands of generated ONNX files: what the reader accepts computes what onnxruntime does, the rest is refused."""

from collections import Counter
from collections.abc import Iterable, Iterator

import numpy as np
import onnx
import onnxruntime
import pytest

from encoders.formats.errors import ModelFileError
from encoders.formats.onnx_operators import OTHER_DOMAINS
from encoders.formats.onnx_reader import HANDLERS, convert
from encoders.network import Network
from tests.networks.onnx_models import DOUBLE
from tests.networks.onnx_sweep import drawn_model

# The graphs sum some dozens of products of numbers around 1: a different meaning shows far above this.
TOLERANCE = {np.float32: 2e-5, np.float64: 1e-11}

DRAWN = set(HANDLERS) - set(OTHER_DOMAINS)
SAMPLE, BLOCK, BLOCKS = 400, 4000, 2


def outcome(source: onnx.ModelProto) -> str:
    """Return "refused", "unopened" (by onnxruntime) or "equal"; fail if the two compute different values."""
    try:
        network = convert(source, "sweep.onnx")
    except ModelFileError as error:
        assert str(error).startswith("sweep.onnx: ")
        return "refused"
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(source.SerializeToString(), options, ["CPUExecutionProvider"])
    except Exception:
        # It has no kernel for the type, or takes the file to be invalid.
        return "unopened"
    value = source.graph.input[0].type.tensor_type
    shape = [dimension.dim_value or 1 for dimension in value.shape.dim]
    dtype = np.float64 if value.elem_type == DOUBLE else np.float32
    compare(network, session, np.random.default_rng(7).normal(size=shape).astype(dtype), len(network.input_shape))
    if value.shape.dim[0].dim_param:
        compare_batch(network, session, np.random.default_rng(8).normal(size=[3, *shape[1:]]).astype(dtype))
    return "equal"


def compare(network: Network, session: onnxruntime.InferenceSession, x: np.ndarray, rank: int) -> None:
    expected = session.run(None, {"x": x})[0]
    batched = x.ndim > rank
    value = network.evaluate(x if batched else x[None]).numpy()
    assert_close(value if batched else value[0], expected)


def compare_batch(network: Network, session: onnxruntime.InferenceSession, x: np.ndarray) -> None:
    try:
        expected = session.run(None, {"x": x})[0]
    except Exception:
        # The file claims any batch and fixes one inside: it is run row by row.
        return
    value = network.evaluate(x).numpy()
    if expected.shape[:1] == value.shape[:1]:
        assert_close(value, expected)


def assert_close(value: np.ndarray, expected: np.ndarray) -> None:
    assert value.dtype == expected.dtype
    assert value.shape == expected.shape
    # Logarithms and powers leave the numbers at one place.
    finite = np.isfinite(expected)
    assert np.array_equal(value[~finite], expected[~finite], equal_nan=True)
    value, expected = np.where(finite, value, 0), np.where(finite, expected, 0)
    assert np.abs(value - expected).max() <= TOLERANCE[expected.dtype.type] * (1 + np.abs(expected).max())


def seeds_with(operator: str, start: int) -> Iterator[int]:
    """Yield seeds from one on whose float32 files hold an operator; chains, which take long to draw, are left out."""
    for seed in range(start, start + 20_000):
        graph = drawn_model(seed).graph if seed % 5 else None
        if graph is None or graph.input[0].type.tensor_type.elem_type == DOUBLE:
            continue
        if any(node.op_type == operator for node in graph.node):
            yield seed


def sweep(seeds: Iterable[int]) -> tuple[Counter[str], Counter[str]]:
    """Return how often each outcome came, and each operator in a file that was read and compared."""
    outcomes: Counter[str] = Counter()
    compared: Counter[str] = Counter()
    for seed in seeds:
        source = drawn_model(seed)
        try:
            result = outcome(source)
        except Exception as error:
            raise AssertionError(f"seed {seed}: {error}\n{onnx.printer.to_text(source)}") from error
        outcomes[result] += 1
        if result == "equal":
            compared.update({node.op_type for node in source.graph.node})
    return outcomes, compared


def test_a_sample_of_generated_files_is_read_as_onnxruntime_runs_it_or_refused() -> None:
    outcomes, compared = sweep(range(SAMPLE))
    # Few files are drawn by default: for operators that these happen to lack one more is looked for.
    for operator in sorted(DRAWN - set(compared)):
        assert any(sweep([seed])[0]["equal"] for seed in seeds_with(operator, SAMPLE)), operator
    assert outcomes["equal"] > SAMPLE // 4
    assert outcomes["refused"] > SAMPLE // 10


@pytest.mark.slow
@pytest.mark.parametrize("block", range(BLOCKS))
def test_generated_files_are_read_as_onnxruntime_runs_them_or_refused(block: int) -> None:
    outcomes, compared = sweep(range(SAMPLE + block * BLOCK, SAMPLE + (block + 1) * BLOCK))
    assert min(compared[operator] for operator in DRAWN) >= 3, [name for name in DRAWN if compared[name] < 3]
    assert outcomes["equal"] > BLOCK // 4
