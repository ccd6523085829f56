"""Several processes for one run: what one of them loses another does again, and nothing is lost or asked twice."""

import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.conftest import REPOSITORY
from tests.networks.chains import random_relu_network
from tests.programs import fake_worker
from tests.runs.files import records_of, write_job
from verifier import certify
from verifier.budget import Watch
from verifier.commands import workers, working
from verifier.commands.task import Known, Order
from verifier.commands.work import Unit, after_failure
from verifier.commands.workers import NotStarted, Workers

# What depends on the clock alone.
PASSING = ("seconds", "spent", "versions")
UNITS = [range(start, start + 4) for start in range(0, 20, 4)]


@pytest.fixture
def pool(tmp_path, monkeypatch):
    """Return a function of a plan that returns workers who follow it, and the event that wishes an end.

    An input that is left open has the record (index, reason, whether it was late).
    """
    monkeypatch.setattr(workers, "serve", fake_worker.serve)

    def make(plan: dict, count: int = 2, time_limit: float = 1e9, grace: float = 30.0):
        options = SimpleNamespace(time_limit=time_limit, memory_limit=1.0)
        task = SimpleNamespace(
            options=options, batch_size=fake_worker.BATCH, limits_each=1,
            left_open=lambda rows, known, reason, late: [(row, reason, late) for row in rows],
        )  # fmt: skip
        order = SimpleNamespace(packed=lambda: pickle.dumps(plan), digest=lambda task: "")
        stopped = threading.Event()
        known = Known(SimpleNamespace(folder=tmp_path), {}, {}, Watch(stopped=stopped))
        return Workers(order, task, known, count, grace), stopped

    return make


def records(found) -> dict[int, tuple]:
    """Return the records of pieces by input, each seen to come once and in its piece."""
    known: dict[int, tuple] = {}
    for rows, fresh, _ in found:
        assert [record[0] for record in fresh] == list(rows)
        assert known.keys().isdisjoint(rows)
        known |= {record[0]: record for record in fresh}
    return known


def test_units_are_shared_and_every_input_comes_once(pool) -> None:
    known = records(pool({"sleep": 0.2})[0].pieces(UNITS))
    assert sorted(known) == list(range(20)) and len({pid for _, pid in known.values()}) == 2
    assert not multiprocessing.active_children()


def test_a_process_that_ends_is_replaced_and_its_inputs_are_tried_again(pool) -> None:
    known = records(
        pool({1: "die once", 9: "memory once", 18: "hang once"}, time_limit=0.1, grace=1.0)[0].pieces(UNITS)
    )
    assert sorted(known) == list(range(20)) and all(len(record) == 2 for record in known.values())


def test_what_ends_every_process_stays_open_alone_with_the_reason(pool) -> None:
    plan = {1: "die", 9: "memory", 18: "hang"}
    known = records(pool(plan, time_limit=0.1, grace=1.0)[0].pieces(UNITS))
    assert sorted(known) == list(range(20))
    assert {row for row, record in known.items() if len(record) > 2} == {1, 9, 18}
    assert "SIGKILL" in known[1][1] and "twice" in known[1][1] and known[1][2] is False
    assert known[9][1] == "its process ran out of memory, twice"
    assert known[18][1:] == ("its process did not end 1 s after the time limit of 0.1 s", True)


def test_units_of_several_batches_lose_the_batch_alone(pool) -> None:
    """What came before stands, what follows is worked on."""
    known = records(pool({5: "die"}, count=1)[0].pieces([range(0, 12)]))
    assert [row for row, record in sorted(known.items()) if len(record) > 2] == [5]


def test_a_wish_to_stop_keeps_what_is_being_worked_on(pool) -> None:
    several, stopped = pool({"sleep": 0.3})
    found = []
    for piece in several.pieces(UNITS):
        found.append(piece)
        stopped.set()
    known = records(found)
    assert 4 <= len(known) <= 12 and not multiprocessing.active_children()


def test_what_a_process_raises_is_raised_and_none_is_left(pool) -> None:
    with pytest.raises(ValueError, match="the work is wrong"):
        list(pool({6: "fail"})[0].pieces(UNITS))
    assert not multiprocessing.active_children()


