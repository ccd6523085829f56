"""Axes are permuted only if the user names the layout of the data, and refused where only a permutation fits."""

import re
from itertools import permutations

import numpy as np
import pytest
import torch

from encoders import read_network
from tests.conftest import REPOSITORY
from verifier.data import DataError, from_arrays, load_data

CASES = REPOSITORY / "tests" / "cases" / "layout"


def numbered(*shape, count=2):
    """Return inputs that all have other values."""
    return from_arrays(np.arange(count * np.prod(shape)).reshape(count, *shape))


def refusal(data, shape, layout=None):
    with pytest.raises(DataError) as caught:
        data.fit_to(shape, layout)
    return str(caught.value)


# The case that was read wrongly


def test_channels_last_data_are_refused_with_the_option_that_takes_them():
    words = refusal(load_data(CASES / "nhwc.npz"), (3, 4, 4))
    assert "(4, 4, 3)" in words and "(3, 4, 4)" in words and "(2, 0, 1)" in words
    assert "--layout nhwc" in words and "x.transpose(0, 3, 1, 2)" in words


def test_with_the_layout_all_inputs_are_classified_as_labelled():
    network = read_network(CASES / "nchw.onnx")
    data = load_data(CASES / "nhwc.npz").fit_to(network.input_shape, "nhwc")
    assert data.digest == load_data(CASES / "nchw.npz").fit_to(network.input_shape).digest
    assert int((network.evaluate(torch.tensor(data.inputs)).argmax(dim=1).numpy() == data.labels).sum()) == 40
    assert data.note.endswith("permuted from nhwc to nchw, (4, 4, 3) to (3, 4, 4)") and not data.warnings


# A layout that is given


@pytest.mark.parametrize("shape", [(5, 6, 3), (4, 4, 3), (3, 5, 3), (7, 1, 2)])
def test_a_layout_permutes_to_the_other_order_and_back(shape):
    data = numbered(*shape)
    last_to_first = data.fit_to((shape[2], *shape[:2]), "nhwc")
    assert (last_to_first.inputs == data.inputs.transpose(0, 3, 1, 2)).all()
    assert last_to_first.inputs.flags.c_contiguous and last_to_first.digest != data.digest
    back = last_to_first.fit_to(shape, "nchw")
    assert (back.inputs == data.inputs).all() and back.digest == data.digest
    assert not last_to_first.warnings and not back.warnings


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
def test_a_model_that_takes_the_layout_of_the_data_gets_them_as_they_are(layout):
    data = numbered(4, 4, 3)
    fitted = data.fit_to((4, 4, 3), layout)
    assert fitted.digest == data.digest and f"{layout} by the given layout" in fitted.note and not fitted.warnings


def test_where_both_orders_have_the_models_shape_the_model_has_channels_first_and_the_user_is_told():
    data = numbered(3, 3, 3)
    assert data.fit_to((3, 3, 3)) is data
    kept, turned = data.fit_to((3, 3, 3), "nchw"), data.fit_to((3, 3, 3), "nhwc")
    assert kept.digest == data.digest
    assert (turned.inputs == data.inputs.transpose(0, 3, 1, 2)).all()
    for fitted in (kept, turned):
        assert len(fitted.warnings) == 1 and "fits both layouts and is taken as channels first" in fitted.warnings[0]


def test_a_layout_that_is_wrong_names_the_one_that_fits():
    assert "fits --layout nhwc" in refusal(numbered(4, 4, 3), (3, 4, 4), "nchw")
    assert "fits --layout nchw" in refusal(numbered(3, 4, 4), (4, 4, 3), "nhwc")


def test_a_layout_does_not_swap_height_and_width():
    for data, layout in ((numbered(3, 32, 24), "nchw"), (numbered(32, 24, 3), "nhwc")):
        assert "(3, 32, 24) with channels first" in refusal(data, (3, 24, 32), layout)


def test_a_layout_says_nothing_of_the_order_of_a_flat_model():
    words = refusal(numbered(4, 4, 3), (48,), "nhwc")
    assert "nothing says in which order" in words and "x.transpose(0, 3, 1, 2).reshape(len(x), -1)" in words


@pytest.mark.parametrize("shape", [(48,), (2, 2, 3, 4), (2, 2, 2, 2, 3)])
def test_a_layout_of_inputs_without_three_axes_is_refused(shape):
    assert "names the order of three axes" in refusal(numbered(*shape), (3, 4, 4), "nhwc")


@pytest.mark.parametrize("layout", ["NHWC", "hwc", "", 3, ["nhwc"]])
def test_a_layout_that_is_none_is_refused(layout):
    assert "not one of nchw, nhwc" in refusal(numbered(4, 4, 3), (3, 4, 4), layout)


def test_a_torch_module_names_no_shape_and_has_channels_first():
    data = numbered(5, 6, 3)
    assert data.channels_first_shape("nhwc") == (3, 5, 6)
    assert data.channels_first_shape("nchw") == data.channels_first_shape(None) == (5, 6, 3)
    assert numbered(9).channels_first_shape("nhwc") == (9,)
    fitted = data.fit_to(data.channels_first_shape("nhwc"), "nhwc")
    assert (fitted.inputs == data.inputs.transpose(0, 3, 1, 2)).all()


