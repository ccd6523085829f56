"""The command line as scripts and people meet it."""

import contextlib
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import torch

from encoders import write_network
from tests.networks.chains import random_relu_network
from tests.programs import preloaded
from verifier.batch import BATCH_SIZE
from verifier.cli import main

# Of two batches, so that a run stops between them.
INPUTS = BATCH_SIZE + 8


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    """Return (model, data) files of a small network and INPUTS inputs, all classified correctly."""
    folder = tmp_path_factory.mktemp("job")
    network = random_relu_network(0, (5, 10, 8, 3))
    write_network(network, folder / "model.safetensors")
    x = torch.rand(INPUTS, 5, generator=torch.Generator().manual_seed(0))
    np.savez(folder / "data.npz", x=x.numpy(), y=network.evaluate(x).argmax(dim=1).numpy())
    return folder / "model.safetensors", folder / "data.npz"


def certify_at_two_radii(job, folder: Path) -> list[dict]:
    """Certify in this process, which has torch already; return the results."""
    model, data = job
    arguments = ["certify", model, "--data", data, "--epsilon", "0.05", "0.1", "--out", folder, "--json"]
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        assert main([str(a) for a in arguments]) == 0
    return json.loads(printed.getvalue())["results"]


@pytest.fixture(scope="module")
def fresh(job, tmp_path_factory):
    """Return (folder, results) of a run that nothing interrupted."""
    folder = tmp_path_factory.mktemp("fresh")
    return folder, certify_at_two_radii(job, folder)


