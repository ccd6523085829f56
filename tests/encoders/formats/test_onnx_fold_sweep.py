"""Constants that the reader computes have the bits that onnxruntime's own kernels give."""

from collections import Counter

import numpy as np
import onnx
import onnxruntime
import pytest

from encoders.formats.errors import ModelFileError
from encoders.formats.onnx_fold import FOLDERS
from encoders.formats.onnx_reader import convert
from tests.networks.onnx_fold_sweep import drawn_constant, with_input

SAMPLE, LARGE_SAMPLE = 600, 6000


def kernel_value(alone: onnx.ModelProto) -> np.ndarray | None:
    """Return the constant as onnxruntime's kernels compute it, without its optimiser; None if it refuses the file."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        session = onnxruntime.InferenceSession(alone.SerializeToString(), options, ["CPUExecutionProvider"])
        return np.asarray(session.run(None, {})[0])
    except Exception:
        # It has no kernel for the type, or takes the file to be invalid.
        return None


def outcome(seed: int) -> tuple[str, set[str]]:
    """Return what came of a file, and the operators in it."""
    alone, source = drawn_constant(seed)
    operators = {node.op_type for node in alone.graph.node}
    expected = kernel_value(alone)
    if expected is None or expected.size == 0:
        return "unopened", operators
    try:
        network = convert(with_input(source, expected), "constant.onnx")
    except ModelFileError:
        return "refused", operators
    value = network.evaluate(
        np.zeros((1, *network.input_shape), expected.dtype if expected.dtype.kind == "f" else "f4")
    )
    # An addition to zero keeps all bits but the sign of a zero.
    wanted = expected.astype(value.numpy().dtype).reshape(value.shape)
    assert np.array_equal(value.numpy(), wanted), f"seed {seed}: {value} {wanted}\n{onnx.printer.to_text(alone)}"
    return "equal", operators


def sweep(seeds: range) -> tuple[Counter[str], Counter[str], Counter[str]]:
    """Return outcomes, and how often each operator was in an equal and in a refused file."""
    outcomes: Counter[str] = Counter()
    by_outcome: dict[str, Counter[str]] = {"equal": Counter(), "refused": Counter(), "unopened": Counter()}
    for seed in seeds:
        result, operators = outcome(seed)
        outcomes[result] += 1
        by_outcome[result].update(operators)
    return outcomes, by_outcome["equal"], by_outcome["refused"]


def check(seeds: range) -> None:
    outcomes, equal, refused = sweep(seeds)
    assert set(FOLDERS) <= set(equal), set(FOLDERS) - set(equal)
    # Nothing else was folded, though it was there to be.
    assert not set(equal) - set(FOLDERS)
    assert {"Softmax", "Hardmax", "ReduceSum"} <= set(refused)
    assert outcomes["equal"] > len(seeds) // 3


def test_a_sample_of_folded_constants_has_the_bits_of_onnxruntime() -> None:
    check(range(SAMPLE))


@pytest.mark.slow
def test_folded_constants_have_the_bits_of_onnxruntime() -> None:
    check(range(SAMPLE, SAMPLE + LARGE_SAMPLE))
