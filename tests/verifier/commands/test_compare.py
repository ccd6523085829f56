"""`compare`: every method on the same inputs, nothing hidden, nothing contradictory."""

import csv
import dataclasses
import io
import json
import math

import numpy as np
import pytest
import torch
from rich.console import Console

from encoders import write_network
from tests.networks.chains import random_relu_network
from verifier import compare
from verifier.answers import Answer
from verifier.cli import main
from verifier.commands.compare import COMPARED, ComparedMethod, CompareResult, violations
from verifier.methods import METHODS
from verifier.reports.compare import table
from verifier.verdict import Bracket, Strength


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
    result = compare(model, data, 0.05, limit=28, clip=(0, 1), out=tmp_path / "run")
    assert {row.method for row in result.rows} | set(result.left_out) == set(COMPARED) == {"attack", *METHODS}
    assert "second opinion on milp" in result.left_out["milp-cbc"]
    assert (result.inputs, result.correct) == (28, 24)
    assert not result.violations
    rows = {row.method: row for row in result.rows}
    assert 0 <= rows["interval"].mean_lower <= rows["crown"].mean_lower <= rows["auto"].mean_upper <= 0.05
    assert rows["interval"].gap_closed == 0 and 0 <= rows["crown"].gap_closed <= 1
    assert rows["attack"].gap_closed is None and rows["attack"].direction == "finds"
    # The network is small enough that the solver leaves nothing open, and its word is no proof.
    assert rows["milp"].certified + rows["milp"].trusted == rows["exact"].certified == rows["auto"].certified
    assert rows["milp"].trusted > 0
    assert all(row.trusted == 0 for row in result.rows if row.method != "milp")
    assert rows["milp"].gap_closed < rows["exact"].gap_closed
    assert {row.method for row in result.rows if row.median_open_units is not None} >= {"lp", "milp", "exact"}
    for row in result.rows:
        assert row.certified + row.trusted + row.falsified <= result.inputs
        assert len(result.brackets[row.method]) == 28


def test_a_run_is_extended_by_methods_and_inputs_not_repeated(job, tmp_path, monkeypatch):
    model, data = job
    first = compare(model, data, 0.05, methods=["interval"], limit=30, clip=(0, 1), out=tmp_path / "run")
    monkeypatch.setattr(COMPARED["interval"], "bracket", lambda *_: pytest.fail("worked on known inputs again"))
    again = compare(model, data, 0.05, methods=["interval", "attack"], limit=30, clip=(0, 1), out=tmp_path / "run")
    assert [row.method for row in again.rows] == ["attack", "interval"]
    assert again.brackets["interval"] == first.brackets["interval"]


def test_a_contradiction_is_counted_saved_and_no_success(job, tmp_path, monkeypatch, capsys):
    model, data = job

    def lie(batch, epsilons, answers, budget):
        return [answer.merge(Answer.proved(1.0, "lie", Strength.CHECKED)) for answer in answers]

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


def test_a_second_opinion_is_compared_where_it_is_named_and_records_keep_what_was_counted(job, tmp_path):
    model, data = job
    names = ["lp", "milp", "milp-cbc"]
    result = compare(model, data, 0.07, methods=names, limit=15, clip=(0, 1), out=tmp_path / "run")
    rows = {row.method: row for row in result.rows}
    assert set(rows) == set(names) and not result.left_out and not result.violations
    assert rows["milp"].trusted == rows["milp-cbc"].trusted > 0
    records = [json.loads(line) for line in result.records.read_text().splitlines()]
    units = [record["methods"]["milp"]["open_units"] for record in records]
    assert np.median([count for count in units if count is not None]) == rows["milp"].median_open_units
    again = compare(model, data, 0.07, methods=names, limit=15, clip=(0, 1), out=tmp_path / "run")
    assert again.brackets == result.brackets
    assert [b.trusted for b in again.brackets["milp"]] != [-1.0] * 15


def test_a_solver_that_a_witness_refutes_is_a_violation_whoever_found_it(job, tmp_path, monkeypatch):
    """By another method, or by the same one, whose bracket shows nothing of it any more."""
    model, data = job

    def lie(self, batch, epsilons, answers, budget):
        everything = Answer.proved(1.0, "milp", Strength.TRUSTED)
        return [answer.merge(everything) for answer in answers]

    def lie_and_attack(self, batch, epsilons, answers, budget):
        return COMPARED["attack"].bracket(batch, epsilons, lie(self, batch, epsilons, answers, budget), budget)

    for number, (bracket, finder) in enumerate(((lie, "attack"), (lie_and_attack, "attack"))):
        monkeypatch.setattr(COMPARED["milp"], "bracket", bracket.__get__(COMPARED["milp"]))
        names = ["milp", "attack"] if number == 0 else ["milp"]
        result = compare(model, data, 0.3, methods=names, clip=(0, 1), out=tmp_path / f"run{number}")
        rows = {row.method: row for row in result.rows}
        assert rows["milp"].certified == 0 and result.violations
        assert {violation[1:] for violation in result.violations} == {("milp", finder)}
        assert len(result.violations) == rows[names[-1]].falsified


def test_violations_compare_every_pair():
    brackets = {
        "a": [Bracket(0.2), Bracket(math.inf)],
        "b": [Bracket(0.0, 0.2), Bracket(0.0, 0.5)],
        "c": [Bracket()] * 2,
        "d": [Bracket(0.0, trusted=0.2), Bracket(0.0, trusted=0.1)],
    }
    assert violations([7, 8], brackets) == ((7, "a", "b"), (8, "a", "b"), (7, "d", "b"))


def test_the_table_fits_a_terminal_and_shows_only_columns_that_say_something():
    row = ComparedMethod("restriction", "both", 100, 0, 100, 0.003953, 0.004321, 0.9999, None, 0.00021)
    plain, full = (
        CompareResult(
            model="m", digest="", data="", inputs=100, correct=100, seconds=1.0, records=None, warnings=(), classes="",
            about="",
            epsilon=0.05, norm="inf", rows=rows, left_out={}, violations=(), indices=(), brackets={},
        )
        for rows in ((row,), (row, dataclasses.replace(row, trusted=25, median_open_units=123.5)))
    )  # fmt: skip
    texts = []
    for result in (plain, full):
        console = Console(width=80, file=io.StringIO())
        console.print(table(result))
        texts.append(console.file.getvalue())
        assert "…" not in texts[-1]
    assert "trusted" not in texts[0] and "units" not in texts[0]
    assert "certifies nothing" in texts[1] and "123.5" in texts[1] and " 25 " in texts[1]


def test_the_command_writes_table_and_figures(job, tmp_path, capsys):
    model, data = job
    arguments = ["compare", str(model), "--data", str(data), "--epsilon", "0.05", "--limit", "20", "--clip", "0", "1"]
    assert main([*arguments, "--method", "interval", "crown", "attack", "--out", str(tmp_path / "run")]) == 0
    assert "crown" in capsys.readouterr().out
    with (tmp_path / "run" / "comparison.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["method"] for row in rows] == ["attack", "interval", "crown"]
    assert {"trusted", "median_open_units", "gap_closed"} <= rows[0].keys()
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
