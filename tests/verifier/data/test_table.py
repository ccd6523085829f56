"""Tables from .csv files: numbers as written, labels by column, and refusals with line, column and value."""

import csv
import json

import numpy as np
import pytest

from encoders import write_network
from encoders.limits import LimitError, Limits
from encoders.network import Network, Node
from encoders.ops import Affine, Relu
from verifier import certify
from verifier.cli import main
from verifier.commands.check import check
from verifier.data import DataError, load_data

HEADER = "age,height,species\n"


def table(tmp_path, text, name="table.csv", encoding="utf-8"):
    path = tmp_path / name
    path.write_bytes(text.encode(encoding))
    return path


def refused(tmp_path, text, *words, **options):
    with pytest.raises(DataError) as error:
        load_data(table(tmp_path, text), **options)
    for word in words:
        assert word in str(error.value), (word, str(error.value))


def test_columns_are_inputs_in_order_and_the_last_is_the_label(tmp_path):
    data = load_data(table(tmp_path, "a,b,y\n1,2.5,0\n-.5,1e-3,1\n"))
    assert data.inputs.dtype == np.float64
    np.testing.assert_array_equal(data.inputs, [[1, 2.5], [-0.5, 1e-3]])
    np.testing.assert_array_equal(data.labels, [0, 1])
    assert data.columns == ("a", "b") and "labels from column 'y'" in data.note


def test_any_numbers_are_read_back_bit_by_bit(tmp_path):
    rng = np.random.default_rng(5)
    values = rng.normal(size=(50, 7)) * 10.0 ** rng.integers(-300, 300, (50, 7))
    rows = [[repr(float(v)) for v in row] + [str(k % 3)] for k, row in enumerate(values)]
    path = tmp_path / "numbers.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([[f"column {k}" for k in range(7)] + ["y"], *rows])
    data = load_data(path)
    np.testing.assert_array_equal(data.inputs, values)
    np.testing.assert_array_equal(data.labels, np.arange(50) % 3)


@pytest.mark.parametrize("label", ["b", 1, "1", -2, "-2"])
def test_a_label_column_is_named_or_counted(tmp_path, label):
    data = load_data(table(tmp_path, "a,b,c\n1,0,3\n4,1,6\n"), label=label)
    assert data.columns == ("a", "c")
    np.testing.assert_array_equal(data.inputs, [[1, 3], [4, 6]])
    np.testing.assert_array_equal(data.labels, [0, 1])


def test_without_a_label_column_all_are_inputs(tmp_path):
    data = load_data(table(tmp_path, "a,b\n1,2\n"), label="none")
    assert data.labels is None and data.columns == ("a", "b")


def test_a_column_that_is_called_like_a_place_is_meant_by_its_name(tmp_path):
    data = load_data(table(tmp_path, "1,none,x\n1,0,3\n"), label="1")
    assert data.columns == ("none", "x")
    assert load_data(table(tmp_path, "1,none,x\n1,0,3\n"), label="none").columns == ("1", "x")


def test_words_are_numbered_in_sorted_order_and_said(tmp_path):
    text = HEADER + '1,2,"virginica"\n3,4, setosa\n5,6,virginica\n'
    data = load_data(table(tmp_path, text))
    np.testing.assert_array_equal(data.labels, [1, 0, 1])
    assert data.label_classes == 2
    assert "'setosa' as 0, 'virginica' as 1" in data.note


