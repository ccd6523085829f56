"""A run on a real local Dask cluster, one of whose workers is killed; runs where the extra `cluster` is installed."""

import importlib.util
import math
import os
import signal
import subprocess
import sys
import time

import pytest

from tests.conftest import REPOSITORY
from tests.networks.chains import random_relu_network
from tests.runs.files import records_of, write_job
from verifier import certify
from verifier.commands.cluster import MISSING, MOST_TASKS, _joined, in_time
from verifier.commands.work import Unit

INSTALLED = importlib.util.find_spec("distributed") is not None
PASSING = ("seconds", "spent", "versions")


@pytest.fixture
def job(tmp_path):
    return write_job(tmp_path, random_relu_network(0, (4, 8, 6, 3)), 200, wrong=5)


@pytest.mark.skipif(not INSTALLED, reason="the extra `cluster` is not installed")
# The package warns about itself in threads that it leaves.
@pytest.mark.filterwarnings("ignore")
def test_a_killed_worker_of_a_local_cluster_loses_nothing(job, tmp_path) -> None:
    import distributed

    ask = {"epsilons": [0.02, 0.1], "method": "crown", "certificates": True}
    certify(*job, out=tmp_path / "one", workers=1, **ask)
    killed: list[int] = []

    def kill(done: int, total: int) -> None:
        if not killed:
            pids = distributed.default_client().run(os.getpid)
            killed.append(next(iter(pids.values())))
            os.kill(killed[0], signal.SIGKILL)

    certify(*job, out=tmp_path / "two", cluster="local", workers=2, progress=kill, **ask)
    one, two = (
        [{name: value for name, value in record.items() if name not in PASSING} for record in records_of(folder)]
        for folder in (tmp_path / "one", tmp_path / "two")
    )
    assert killed and two == one
    named = {record["certificate"]["file"] for record in one if record.get("certificate")}
    assert len(named) > 100 and all((tmp_path / "two" / name).is_file() for name in named)


@pytest.mark.skipif(not INSTALLED, reason="the extra `cluster` is not installed")
@pytest.mark.filterwarnings("ignore")
def test_a_scheduler_that_is_not_there_is_an_error_and_nothing_is_lost(job, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("verifier.commands.cluster.ANSWERS", 1.0)
    certify(*job, [0.05], method="crown", out=tmp_path / "run", limit=64)
    before = (tmp_path / "run" / "records.jsonl").read_bytes()
    for address in ("tcp://127.0.0.1:9", "nonsense://x", "127.0.0.1"):
        with pytest.raises(OSError, match="no scheduler of a Dask cluster answers"):
            certify(*job, [0.05], method="crown", out=tmp_path / "run", cluster=address)
    assert (tmp_path / "run" / "records.jsonl").read_bytes() == before


def test_without_the_package_the_option_says_what_to_install(job, tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ValueError, match="cluster"):
        certify(*job, [0.05], method="crown", cluster="local")
    assert "robustness-verifier[cluster]" in MISSING


def test_native_code_that_does_not_end_ends_its_process() -> None:
    """It holds Python's lock, as code that is stuck may: no thread of Python runs meanwhile."""
    program = (
        "import ctypes; from verifier.commands.cluster import in_time\n"
        "def pieces():\n"
        "    yield 'first'\n"
        "    ctypes.PyDLL(None).sleep(600)\n"
        "for piece in in_time(pieces(), 1.0): print(piece, flush=True)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300, cwd=REPOSITORY)
    assert (done.returncode, done.stdout) == (1, "first\n"), done.stderr


def test_pieces_in_time_are_passed_on_and_nothing_is_left_to_end() -> None:
    assert list(in_time(iter(["a", "b"]), 0.2)) == ["a", "b"]
    assert list(in_time(iter(["a", "b"]), math.inf)) == ["a", "b"]
    time.sleep(0.4)


def test_many_units_are_a_few_hundred_tasks_of_neighbours() -> None:
    units = [range(4 * i, 4 * i + 4) for i in range(10_000) if i != 5_000]
    joined = _joined(units)
    assert len(joined) <= MOST_TASKS + 1 and all(unit.tries == 0 for unit in joined)
    assert [row for unit in joined for row in unit.rows] == [row for rows in units for row in rows]
    assert _joined(units[:2]) == [Unit(units[0]), Unit(units[1])]
