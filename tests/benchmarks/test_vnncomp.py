"""The scripts of VNN-COMP: what they write for a small instance, for one that is refused, and when they are stopped."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from encoders import write_network
from encoders.ops import Affine, Relu
from tests.conftest import REPOSITORY
from tests.networks.chains import chain

SCRIPTS = REPOSITORY / "benchmarks" / "vnncomp"
TEXT = "".join(f"(declare-const {name} Real)\n" for name in ("X_0", "X_1", "Y_0"))
TEXT += "(assert (and (>= X_0 0) (<= X_0 1) (>= X_1 0) (<= X_1 1)))(assert (>= Y_0 {0}))"


@pytest.fixture
def instance(tmp_path: Path) -> Path:
    """Return a folder with a model of relu(x_0 + x_1) and properties that hold, and that do not."""
    weight = torch.ones(1, 2)
    write_network(chain((2,), Affine(weight), Relu(), Affine(torch.ones(1, 1))), tmp_path / "model.safetensors")
    for name, limit in (("holds", 2.5), ("broken", 1.5)):
        (tmp_path / f"{name}.vnnlib").write_text(TEXT.format(limit))
    (tmp_path / "refused.vnnlib").write_text("(assert (>= X_0 0))")
    return tmp_path


def script(name: str, *arguments: str | Path, **more) -> subprocess.CompletedProcess[str]:
    command = [str(SCRIPTS / name), *map(str, arguments)]
    environment = {**os.environ, "VERIFIER": f"{sys.executable} -m verifier", "OMP_NUM_THREADS": "1", **more}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)


def run(instance: Path, name: str, seconds: float | str = 60, **more) -> str:
    """Return what run_instance.sh leaves in its results file."""
    results = instance / "results.txt"
    files = (instance / "model.safetensors", instance / f"{name}.vnnlib", results)
    done = script("run_instance.sh", "v1", "small", *files, str(seconds), **more)
    assert done.returncode == 0, done.stderr
    return results.read_text()


def test_a_witness_is_written_as_the_competition_reads_it(instance):
    verdict, *values = run(instance, "broken").split(maxsplit=1)
    assert verdict == "sat" and values[0].startswith("((X_0 ") and values[0].endswith("))\n")
    x_0, x_1, y = (float(line.strip("()").split()[1]) for line in values[0].splitlines())
    assert 0 <= x_0 <= 1 and 0 <= x_1 <= 1 and y >= 1.5


@pytest.mark.slow
def test_other_verdicts_are_one_word(instance):
    assert run(instance, "holds") == "unsat\n"
    assert run(instance, "refused") == "error\n"


def test_a_tool_that_fails_is_an_error(instance):
    assert run(instance, "holds", VERIFIER="false") == "error\n"


def test_no_time_is_a_timeout(instance):
    """Whether the tool itself notices, or is ended before it could."""
    assert run(instance, "holds", 0.05) == "timeout\n"
    sleeping = instance / "sleeping"
    sleeping.write_text("#!/bin/sh\nexec sleep 60\n")
    sleeping.chmod(0o755)
    assert run(instance, "holds", 1, VERIFIER=str(sleeping)) == "timeout\n"


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_a_script_that_is_stopped_leaves_a_timeout(instance, how):
    sleeping = instance / "sleeping"
    sleeping.write_text("#!/bin/sh\nexec sleep 60\n")
    sleeping.chmod(0o755)
    results = instance / "results.txt"
    names = ("v1", "small", instance / "model.safetensors", instance / "holds.vnnlib", results, "60")
    command = [str(SCRIPTS / "run_instance.sh"), *map(str, names)]
    process = subprocess.Popen(command, env={**os.environ, "VERIFIER": str(sleeping)}, start_new_session=True)
    while not results.exists() or not results.read_text():
        time.sleep(0.01)
    os.killpg(process.pid, how)
    process.wait(timeout=30)
    assert results.read_text() == "timeout\n"


def test_an_instance_is_prepared_where_its_files_are(instance):
    files = (instance / "model.safetensors", instance / "holds.vnnlib")
    assert script("prepare_instance.sh", "v1", "small", *files).returncode == 0
    (instance / "holds.vnnlib").rename(instance / "holds.vnnlib.gz")
    assert script("prepare_instance.sh", "v1", "small", *files).returncode == 0
    (instance / "model.safetensors").unlink()
    done = script("prepare_instance.sh", "v1", "small", *files)
    assert done.returncode == 1 and "cannot be read" in done.stderr


@pytest.mark.parametrize("name", ["install_tool.sh", "prepare_instance.sh", "run_instance.sh"])
def test_other_versions_of_the_protocol_are_refused(name):
    for arguments in ((), ("v2", "a", "b", "c", "d", "1")):
        done = script(name, *arguments)
        assert done.returncode == 1 and "v1" in done.stderr