def test_the_digest_is_over_the_numbers_and_not_over_the_file(tmp_path):
    plain = load_data(table(tmp_path, "a,b,y\n1,2,0\n"))
    other = load_data(table(tmp_path, 'a,c,y\r\n1.0 , "2",0.0\r\n\r\n', "other.csv", "utf-8-sig"))
    assert plain.digest == other.digest
    assert plain.digest != load_data(table(tmp_path, "a,b,y\n1,3,0\n")).digest
    assert plain.digest != load_data(table(tmp_path, "a,b,y\n1,2,1\n")).digest


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ("empty",)),
        ("a,b,y\n", ("no rows",)),
        ("1,2,0\n3,4,1\n", ("first line holds numbers",)),
        (",a,y\n0,1,0\n", ("column 0 has no name", "index=False")),
        ("a,a,y\n1,2,0\n", ("several columns are called 'a'",)),
        ("a;b;y\n1;2;0\n", ("not divided by commas",)),
        ("a,b,y\n1,2,0\n1,2\n", ("line 3", "2 cells", "3 columns")),
        ("a,b,y\n1,,0\n1,NA,0\n", ("missing values", "'b' first at line 2")),
        ("a,b,y\n1,2,\n", ("missing values", "'y' first at line 2")),
        ("a,b,c,y\n1,red,3,0\n2,3,Paris,0\n", ("'b' holds 'red' at line 2", "'c' holds 'Paris' at line 3", "encode")),
        ("a,b,y\n1,inf,0\n", ("'b' holds 'inf' at line 2",)),
        ("a,b,y\n1,1e999,0\n", ("'b' holds '1e999' at line 2",)),
        ("a,b,y\n1,1_000,0\n", ("'b' holds '1_000' at line 2",)),
        ("a,b,y\n1,0x10,0\n", ("'b' holds '0x10' at line 2",)),
        ("a,b,y\n1,\u0661,0\n", ("'b' holds '\u0661' at line 2",)),
        ("a,b,y\n1,2,0.5\n", ("label 0.5", "column 'y'", "--label")),
        ("a,b,y\n1,2,-1\n", ("label -1",)),
        ("a,b,y\n1,2,0\n3,4,spam\n", ("line 3", "'spam'", "also holds numbers")),
        ("y\n1\n", ("only column",)),
        ('a,b,y\n1,"2,0\n', ("line 2",)),
        ("a,b,y\n1,\0,0\n", ("'b' holds", "line 2")),
    ],
)
def test_what_is_no_table_is_refused_with_its_place(tmp_path, text, words):
    refused(tmp_path, text, *words)


@pytest.mark.parametrize("label", ["c", 3, -4, "1.0", "9" * 5000])
def test_a_label_column_that_is_not_there_is_refused(tmp_path, label):
    refused(tmp_path, "a,b,y\n1,2,0\n", "no column", "a, b, y", label=label)


def test_text_that_is_not_utf_8_is_refused(tmp_path):
    path = table(tmp_path, "größe,y\n1,0\n", encoding="latin-1")
    with pytest.raises(DataError, match="UTF-8"):
        load_data(path)


def test_a_label_of_other_data_is_refused(tmp_path):
    np.savez(tmp_path / "data.npz", x=np.zeros((1, 2)), y=np.zeros(1, int))
    for data in ("digits", tmp_path / "data.npz"):
        with pytest.raises(DataError, match="names a column"):
            load_data(data, label="y")


def test_a_table_asks_for_no_more_than_the_limits(tmp_path):
    path = table(tmp_path, "a,b,y\n" + "1,2,0\n" * 100)
    for limits in (Limits(text_bytes=100), Limits(data_bytes=100), Limits(input_values=2)):
        with pytest.raises(LimitError):
            load_data(path, limits=limits)


def logit_model(tmp_path):
    """Write the network of the one logit x_0 - x_1, behind relus that do nothing on positive inputs."""
    import torch

    first = Affine(torch.eye(2), torch.zeros(2))
    last = Affine(torch.tensor([[1.0, -1.0]]), torch.zeros(1))
    nodes = (Node("first", first, ("input",)), Node("relu", Relu(), ("first",)), Node("last", last, ("relu",)))
    path = tmp_path / "logit.safetensors"
    write_network(Network(nodes, (2,), torch.float32, "test"), path)
    return path


def test_a_binary_classifier_of_one_logit_on_a_table_of_words(tmp_path, capsys):
    # Logits 1, -2 and 0.5: the radius of an input is half its |logit|. The third label is wrong.
    path = table(tmp_path, "y,left,right\nyes,3,2\nno,1,3\nno,2.5,2\n")
    arguments = ["certify", str(logit_model(tmp_path)), "--data", str(path), "--label", "y", "--epsilon", ".4", ".6"]
    assert main([*arguments, "--method", "exact", "--json", "--out", str(tmp_path / "run")]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["inputs"], found["correct"]) == (3, 2)
    assert [(row["certified"], row["falsified"]) for row in found["results"]] == [(2, 0), (1, 1)]
    assert "'no' as 0, 'yes' as 1" in found["data"]
    checked = check(tmp_path / "run")
    assert not checked.refused and checked.checked == checked.certified == 2


def test_words_of_fewer_classes_than_the_model_has_are_refused(tmp_path):
    path = table(tmp_path, "left,right,y\n3,2,yes\n4,1,yes\n")
    with pytest.raises(ValueError, match="names 1 classes"):
        certify(logit_model(tmp_path), path, [0.1], out=None)
