"""Standard output holds results and nothing else, whatever libraries print and however it ends."""

import ast
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import verifier.cli
from encoders import write_network
from tests.conftest import REPOSITORY
from tests.networks.chains import random_relu_network
from tests.programs import preloaded
from verifier.output import diverted_stdout, results_stream

# Run inside the program before the command: a library that prints in every way there is, now and at its end. What C's
# stdio holds back is written when the process ends, later than anything of Python.
NOISE = """
import atexit, ctypes, os, subprocess, sys
import verifier.threads as library
c = ctypes.CDLL(None)
def noise(*_, **__):
    print("noise of print")
    sys.__stdout__.write("noise of an older stdout")
    os.write(1, b"noise of a descriptor")
    c.puts(b"noise of C")
    subprocess.run([sys.executable, "-c", "print('noise of a child')"], check=True)
import verifier.subject
inner = verifier.subject.open_model
def open_model(*a, **k):
    noise()
    return inner(*a, **k)
verifier.subject.open_model = open_model
load_model = verifier.subject.load_model
def noisy_model(*a, **k):
    noise()
    return load_model(*a, **k)
verifier.subject.load_model = noisy_model
import verifier.commands.train
train = verifier.commands.train.train
def noisy_train(*a, **k):
    noise()
    return train(*a, **k)
verifier.commands.train.train = noisy_train
import verifier.commands.check
check = verifier.commands.check.check
def noisy_check(*a, **k):
    noise()
    return check(*a, **k)
verifier.commands.check.check = noisy_check
atexit.register(noise)
"""
RUN = "from verifier.cli import main; sys.exit(main())"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Return a folder with a small network, its data, and a run that can be checked."""
    path = tmp_path_factory.mktemp("output")
    network = random_relu_network(0, (3, 6, 5, 3))
    write_network(network, path / "model.safetensors")
    x = torch.rand(40, 3, generator=torch.Generator().manual_seed(0))
    np.savez(path / "data.npz", x=x.numpy(), y=network.evaluate(x).argmax(dim=1).numpy())
    declared = "".join(f"(declare-const {name} Real)" for name in ("X_0", "X_1", "X_2", "Y_0", "Y_1", "Y_2"))
    box = "".join(f"(assert (>= X_{i} 0))(assert (<= X_{i} 1))" for i in range(3))
    (path / "property.vnnlib").write_text(f"{declared}{box}(assert (>= Y_0 9))")
    return path


def program(
    folder: Path, *arguments: str, before: str = "import sys\n", plainly: bool = False, stdout: int | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command in a process of its own; plainly: which loads its libraries itself."""
    if not plainly:
        return preloaded.run(before + RUN, arguments, cwd=folder, stdout=stdout)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", before + RUN, *arguments]
    return subprocess.run(
        command, text=True, capture_output=True, cwd=folder, env=environment, check=False, timeout=300
    )


def job(*more: str) -> list[str]:
    return ["model.safetensors", "--data", "data.npz", "--clip", "0", "1", "--limit", "1", *more]


COMMANDS = {
    "certify": ["certify", *job("--epsilon", ".1", "--method", "exact", "--out", "run")],
    "check": ["check", "run"],
    "attack": ["attack", *job("--attack", "fgsm", "--epsilon", ".1")],
    "robustness": ["robustness", *job("--epsilon", ".1", "--method", "lp")],
    "compare": ["compare", *job("--epsilon", ".1", "--method", "interval", "milp", "restriction")],
    "show": ["show", "model.safetensors"],
    "verify": ["verify", "model.safetensors", "property.vnnlib", "--out", "verified"],
    "detect": ["detect", "fit", "digits-relu", "--data", "digits", "--detector", "d.safetensors", "--samples", "1"],
    "train": ["train", "relu", "--data", "data.npz", "--out", "trained.safetensors", "--epochs", "1", "--hidden", "4"],
}
# Libraries print when they are loaded, too.
PLAINLY = ("compare",)
METHODS = ["interval", "crown", "alpha-crown", "lp", "milp", "milp-cbc", "restriction", "auto"]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_prints_one_object_whatever_libraries_print(folder, command):
    done = program(folder, *COMMANDS[command], "--json", before=NOISE, plainly=command in PLAINLY)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["command"] == command
    assert all(f"noise of {what}" in done.stderr for what in ("print", "a descriptor", "C", "a child"))


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("command", ["certify", "robustness"])
def test_every_method_prints_one_object(folder, method, command):
    arguments = job("--epsilon", ".3", "--method", method, "--out", f"{command}-{method}", "--json")
    done = program(folder, command, *arguments)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["command"] == command


@pytest.mark.slow
def test_a_table_is_not_mixed_with_a_banner(folder):
    done = program(folder, "certify", *job("--epsilon", ".3", "--method", "lp"), before=NOISE)
    assert done.returncode == 0, done.stderr
    assert "certified" in done.stdout and "noise" not in done.stdout and "HiGHS" not in done.stdout