def test_processes_that_do_not_start_are_an_error(pool) -> None:
    with pytest.raises(NotStarted, match="exit status 3 before it was ready"):
        list(pool({"start": "die"})[0].pieces(UNITS))


@pytest.mark.parametrize(
    ("unit", "hopeless", "again", "left"),
    [
        (Unit(range(0, 12)), False, [Unit(range(0, 12), 1)], range(0)),
        (Unit(range(2, 7), 1), False, [Unit(range(2, 3), 1), Unit(range(3, 4), 1), Unit(range(4, 7))], range(0)),
        (Unit(range(4, 6)), True, [Unit(range(4, 5), 1), Unit(range(5, 6), 1)], range(0)),
        (Unit(range(5, 6), 1), False, [], range(5, 6)),
        (Unit(range(5, 6)), True, [], range(5, 6)),
    ],
)
def test_after_a_failure_an_input_is_tried_again_once(unit, hopeless, again, left) -> None:
    assert after_failure(unit, 4, hopeless) == (again, left)


def test_a_small_job_is_done_without_others_and_a_long_one_with_them(monkeypatch) -> None:
    """By what the first units took: 4 inputs of 5 units took 0, or a second each."""
    clock, used = [0.0], []
    task = SimpleNamespace(batch_size=4, complete=lambda record: False, options=None)
    known = Known(None, {}, {})
    monkeypatch.setattr(working.time, "perf_counter", lambda: clock[0])

    def together(_, units, count):
        used.append((units, count))
        yield from ((rows, [], {}) for rows in units)

    monkeypatch.setattr(working, "_together", together)
    for seconds, expected in ((0.0, []), (1.0, []), (8.0, [(UNITS[1:], 2)])):

        def work(rows, known, seconds=seconds):
            clock[0] += seconds
            return [], {}

        task.work = work
        used.clear()
        found = list(working._together_if_long(working.Working(None, task, known), UNITS, 2))
        assert [piece[0] for piece in found] == UNITS and used == expected


def test_what_cannot_be_sent_is_refused_with_what_to_do() -> None:
    with pytest.raises(ValueError, match="workers 1"):
        Order("certify", len, (lambda: 0,), {}).packed()


def plain(folder: Path) -> list[dict]:
    """Return the records of a run without what depends on the clock."""
    return [{name: value for name, value in record.items() if name not in PASSING} for record in records_of(folder)]


def test_two_workers_of_which_one_is_killed_write_the_records_of_one(tmp_path) -> None:
    job = write_job(tmp_path, random_relu_network(0, (4, 8, 6, 3)), 150, wrong=5)
    ask = {"epsilons": [0.02, 0.1], "method": "crown", "certificates": True}
    certify(*job, out=tmp_path / "one", workers=1, **ask)
    told = []

    def kill(done: int, total: int) -> None:
        told.append((done, total))
        if len(told) == 1:
            os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)

    certify(*job, out=tmp_path / "two", workers=2, progress=kill, **ask)
    assert plain(tmp_path / "two") == plain(tmp_path / "one") and told[-1] == (150, 150)
    for folder in ("one", "two"):
        assert len(list((tmp_path / folder / "certificates").iterdir())) > 100


def test_a_worker_ends_with_its_parent_in_the_middle_of_its_work() -> None:
    program = (
        "import multiprocessing, os, queue, threading, time; from verifier.commands.worker import _listen\n"
        "ours, theirs = multiprocessing.Pipe()\n"
        "child = os.fork()\n"
        "if not child:\n"
        "    ours.close()\n"
        "    threading.Thread(target=_listen, args=(theirs, queue.SimpleQueue()), daemon=True).start()\n"
        "    time.sleep(600)\n"
        "theirs.close()\n"
        "print(child, flush=True)\n"
        "time.sleep(600)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, cwd=REPOSITORY)
    assert parent.stdout is not None
    with parent.stdout as told:
        child = int(told.readline())
        assert _runs(child)
        parent.kill()
        parent.wait()
        # Both held it open.
        assert told.read() == ""
    ended = time.monotonic() + 60.0
    while _runs(child) and time.monotonic() < ended:
        time.sleep(0.05)
    assert not _runs(child)


def _runs(pid: int) -> bool:
    """Return whether a process is there and has not ended; one that nobody waits for is a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1][0] not in "ZX"
    except FileNotFoundError:
        return False
