"""Tables of runs: the numbers are those of the results, and what is read back is what was written."""

import csv
import io
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from encoders import write_network
from tests.networks.chains import random_relu_network
from verifier import attack, certify, compare, export, robustness
from verifier.cli import main


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Folders of small runs by command."""
    root = tmp_path_factory.mktemp("runs")
    certify("digits-mwd", "digits", [0.02, 0.1], method="interval", limit=30, out=root / "certify")
    attack("digits-mwd", "digits", name="pgd", epsilon=0.1, limit=10, out=root / "attack")
    compare("digits-mwd", "digits", epsilon=0.05, methods=["interval", "lipschitz"], limit=6, out=root / "compare")
    robustness("digits-mwd", "digits", epsilon=0.05, estimators=["attack"], limit=6, out=root / "robustness")
    return root


def rows_of(text):
    return list(csv.DictReader(io.StringIO(text)))


def summary(folder):
    return json.loads((folder / "results.json").read_text())


def test_certify_gives_the_counts_of_its_results_to_the_last_bit(runs):
    rows = rows_of(export(runs / "certify").text)
    expected = summary(runs / "certify")["results"]
    assert len(rows) == 2
    for row, stated in zip(rows, expected, strict=True):
        assert all(float(row[name]) == stated[name] for name in ("epsilon", "certified", "open", "certified_accuracy"))
        assert [float(row["ci95_low"]), float(row["ci95_high"])] == stated["certified_accuracy_ci95"]


def test_attack_compare_and_robustness_give_theirs(runs):
    (row,), stated = rows_of(export(runs / "attack").text), summary(runs / "attack")
    assert (int(row["robust"]), float(row["robust_accuracy"])) == (stated["robust"], stated["robust_accuracy"])
    rows, stated = rows_of(export(runs / "compare").text), summary(runs / "compare")
    assert [(row["method"], row["direction"]) for row in rows] == [("interval", "proves"), ("lipschitz", "proves")]
    assert [float(row["mean_lower"]) for row in rows] == [row["mean_lower"] for row in stated["rows"]]
    rows, stated = rows_of(export(runs / "robustness").text), summary(runs / "robustness")
    assert (rows[0]["estimator"], float(rows[0]["frequency_low"])) == ("truth", stated["frequency"]["lower"])
    assert float(rows[1]["frequency_low"]) == stated["estimators"]["attack"]["frequency"]


def test_inputs_have_a_row_each_and_classes_add_up(runs):
    stored = [json.loads(line) for line in (runs / "certify" / "records.jsonl").read_text().splitlines()]
    rows = rows_of(export(runs / "certify", table="inputs").text)
    assert [int(row["index"]) for row in rows] == [record["index"] for record in stored]
    for row, record in zip(rows, stored, strict=True):
        assert (row["lower"] == "") is (record.get("lower", -1) < 0)
        assert row["lower"] == "" or float(row["lower"]) == record["lower"]
    classes = rows_of(export(runs / "certify", table="classes").text)
    assert sum(int(row["inputs"]) for row in classes) == 30
    assert sum(int(row["certified"]) for row in classes) == summary(runs / "certify")["results"][1]["certified"]


def test_latex_is_a_tabular_whose_text_is_no_command(runs):
    text = export(runs / "compare", format="latex").text
    lines = text.splitlines()
    assert lines[0] == rf"\begin{{tabular}}{{{lines[0].split('{')[-1]}" and lines[-1] == r"\end{tabular}"
    columns = lines[2].count("&")
    assert all(line.count("&") == columns and line.endswith(r"\\") for line in lines[4:-2])
    assert "open units" in lines[2] and "interval & proves" in lines[4]


def test_parquet_reads_back_or_says_what_to_install(runs, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="parquet is no text; name a file with --out"):
        export(runs / "certify", format="parquet")
    try:
        import pyarrow.parquet
    except ImportError:
        pass
    else:
        path = tmp_path / "table.parquet"
        export(runs / "certify", format="parquet", out=path)
        expected = [row["certified"] for row in summary(runs / "certify")["results"]]
        assert pyarrow.parquet.read_table(path).to_pydict()["certified"] == expected
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ValueError, match=r"needs pyarrow.*robustness-verifier\[parquet\]"):
        export(runs / "certify", format="parquet", out=tmp_path / "other.parquet")


def test_the_command_prints_the_table_alone_and_refuses_in_a_sentence(runs, tmp_path, capsys):
    assert main(["export", str(runs / "certify")]) == 0
    assert capsys.readouterr().out == export(runs / "certify").text
    taken = tmp_path / "taken.csv"
    taken.write_text("mine")
    for arguments, words in (
        (["export", str(tmp_path)], "holds no run"),
        (["export", str(runs / "certify"), "--format", "xls"], "supported: csv, latex, parquet"),
        (["export", str(runs / "certify"), "--table", "all"], "supported: summary, classes, inputs"),
        (["export", str(runs / "certify"), "--out", str(taken)], "exists; name another file"),
    ):
        assert main(arguments) == 2
        assert words in capsys.readouterr().err
    assert taken.read_text() == "mine"


def test_certificates_go_to_a_solver_that_confirms_them(tmp_path, capsys):
    """Of a network with two layers of relus: one question for each layer, tree and leaf, of which none has a point."""
    solver = shutil.which("z3", path=str(Path(sys.executable).parent)) or shutil.which("z3")
    if solver is None:
        pytest.skip("z3 is not installed")
    network = random_relu_network(1, (2, 6, 5, 3))
    write_network(network, tmp_path / "small.safetensors")
    x = np.random.default_rng(1).random((4, 2), dtype=np.float32)
    np.savez(tmp_path / "data.npz", x=x, y=network.evaluate(torch.from_numpy(x)).argmax(dim=1).numpy())
    run, out = tmp_path / "run", tmp_path / "smt"
    certify(
        tmp_path / "small.safetensors", tmp_path / "data.npz", [0.01, 0.05], method="exact", certificates=True, out=run
    )
    rows = rows_of(export(run, format="smt-lib", out=out).text)
    assert len(rows) >= 3
    for row in rows:
        assert row["reason"] == "" and int(row["questions"]) == 2 + 2 + int(row["leaves"])
        done = subprocess.run([solver, "-smt2", str(out / row["file"])], capture_output=True, text=True, timeout=60)
        assert done.stdout.split() == ["unsat"] * int(row["questions"])
    assert main(["export", str(run), "--format", "smt-lib"]) == 2 and "name a folder" in capsys.readouterr().err
    assert main(["export", str(run), "--format", "smt-lib", "--out", str(out)]) == 2
    (run / "certificates" / next((run / "certificates").iterdir()).name).write_bytes(b"")
    again = rows_of(export(run, format="smt-lib", out=tmp_path / "again").text)
    assert [row["reason"] != "" for row in again].count(True) == 1


def test_a_record_of_another_label_has_no_text(tmp_path):
    certify("digits-relu", "digits", [0.02], method="exact", limit=2, certificates=True, out=tmp_path / "run")
    path = tmp_path / "run" / "records.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    first = next(line for line in lines if line.get("index") == 0)
    first["label"] = first["prediction"] = (first["label"] + 1) % 10
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    rows = rows_of(export(tmp_path / "run", format="smt-lib", out=tmp_path / "smt").text)
    assert [row["index"] for row in rows if row["reason"]] == ["0"]
    assert len(list((tmp_path / "smt").glob("*.smt2"))) == len(rows) - 1


def test_proofs_without_such_a_text_are_named(runs, tmp_path):
    with pytest.raises(ValueError, match="it has no certificate"):
        export(runs / "certify", format="smt-lib", out=tmp_path / "smt")
    with pytest.raises(ValueError, match="a run of attack, which keeps no certificates"):
        export(runs / "attack", format="smt-lib", out=tmp_path / "smt")
    assert not (tmp_path / "smt").exists()
