"""`show` lists what a model holds, and what of it cannot be read, in words and as one JSON object."""

import json
from pathlib import Path

import onnx
import pytest

import verifier
from encoders.formats import ModelFileError
from tests.networks.onnx_models import model
from verifier.cli import main

make = onnx.helper.make_node


@pytest.fixture
def unreadable(tmp_path: Path) -> Path:
    nodes = [
        make("LRN", ["x"], ["a"], name="norm", size=3),
        make("Relu", ["a"], ["b"]),
        make("TopK", ["b", "k"], ["y", "places"], name="best"),
    ]
    path = tmp_path / "model.onnx"
    onnx.save(model(nodes, ["N", 3, 4, 4], {"k": [1]}), path)
    return path


def test_what_is_not_supported_stands_in_one_list_with_remedies(unreadable, capsys, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    assert main(["show", str(unreadable), "--supports"]) == 2
    output = capsys.readouterr().out
    lines = [line for line in output.splitlines() if "│" in line]
    assert "2 nodes" in output and [line.split("│")[1].strip() for line in lines] == ["norm", "best"]
    assert "stored statistics" in lines[0] and "end the export" in lines[1]


def test_the_same_list_as_json_and_from_python(unreadable, capsys) -> None:
    assert main(["show", str(unreadable), "--supports", "--json"]) == 2
    printed = json.loads(capsys.readouterr().out)
    result = verifier.show(unreadable, supports=True)
    assert printed == result.to_json() and printed["supported"] is False and result.network is None
    assert [entry["operator"] for entry in printed["unsupported"]] == ["LRN", "TopK"]
    with pytest.raises(ModelFileError, match="2 problems"):
        verifier.show(unreadable)


def test_a_model_that_is_supported_says_so(capsys) -> None:
    assert main(["show", "digits-conv", "--supports"]) == 0
    assert "every node is supported" in capsys.readouterr().out
    assert main(["show", "digits-conv", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["supported"] is True and printed["unsupported"] == []
    assert printed["nodes"][0]["op"] == "reshape" and printed["output_shape"] == [10]


def test_supports_needs_a_model_that_is_there(capsys, tmp_path) -> None:
    assert main(["show", "--supports"]) == 2
    assert "MODEL" in capsys.readouterr().err
    (tmp_path / "empty.onnx").write_bytes(b"")
    assert main(["show", str(tmp_path / "empty.onnx"), "--supports"]) == 2
    assert "empty" in capsys.readouterr().err