def test_json_is_the_only_thing_on_standard_output(job, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model, data = job
    assert (
        main(["certify", str(model), "--data", str(data), "--epsilon", "0.01", "2/10", "--limit", "20", "--json"]) == 0
    )
    result = json.loads(capsys.readouterr().out)
    assert {"schema", "command", "model", "digest", "inputs", "correct", "seconds", "records", "results"} <= set(result)
    assert (result["command"], result["inputs"], result["correct"]) == ("certify", 20, 20)
    assert [row["epsilon"] for row in result["results"]] == [0.01, 0.2]
    for row in result["results"]:
        assert row["certified"] + row["falsified"] + row["open"] == result["correct"]
        assert row["certified_accuracy_ci95"][0] <= row["certified_accuracy"] <= row["certified_accuracy_ci95"][1]
    folder = Path(result["records"]).parent
    assert re.fullmatch(r"runs/certify-[0-9a-f]{12}", folder.as_posix())
    assert (folder / "accuracy.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads((folder / "results.json").read_text())["results"] == result["results"]


def test_a_table_is_printed_without_json(job, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model, data = job
    assert main(["certify", str(model), "--data", str(data), "--epsilon", "0.01", "--limit", "5"]) == 0
    output = capsys.readouterr().out
    assert "5 of 5 inputs" in output and "certified" in output and "records.jsonl" in output


def test_a_table_says_how_many_a_solver_vouches_for(job, tmp_path, capsys):
    model, data = job
    arguments = ["certify", model, "--data", data, "--epsilon", "0.05", "--limit", "40", "--clip", "0", "1"]
    for method in ("milp", "interval"):
        command = [str(part) for part in (*arguments, "--method", method, "--out", tmp_path / method)]
        assert main([*command, "--json"]) == 0
        (row,) = json.loads(capsys.readouterr().out)["results"]
        assert main(command) == 0
        output = capsys.readouterr().out
        assert (row["trusted"] > 0) is (method == "milp")
        assert (f" {row['open']} ({row['trusted']}) " in output) is (method == "milp")
        assert ("safe by the word of a solver alone" in " ".join(output.split())) is (method == "milp")


def stop_midway(job, folder: Path, how: signal.Signals, seed: int) -> int:
    """Start a certification in a process of its own, stop it after its first records, return its exit status."""
    model, data = job
    arguments = ["certify", model, "--data", data, "--epsilon", "0.05", "0.1", "--seed", seed, "--out", folder]
    code = "import runpy; runpy.run_module('verifier', run_name='__main__', alter_sys=True)"
    process = preloaded.start(code, arguments)
    deadline = time.monotonic() + 60
    records = folder / "records.jsonl"
    while time.monotonic() < deadline and not process.has_ended():
        if records.exists() and records.stat().st_size > 0:
            os.kill(process.pid, how)
            break
        time.sleep(0.002)
    return process.ended().returncode


# What a kill leaves is read in `test_loop` too.
@pytest.mark.parametrize("how", [signal.SIGINT, pytest.param(signal.SIGKILL, marks=pytest.mark.slow)])
def test_an_interrupted_run_continues_with_the_same_result(job, fresh, tmp_path, how):
    status = stop_midway(job, tmp_path / "run", how, seed=0)
    assert status in ((-signal.SIGKILL, 0) if how == signal.SIGKILL else (130, 0))
    folder, results = fresh
    assert certify_at_two_radii(job, tmp_path / "run") == results
    with np.load(tmp_path / "run" / "witnesses.npz") as a, np.load(folder / "witnesses.npz") as b:
        assert all(np.array_equal(a[name], b[name]) for name in ("index", "x", "distance"))
    kept = [json.loads(line) for line in (tmp_path / "run" / "records.jsonl").read_text().splitlines()]
    assert sorted(record["index"] for record in kept) == list(range(INPUTS))


def test_a_full_disk_stops_with_a_sentence_and_the_run_continues(job, tmp_path, capsys):
    model, data = job
    arguments = ["certify", model, "--data", data, "--epsilon", "0.05", "--method", "crown", "--out", tmp_path / "run"]
    limit = "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
    limit += "sys.dont_write_bytecode = True; "
    limit += "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000)); "
    arguments = [str(a) for a in arguments]
    stopped = preloaded.run(limit + f"from verifier.cli import main; sys.exit(main({arguments!r}))")
    assert stopped.returncode == 2
    assert "File too large" in stopped.stderr and "Traceback" not in stopped.stderr
    assert main([*arguments, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["inputs"] == INPUTS


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["certify", "{model}", "--data", "{data}", "--epsilon", "-0.1"], "not negative"),
        (["certify", "{model}", "--data", "{data}", "--epsilon", "nan"], "not negative"),
        (["certify", "{model}", "--data", "{data}", "--epsilon", "1/0"], "not a number"),
        (["certify", "{model}", "--data", "{data}", "--epsilon", "much"], "not a number"),
        (["certify", "{model}", "--data", "{data}"], "--epsilon"),
        (["certify", "{model}", "--data", "nothing", "--epsilon", "0.1"], "nothing"),
        (["certify", "missing.onnx", "--data", "{data}", "--epsilon", "0.1"], "missing.onnx"),
        (["certify", "resnet", "--data", "{data}", "--epsilon", "0.1"], "digits-mwd"),
        (["certify", "{pickle}", "--data", "{data}", "--epsilon", "0.1"], "torch.export"),
        (["certify", "{truncated}", "--data", "{data}", "--epsilon", "0.1"], "truncated"),
        (["certify", "{model}", "--data", "digits", "--epsilon", "0.1"], "do not fit"),
        (["certify", "{model}", "--data", "{data}", "--epsilon", "0.1", "--method", "nonsense"], "unknown method"),
        (["certify", "{model}", "--data", "{data}", "--epsilon", "0.1", "--clip", "0.4", "0.5"], "outside"),
        (["certify", "{model}", "--data", "{data}", "--epsilon", "0.1", "--norm", "3"], "norm"),
        (["certify", "{model}", "--data", "{data}", "--epsilon", "0.1", "--colour", "blue"], "--colour"),
        (["show", "missing.pt2"], "missing.pt2"),
        (["show", "."], "is a directory"),
        (["check", "run", "--exact", "--sample", "0"], "at least 1"),
        (["nonsense"], "nonsense"),
    ],
)
def test_bad_input_gets_a_sentence_and_status_2_and_writes_nothing(
    job, tmp_path, capsys, monkeypatch, arguments, message
):
    folder = tmp_path / "empty"
    folder.mkdir()
    monkeypatch.chdir(folder)
    model, data = job
    (tmp_path / "weights.pth").write_bytes(b"\x80\x04anything")
    (tmp_path / "truncated.safetensors").write_bytes(model.read_bytes()[:200])
    paths = {
        "model": model,
        "data": data,
        "pickle": tmp_path / "weights.pth",
        "truncated": tmp_path / "truncated.safetensors",
    }
    try:
        status = main([argument.format(**paths) for argument in arguments])
    except SystemExit as exit_:  # argparse leaves by itself
        status = exit_.code
    captured = capsys.readouterr()
    assert status == 2
    assert message in captured.err
    assert captured.out == "" and list(folder.iterdir()) == []


def test_show_prints_the_graph_and_the_views(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "digits-mwd").mkdir()  # as `--out digits-mwd` makes it
    assert main(["show", "digits-mwd"]) == 0
    output = capsys.readouterr().out
    assert "mwd" in output and "interval" in output and "digest" in output and "held_out_accuracy" in output


@pytest.mark.parametrize("table", ["methods", "attacks"])
def test_show_lists_what_there_is_with_a_line_each(capsys, monkeypatch, table):
    from verifier import attacks, methods

    monkeypatch.setenv("COLUMNS", "200")
    names, descriptions = {
        "methods": (methods.METHODS, methods.DESCRIPTIONS), "attacks": (attacks.ATTACKS, attacks.DESCRIPTIONS)
    }[table]  # fmt: skip
    assert set(names) == set(descriptions)
    assert main(["show", f"--{table}"]) == 0
    output = " ".join(capsys.readouterr().out.split())
    assert all(name in output and descriptions[name] in output for name in names)


def test_show_says_which_methods_do_not_take_a_model_and_why(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    assert main(["show", "digits-mwd", "--methods"]) == 0
    cells = [[cell.strip() for cell in line.split("│")] for line in capsys.readouterr().out.splitlines()]
    answers = {row[1]: row[-2] for row in cells if len(row) > 5}
    assert answers["interval"] == "yes" and answers["contraction"] == "yes" and "mwd" in answers["restriction"]


def test_show_without_anything_to_show_is_refused(capsys):
    assert main(["show"]) == 2 and "--methods" in capsys.readouterr().err


def test_help_needs_no_torch_and_names_every_command():
    command = [sys.executable, "-X", "importtime", "-m", "verifier", "--help"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0 and not re.search(r"\| +torch$", result.stderr, re.MULTILINE)
    assert all(command in result.stdout for command in ("certify", "show"))


def test_without_arguments_help_stands_there_with_an_example_of_every_command(capsys):
    assert main([]) == 0
    shown = capsys.readouterr().out
    for command in ("certify", "attack", "robustness", "compare", "train", "check", "show"):
        assert f"  verifier {command} " in shown


def test_the_version_is_that_of_the_package(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0 and capsys.readouterr().out.strip() == version("robustness-verifier")


def test_what_loading_makes_is_left_out_of_later_collections():
    code = "import gc, verifier.cli as c; c.main(['show', '--methods']); print(gc.isenabled(), gc.get_freeze_count())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    enabled, frozen = done.stdout.split()[-2:]
    # torch alone makes most of 276,000 objects.
    assert enabled == "True" and int(frozen) > 100_000
