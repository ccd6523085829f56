"""`compare`: every method on the same inputs, nothing hidden, nothing contradictory."""

import csv
import json
import math

import numpy as np
import pytest
import torch

from encoders import write_network
from tests.conftest import random_relu_network
from verifier import compare
from verifier.cli import main
from verifier.comparing import COMPARED, violations
from verifier.methods import METHODS
from verifier.verdict import Bracket


@pytest.fixture
def job(tmp_path):
    """Return (model, data) files of a small network and 70 inputs, some labelled wrongly."""
    network = random_relu_network(0, (5, 10, 8, 3))
    write_network(network, tmp_path / "model.safetensors")
    x = torch.rand(70, 5, generator=torch.Generator().manual_seed(0))
    y = network.evaluate(x).argmax(dim=1)
    y[::7] = (y[::7] + 1) % 3
    np.savez(tmp_path / "data.npz", x=x.numpy(), y=y.numpy())
    return tmp_path / "model.safetensors", tmp_path / "data.npz"


def test_every_method_that_applies_has_a_row_and_the_ends_are_ordered(job, tmp_path):
    model, data = job
    result = compare(model, data, 0.05, clip=(0, 1), out=tmp_path / "run")
    assert {row.method for row in result.rows} | set(result.left_out) == set(COMPARED) == {"attack", *METHODS}
    assert (result.inputs, result.correct) == (70, 60)
    assert not result.violations
    rows = {row.method: row for row in result.rows}
    assert 0 <= rows["interval"].mean_lower <= rows["crown"].mean_lower <= rows["auto"].mean_upper <= 0.05
    assert rows["interval"].gap_closed == 0 and 0 <= rows["crown"].gap_closed <= 1
    assert rows["attack"].gap_closed is None and rows["attack"].direction == "finds"
    for row in result.rows:
        assert row.certified + row.falsified <= result.inputs
        assert len(result.brackets[row.method]) == 70


def test_a_run_is_extended_by_methods_and_inputs_not_repeated(job, tmp_path, monkeypatch):
    model, data = job
    first = compare(model, data, 0.05, methods=["interval"], limit=30, clip=(0, 1), out=tmp_path / "run")
    monkeypatch.setattr(COMPARED["interval"], "bracket", lambda *_: pytest.fail("worked on known inputs again"))
    again = compare(model, data, 0.05, methods=["interval", "attack"], limit=30, clip=(0, 1), out=tmp_path / "run")
    assert [row.method for row in again.rows] == ["attack", "interval"]
    assert again.brackets["interval"] == first.brackets["interval"]


def test_a_contradiction_is_counted_saved_and_no_success(job, tmp_path, monkeypatch, capsys):
    model, data = job

    def lie(batch, epsilons, findings, budget):
        findings.brackets[:] = [bracket.raise_lower(1.0, "lie", bracket.strength) for bracket in findings.brackets]

    monkeypatch.setattr(COMPARED["interval"], "bracket", lie)
    arguments = ["compare", str(model), "--data", str(data), "--epsilon", "0.3", "--clip", "0", "1", "--json"]
    assert main([*arguments, "--method", "interval", "attack", "--out", str(tmp_path / "run")]) == 1
    output = capsys.readouterr()
    result = json.loads(output.out)
    assert result["violations"] and result["violations"][0][1:] == ["interval", "attack"]
    assert "proves safe what attack breaks" in output.err
    with np.load(tmp_path / "run" / "violations.npz") as saved:
        assert set(saved["index"]) == {violation[0] for violation in result["violations"]}
        assert saved["x"].shape[1:] == (5,)


def test_violations_compare_every_pair():
    brackets = {
        "a": [Bracket(0.2), Bracket(math.inf)],
        "b": [Bracket(0.0, 0.2), Bracket(0.0, 0.5)],
        "c": [Bracket()] * 2,
    }
    assert violations([7, 8], brackets) == ((7, "a", "b"), (8, "a", "b"))


def test_the_command_writes_table_and_figures(job, tmp_path, capsys):
    model, data = job
    arguments = ["compare", str(model), "--data", str(data), "--epsilon", "0.05", "--limit", "20", "--clip", "0", "1"]
    assert main([*arguments, "--method", "interval", "crown", "attack", "--out", str(tmp_path / "run")]) == 0
    assert "crown" in capsys.readouterr().out
    with (tmp_path / "run" / "comparison.csv").open() as file:
        assert [row["method"] for row in csv.DictReader(file)] == ["attack", "interval", "crown"]
    for name in ("tightness.png", "brackets.png"):
        assert (tmp_path / "run" / name).stat().st_size > 5000


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"methods": ["nonsense"]}, "unknown method 'nonsense'"),
        ({"methods": ["contraction"]}, "MWD layers"),
        ({"epsilon": math.nan}, "not negative"),
        ({"methods": ["contraction"], "norm": "2"}, "2-norm"),
    ],
)
def test_bad_requests_are_refused_before_any_work(job, tmp_path, changes, message):
    model, data = job
    with pytest.raises(ValueError, match=message):
        compare(model, data, **{"epsilon": 0.1, "clip": (0, 1), "out": tmp_path / "run", **changes})
    assert not (tmp_path / "run").exists()
