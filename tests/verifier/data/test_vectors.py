"""Numbers for each input, from files and arrays, and the inputs that are named."""

import numpy as np
import pytest

from encoders.limits import LimitError, Limits
from verifier.data import DataError
from verifier.data.vectors import places, read_vectors

COLUMNS = ("age", "height", "weight")


def read(given, names=("scale",), shape=(3,), columns=COLUMNS):
    return read_vectors(given, names, shape, columns, Limits())


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.txt", "1 2.5 1e-3\n"),
        ("b.txt", "1\n2.5\n\n.001"),
        ("c.csv", "age,height,weight\n1, 2.5 ,0.001\n"),
        ("d.csv", '"scale"\n1\n2.5\n0.001\n'),
    ],
)
def test_a_vector_in_text_is_a_row_or_a_column(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    np.testing.assert_array_equal(read(tmp_path / name), [[1, 2.5, 1e-3]])


def test_two_vectors_are_rows_or_columns(tmp_path):
    (tmp_path / "rows.csv").write_text("0,1,2\n3,4,5\n")
    (tmp_path / "columns.csv").write_text("least,greatest\n0,3\n1,4\n2,5\n")
    wanted = np.arange(6.0).reshape(2, 3)
    np.save(tmp_path / "rows.npy", wanted.astype(np.int8))
    np.savez(tmp_path / "both.npz", lower=wanted[0], upper=wanted[1])
    for given in ("rows.csv", "columns.csv", "rows.npy", "both.npz"):
        np.testing.assert_array_equal(read(tmp_path / given, ("lower", "upper")), wanted)
    np.testing.assert_array_equal(read(wanted.tolist(), ("lower", "upper")), wanted)
    # As many columns as rows: rows are meant.
    np.testing.assert_array_equal(read([[0, 1], [2, 3]], ("lower", "upper"), (2,)), [[0, 1], [2, 3]])


def test_numbers_take_the_shape_of_the_input(tmp_path):
    values = np.arange(6.0).reshape(1, 2, 3)
    np.savez(tmp_path / "scale.npz", scale=values)
    assert read(tmp_path / "scale.npz", shape=(1, 2, 3)).shape == (1, 1, 2, 3)
    np.testing.assert_array_equal(read(values.ravel(), shape=(1, 2, 3))[0], values)


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.txt", "1 2\n", "2 numbers of shape .1, 2., where 3"),
        ("a.txt", "", "holds no numbers"),
        ("a.txt", "1 2 3\n4 5\n", "line 2: 2 numbers"),
        ("a.txt", "1 2 x\n4 5 6\n", "line 1: 'x'"),
        ("a.txt", "a b c d\n4 5 6\nfoo\n", "line 3: 'foo'"),
        ("a.csv", "1,nan,3\n", "line 1: 'nan'"),
        ("a.csv", "height,age,weight\n1,2,3\n", "column 0 is called 'height', the data's 'age'"),
        ("a.json", "[1, 2, 3]", "give numbers, or a .npy"),
        ("a.npy", "1 2 3", "no .npy file"),
    ],
)
def test_other_files_are_refused(tmp_path, name, text, words):
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=words):
        read(tmp_path / name)


def test_files_keep_to_the_limits_and_are_never_unpickled(tmp_path):
    (tmp_path / "a.txt").write_text("1 2 3\n")
    with pytest.raises(LimitError):
        read_vectors(tmp_path / "a.txt", ("scale",), (3,), (), Limits(text_bytes=3))
    np.save(tmp_path / "a.npy", np.array([1, "a", None], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match="pickled"):
        read(tmp_path / "a.npy")


def test_places_ranges_and_names():
    assert places([2, "0"], (3,), ()) == (0, 2)
    assert places(["1:3"], (3,), ()) == (1, 2)
    assert places(["weight", "age", "0:1"], (3,), COLUMNS) == (0, 2)
    # A name goes before a place.
    assert places(["1"], (3,), ("1", "0", "2")) == (0,)
    assert places([1], (3,), ("1", "0", "2")) == (1,)
    for wrong in ("3", "-1", "1:4", "2:2", "Age", "1:", "9" * 30, "1.0", ""):
        with pytest.raises(DataError, match="cannot fix"):
            places([wrong], (3,), COLUMNS)