@pytest.mark.slow
def test_a_closed_standard_output_takes_results_without_a_word(folder):
    """Descriptor 1 is then free, and a file that the run opens must not become standard output."""
    arguments = " ".join(["certify", *job("--epsilon", ".1", "--json", "--out", "closed")])
    code = NOISE.replace("sys.__stdout__.write", "len") + RUN
    done = subprocess.run(
        ["bash", "-c", f'exec "$0" -c "$1" {arguments} >&-', sys.executable, code], cwd=folder, text=True,
        capture_output=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for file in (folder / "closed").iterdir():
        assert b"noise" not in file.read_bytes()


@pytest.mark.slow
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is full")
def test_what_cannot_be_written_is_said_with_a_status(folder):
    with open("/dev/full", "w") as full:  # noqa: PTH123 a device, by its name
        done = program(folder, "attack", *job("--attack", "fgsm", "--epsilon", ".1", "--json"), stdout=full.fileno())
    assert done.returncode == 2 and "No space left" in done.stderr and "Traceback" not in done.stderr
    reader, writer = os.pipe()
    os.close(reader)
    done = program(folder, "attack", *job("--attack", "fgsm", "--epsilon", ".1", "--json"), stdout=writer)
    os.close(writer)
    assert done.returncode == 2 and "Broken pipe" in done.stderr and "Traceback" not in done.stderr


# A program without a network, which starts in no time: it writes a result between words of libraries.
LIGHT = """
import os, sys
from verifier.output import results_stream
try:
    with results_stream() as stream:
        os.write(1, b"noise")
        file = open("file", "w")
        print("result", file=stream)
except OSError as error:
    sys.exit(f"error: {error}")
finally:
    file.close()
"""


@pytest.mark.skipif(os.name != "posix", reason="a shell closes the descriptor")
@pytest.mark.parametrize(
    ("redirection", "out", "error"),
    [
        ("", "result\n", ""),
        (">&-", "", ""),
        ("2>&-", "result\n", ""),
        (">&- 2>&-", "", ""),
        (">/dev/full", "", "No space left"),
    ],
)
def test_ends_of_standard_output_are_met(tmp_path, redirection, out, error):
    """A closed descriptor 1 must not become that of a file which is opened next, nor take results to anywhere."""
    command = ["bash", "-c", f'exec "$0" -c "$1" {redirection}', sys.executable, LIGHT]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, check=False)
    assert done.stdout == out and error in done.stderr and (done.returncode == 0) is (not error)
    assert "Traceback" not in done.stderr and "Exception ignored" not in done.stderr
    assert (tmp_path / "file").read_text() == ""


def test_a_reader_that_has_gone_is_an_error(tmp_path):
    reader, writer = os.pipe()
    os.close(reader)
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-c", LIGHT]
    done = subprocess.run(
        command, stdout=writer, stderr=subprocess.PIPE, text=True, cwd=tmp_path, env=environment, check=False
    )
    os.close(writer)
    assert done.returncode == 1 and "Broken pipe" in done.stderr and "Exception ignored" not in done.stderr


def test_descriptor_1_is_turned_back_after_any_end(capfd):
    for error in (KeyboardInterrupt, ValueError):
        with pytest.raises(error), results_stream() as stream:
            os.write(1, b"noise")
            print("noise")
            print("result", file=stream)
            raise error
    with diverted_stdout():
        os.write(1, b"noise")
    with diverted_stdout(discard=True):
        os.write(1, b"banner")
    os.write(1, b"after")
    found = capfd.readouterr()
    # A stream is flushed by its owner, so that the order of the two is not said.
    assert sorted(found.out.split()) == ["after", "result", "result"] or "noise" not in found.out
    assert found.err.count("noise") == 5 and "banner" not in found.out + found.err


def test_an_object_in_place_of_standard_output_gets_the_results(monkeypatch):
    there = io.StringIO()
    monkeypatch.setattr(sys, "stdout", there)
    with results_stream() as stream:
        print("noise")
        print("result", file=stream)
    assert there.getvalue() == "result\n" and sys.stdout is there


def test_the_command_line_prints_nothing_without_naming_the_stream():
    """`print` and `Console` without `file=` would go where libraries' words go."""
    files = [Path(verifier.cli.__file__), *sorted((REPOSITORY / "verifier" / "reports").glob("*.py"))]
    for path in files:
        calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
        printing = [c for c in calls if isinstance(c.func, ast.Name) and c.func.id in ("print", "Console")]
        assert len(printing) > 4 or path.name != "cli.py"
        for call in printing:
            if "view_table" not in ast.unparse(call):  # the documentation's own command
                named = {keyword.arg for keyword in call.keywords}
                assert named & {"file", "stderr"}, f"{path.name}, line {call.lineno}"


def test_threads_that_load_a_solver_at_once_leave_standard_output_where_it_was():
    """Two that turn descriptor 1 away at the same time, and back in another order, would lose it for good."""
    source = """
import threading, time
import highspy
from verifier.solvers import highs_backend

plain, meet = highspy.Highs, threading.Barrier(4)

def slow():
    time.sleep(0.05)
    return plain()

highspy.Highs = slow

def load():
    meet.wait()
    highs_backend._library()

threads = [threading.Thread(target=load) for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print("result", flush=True)
"""
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=True)
    assert done.stdout == "result\n"