# No layout given


def test_axes_that_fit_only_after_a_permutation_are_refused_whatever_they_are():
    for shape in ((2, 3, 4), (2, 3, 5, 7), (2, 2, 3), (1, 4, 5, 6)):
        for order in set(permutations(shape)):
            ones = [size for size in order if size > 1] == [size for size in shape if size > 1]
            if ones:
                fitted = numbered(*order).fit_to(shape)
                assert not fitted.warnings and (fitted.inputs.ravel() == numbered(*order).inputs.ravel()).all()
            else:
                assert "only with their axes in another order" in refusal(numbered(*order), shape)


@pytest.mark.parametrize(
    "data, model, order, line",
    [
        ((3, 32, 24), (3, 24, 32), "(0, 2, 1)", "save x.transpose(0, 1, 3, 2) as x"),
        ((32, 24, 3), (3, 24, 32), "(2, 1, 0)", "save x.transpose(0, 3, 2, 1) as x"),
        ((28, 20), (1, 20, 28), "(1, 0)", "x.transpose(0, 2, 1).reshape(len(x), 1, 20, 28)"),
        ((16, 3), (3, 4, 4), "(1, 0)", "x.transpose(0, 2, 1).reshape(len(x), 3, 4, 4)"),
        ((4, 4, 3), (3, 16), "(2, 0, 1)", "x.transpose(0, 3, 1, 2).reshape(len(x), 3, 16)"),
        ((4, 4, 1, 3), (3, 4, 4), "(3, 0, 1, 2)", "x.transpose(0, 4, 1, 2, 3).reshape(len(x), 3, 4, 4)"),
        ((2, 3) * 6, (3, 2) * 6, "(1, 0, 3, 2, ", "save x.transpose("),
    ],
)
def test_the_refusal_shows_the_line_that_permutes(data, model, order, line):
    words = refusal(numbered(*data), model)
    assert order in words and line in words
    # The line does what it says: its result is taken without a word.
    x = numbered(*data).inputs
    expression = re.search(r"save (x\.transpose\(.*\)) as x", words)[1]
    fitted = from_arrays(eval(expression, {"x": x, "len": len})).fit_to(model)
    assert fitted.input_shape == model and not fitted.warnings


def test_channels_first_data_of_a_channels_last_model_name_their_layout():
    assert "channels first, say --layout nchw" in refusal(numbered(3, 4, 4), (4, 4, 3))


@pytest.mark.parametrize(
    "data, model",
    [
        ((28, 28), (1, 28, 28)), ((28, 28, 1), (1, 28, 28)), ((1, 28, 28), (28, 28, 1)), ((784,), (1, 28, 28)),
        ((1, 28, 28), (784,)), ((784,), (28, 28, 1)), ((1, 1, 9), (9,)), ((9,), (9, 1, 1)), ((1,), (1, 1, 1)),
    ],
)  # fmt: skip
def test_grey_images_have_one_order_and_the_note_says_what_was_done(data, model):
    said = {(28, 28): ("nhwc", "nchw"), (28, 28, 1): ("nhwc",), (1, 28, 28): ("nchw",), (784,): ("nhwc", "nchw")}
    for layout in (None, *said.get(data, ())):
        fitted = numbered(*data).fit_to(model, layout)
        assert not fitted.warnings and f"reshaped in C order from {data} to {model}" in fitted.note
        assert (fitted.inputs.ravel() == numbered(*data).inputs.ravel()).all()


@pytest.mark.parametrize(
    "data, model, words",
    [
        ((48,), (3, 4, 4), "x.reshape(len(x), 4, 4, 3) for channels last) and say --layout nhwc"),
        ((3, 32, 32), (3072,), "save x flattened in that order"),
        ((32, 32, 3), (3072,), "save x flattened in that order"),
        ((6, 8), (3, 4, 4), "save x in the model's shape and order"),
        ((3, 16), (3, 4, 4), "save x in the model's shape and order"),
        ((16,), (4, 4), "save x in the model's shape and order"),
    ],
)
def test_equal_numbers_of_elements_in_another_shape_are_warned_of(data, model, words):
    fitted = numbered(*data).fit_to(model)
    assert len(fitted.warnings) == 1 and words in fitted.warnings[0]
    assert fitted.warnings[0].startswith(f"arrays: inputs of shape {data} are taken as {model} in C order")
    assert (fitted.inputs.ravel() == numbered(*data).inputs.ravel()).all()


def test_a_single_input_without_its_first_axis_is_recognised():
    assert "give x[None]" in refusal(numbered(4, 4, count=3), (3, 4, 4))
    assert "x[None]" not in refusal(numbered(4, 3, count=3), (3, 4, 4))


def test_warnings_stay_with_the_data():
    twice = numbered(48).fit_to((3, 4, 4)).fit_to((48,))
    assert len(twice.warnings) == 2
