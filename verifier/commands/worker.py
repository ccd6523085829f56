"""The program of a worker process: it makes the task of an order, and works on units of inputs until it is ended.

Messages from the parent are (rows, records, witnesses) of a unit; messages to it are ("ready",), ("stands", words),
("piece", piece), ("done",) and ("failed", error). What the unit's inputs leave beside records (certificates,
properties) goes into the run's folder, each file in one step.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import queue
import signal
import threading
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from verifier.budget import Watch
from verifier.commands.task import Known, Order, Task
from verifier.commands.work import one_thread, pieces_of
from verifier.devices.choice import rigorous
from verifier.runs.folder import Run, RunError

# The exit status of a worker that ran out of memory and could say so.
OUT_OF_MEMORY = 70


def serve(connection: Connection, packed: bytes, digest: str, folder: Path | None, memory: float) -> None:
    """Work on units until the parent ends.

    packed: the order. digest: of the configuration of the parent's task; another one is refused. memory: bytes.
    """
    # What a terminal sends to all is the parent's business.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    stopped = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopped.set())
    _be_the_first_to_go()
    units: queue.SimpleQueue[Any] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(connection, units), daemon=True).start()
    try:
        with one_thread(), contextlib.ExitStack() as stack:
            task = task_of(packed, digest)
            stack.enter_context(rigorous(task.job.subject.device))
            run = None if folder is None else Run(folder, {})
            watch = Watch(memory, stopped, lambda words: connection.send(("stands", words)))
            connection.send(("ready",))
            while True:
                rows, records, witnesses = units.get()
                for piece in pieces_of(task, rows, Known(run, records, witnesses, watch)):
                    connection.send(("piece", piece))
                connection.send(("done",))
    except MemoryError:
        os._exit(OUT_OF_MEMORY)
    except Exception as error:  # the parent raises it
        connection.send(("failed", sendable(error)))


def task_of(packed: bytes, digest: str) -> Task[Any, Any]:
    """Return the task of an order; RunError if it is not the one whose configuration has this digest."""
    order = Order.unpacked(packed)
    task = order.task()
    if order.digest(task) != digest:
        raise RunError(
            "a worker finds another model, other data or other settings than the run: they have changed meanwhile, or "
            "differ every time that they are read; name files that stay, or work in one process: workers 1"
        )
    return task


def sendable(error: Exception) -> Exception:
    """Return an error that another process can read: itself, or its words."""
    try:
        return pickle.loads(pickle.dumps(error))  # type: ignore[no-any-return]
    except Exception:  # whatever a class of errors does when it is made again
        return RuntimeError(f"{type(error).__name__}: {error}")


def _listen(connection: Connection, units: queue.SimpleQueue[Any]) -> None:
    """Hand units on; end this process as soon as there is no parent, in the middle of its work too."""
    try:
        while True:
            units.put(connection.recv())
    finally:
        os._exit(0)


def _be_the_first_to_go() -> None:
    """Ask the system to end this process before its parent where memory is short."""
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("500")
