"""Labels are taken in the forms that mean one thing; all others are refused with a remedy."""

import numpy as np
import pytest
import torch

from verifier.data import DataError, check_labels, from_arrays

CLASSES = np.array([2, 0, 1, 2])


def one_hot(dtype):
    return np.eye(3)[CLASSES].astype(dtype)


def labelled(y):
    return from_arrays(np.zeros((len(y), 2)), y)


@pytest.mark.parametrize(
    "y, words",
    [
        (CLASSES[:, None], "labels from a column (4, 1)"),
        (CLASSES[:, None].astype(np.float32), "labels from a column (4, 1)"),
        (torch.tensor(CLASSES)[:, None], "labels from a column (4, 1)"),
        *(
            (one_hot(dtype), "labels from one-hot rows of 3 classes")
            for dtype in (float, np.float16, int, np.uint8, bool)
        ),
        (torch.tensor(one_hot(np.float32)), "labels from one-hot rows of 3 classes"),
        (one_hot(int).tolist(), "labels from one-hot rows of 3 classes"),
        (CLASSES.astype(">i2"), ""),
    ],
)
def test_every_form_gives_the_same_labels_and_digest(y, words):
    data = labelled(y)
    assert data.labels.dtype == np.int64 and data.labels.tolist() == CLASSES.tolist()
    assert data.digest == labelled(CLASSES).digest
    assert words in data.note


def test_booleans_are_0_and_1_also_in_a_column():
    for y in (np.array([True, False]), np.array([[True], [False]])):
        data = labelled(y)
        assert data.labels.tolist() == [1, 0] and data.label_classes == 2 and "boolean labels as 0 and 1" in data.note


def test_random_one_hot_rows_are_read_back():
    generator = np.random.default_rng(3)
    for classes in range(2, 12):
        expected = generator.integers(0, classes, 7)
        data = labelled(np.eye(classes)[expected])
        assert data.labels.tolist() == expected.tolist() and data.label_classes == classes


def test_one_input_with_a_one_hot_row_is_no_row_of_labels():
    assert labelled(np.array([[0, 0, 1]])).labels.tolist() == [2]


@pytest.mark.parametrize("y, named", [(np.eye(3)[[0, 1]], 3), (np.array([True, False]), 2)])
def test_the_classes_that_a_form_names_must_be_those_of_the_model(y, named):
    data = labelled(y)
    check_labels(data, named)
    with pytest.raises(DataError, match=rf"names {named} classes, the model has 10; .*astype"):
        check_labels(data, 10)
    with pytest.raises(DataError, match="names"):
        check_labels(data.fit_to((2, 1)), 10)


@pytest.mark.parametrize(
    "y, words",
    [
        ([[0.25, 0.75], [1, 0]], r"row 0 is \[0\.25, 0\.75\].*y\.argmax\(axis=1\)"),
        ([[1, 0], [1, 1]], r"row 1 is \[1, 1\]"),
        ([[1, 0], [0, 0]], r"row 1 is \[0, 0\]"),
        ([[1, 0], [0, 2]], r"row 1 is \[0, 2\]"),
        ([[1, 0], [0, -1]], r"row 1 is"),
        ([[1, 0], [2, -1]], r"row 1 is"),
        ([[1, 0], [np.nan, 1]], r"row 1 is"),
        ([[0, 1e-300], [0, 1]], r"row 0 is"),
        ([[0.5], [1]], r"label 0\.5 at index \(0, 0\)"),
        ([[np.nan], [1]], r"label nan at index \(0, 0\)"),
        ([[0], [-1]], r"label -1 at index 1 is negative"),
        ([[0, 1, 2]], r"shape \(1, 3\) for 2 inputs"),
        ([[[0], [1]]], r"shape \(1, 2, 1\) for 2 inputs.*y\.reshape\(-1\)"),
        ([[[0]], [[1]]], r"shape \(2, 1, 1\) for 2 inputs.*y\.reshape\(-1\)"),
        (np.eye(2)[:, None], r"shape \(2, 1, 2\) for 2 inputs"),
        (np.zeros((2, 0)), r"shape \(2, 0\) for 2 inputs"),
        (3, r"shape \(\) for 2 inputs"),
        ([], r"shape \(0,\) for 2 inputs"),
        (["cat", "dog"], r"dtype <U3.*np\.unique"),
        ([b"0", b"1"], r"dtype \|S1.*astype"),
        (np.array([0, 1], object), "y has dtype object"),
        ([0, None], "y has dtype object"),
        ([[0], [0, 1]], "y is no array"),
        (np.array([0, 1], complex), "complex128"),
        (np.array([0, 1], "M8[D]"), "datetime64"),
        (np.zeros(2, [("a", "i4")]), "dtype"),
        (np.ma.masked_equal([0, 1], 1), r"y has masked values.*y\.filled"),
        ({"a": 0}, "dtype object"),
    ],
)
def test_labels_that_mean_nothing_or_several_things_are_refused(y, words):
    with pytest.raises(DataError, match=words):
        from_arrays(np.zeros((2, 2)), y)


def test_a_row_of_labels_is_refused_with_the_way_out():
    x = np.zeros((3, 2))
    for y in ([[0, 1, 2]], np.array([[0, 1, 2]]).view(np.matrix)):
        with pytest.raises(DataError, match=r"shape \(1, 3\) for 3 inputs; expected \(3,\); .*y\.reshape\(-1\)"):
            from_arrays(x, y)
    with pytest.raises(DataError, match=r"y\.T"):
        from_arrays(x, np.eye(3)[[0, 1]])


@pytest.mark.skipif(np.dtype(np.longdouble).itemsize == 8, reason="no wider float on this platform")
def test_labels_wider_than_64_bits_are_refused():
    with pytest.raises(DataError, match=r"longdouble|float128|float96"):
        labelled(np.array([0, 1], np.longdouble))


def test_the_first_wrong_label_is_named_beyond_a_block():
    y = np.zeros(2**20 + 7)
    y[2**20 + 3] = 0.5
    with pytest.raises(DataError, match=rf"label 0\.5 at index \({2**20 + 3},\)"):
        labelled(y)
