"""Commands of Bastani et al. on other data than theirs, as small as they get."""

import csv
import sys

from benchmarks import bastani_paper
from verifier import train


def run(monkeypatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", ["bastani_paper.py", *map(str, arguments)])
    bastani_paper.main()


def test_table_and_rounding_of_a_network_on_digits(tmp_path, monkeypatch, capsys):
    model = tmp_path / "d.safetensors"
    train("relu", "digits", model, hidden=(8,), epochs=2)
    small = ("--data", "digits", "--levels", 16, "--pixels", 3, "--model", model, "--inputs", 2, "--out", tmp_path)
    run(monkeypatch, "table1", *small, "--estimators", "restriction-second")
    with (tmp_path / "d-table1.csv").open() as file:
        assert [row[0] for row in csv.reader(file)] == ["estimator", "restriction-second"]
    assert "(paper none %)" in capsys.readouterr().out
    run(monkeypatch, "rounding", *small)
    with (tmp_path / "rounding.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["alpha"]) for row in rows] == [*bastani_paper.ALPHAS]
    assert all(
        0 <= int(row["as whole pixels"]) <= int(row["counterexamples"]) <= int(row["inputs"]) == 2 for row in rows
    )
    assert int(rows[0]["counterexamples"]) > 0
    run(monkeypatch, "rounding", *small[:-4], "--inputs", 2, "--breakable", "--out", tmp_path)
    with (tmp_path / "rounding.csv").open() as file:
        first = next(csv.DictReader(file))
    assert 0 < int(first["counterexamples"]) <= int(first["inputs"]) <= 2
