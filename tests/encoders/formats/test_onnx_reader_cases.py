"""Files that were read otherwise than onnxruntime runs them, by their right values: refused, with the way out."""

import numpy as np
import onnx
import pytest

from encoders import read_network
from encoders.formats import ModelFileError, open_runtime
from tests.conftest import REPOSITORY
from tests.networks.onnx_models import run_onnxruntime

CASES = REPOSITORY / "tests" / "cases" / "reading"


def refusal(name: str) -> str:
    messages = []
    for open_file in (read_network, open_runtime):
        with pytest.raises(ModelFileError) as error:
            open_file(CASES / f"{name}.onnx")
        messages.append(str(error.value))
    assert messages[0] == messages[1]
    return messages[0]


def test_a_softmax_of_constants_is_not_folded_as_it_means_two_things() -> None:
    message = refusal("softmax_opset11")
    assert "'s' (Softmax): is computed from constants alone" in message
    assert "constants folded" in message


def test_a_dilated_pool_that_pads_itself_is_refused_with_the_way_out() -> None:
    message = refusal("maxpool_same_dilation")
    assert "'p' (MaxPool): auto_pad = 'SAME_LOWER' with dilations = [2, 2]" in message
    assert "write the pads out" in message


def test_the_point_beside_a_dilated_pool_changes_class_in_onnxruntime() -> None:
    """What the refusal prevents: the point lies in the ball that was once certified."""
    case = np.load(CASES / "maxpool_same_dilation.npz")
    source = onnx.load(CASES / "maxpool_same_dilation.onnx")
    scores = run_onnxruntime(source, case["point"].reshape(1, 1, 4, 4).astype(np.float32))
    assert scores is not None
    assert int(scores.argmax()) != int(case["y"].reshape(-1)[0])


def test_batch_normalisation_in_training_mode_is_refused_for_being_that() -> None:
    message = refusal("batchnorm_training")
    assert "1 problem" in message
    assert "'bn' (BatchNormalization): is in training mode" in message
    assert "model.eval()" in message
