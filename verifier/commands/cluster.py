"""The units of a task on a Dask cluster (the extra `cluster`): it hands them out, starts workers and replaces them.

Several units in a row are one task of the cluster, so that there are a few hundred at most. A task's worker makes the
verifier's task of the order, which has to find the same files under the same paths (a shared file system), and returns
records and the bytes of files, so that this process alone writes to the run. A worker that dies is Dask's business
until it gives up (KilledWorker, `distributed.scheduler.allowed-failures`); then the inputs are tried again as
`after_failure` says.

Native code that goes on beyond its time ends its worker, by a watch inside the process that runs no Python; Dask
starts another. Not here: an interruption leaves what is being worked on.
"""

from __future__ import annotations

import contextlib
import faulthandler
import functools
import logging
import os
import tempfile
import threading
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

from encoders.files import write_atomically
from verifier.budget import Watch
from verifier.commands.task import Known, Order, Task
from verifier.commands.work import Piece, Unit, after_failure, memory_of, one_thread, pieces_of, processors
from verifier.commands.worker import task_of
from verifier.commands.workers import GRACE
from verifier.devices.choice import rigorous
from verifier.runs.folder import Run, RunError

# Tasks that the cluster is given in the beginning, and the bytes of what each of them carries.
MOST_TASKS, MOST_BYTES = 300, 10 * 2**20
# Seconds that a scheduler has to answer, and between two looks at what has come in.
ANSWERS, LOOKS = 10.0, 0.25
LOCAL = "local"
MISSING = "--cluster needs the package distributed: pip install 'robustness-verifier[cluster]'"
# Files of a run by their paths in it.
Files = dict[str, bytes]


def over_cluster(order: Order[Any], task: Task[Any, Any], known: Known[Any], units: list[range]) -> Generator[Piece]:
    """Yield the pieces of the units as they come, files beside them written before.

    Raises ValueError where the package is missing, OSError where no scheduler answers, and what the work raised.
    """
    packed, digest = order.packed(), order.digest(task)
    if len(packed) > MOST_BYTES:
        raise ValueError("model and data are too large to be sent to a cluster with every task: name files")
    memory = memory_of(task.options.memory_limit, _count(task))
    resources = {"GPU": 1} if task.job.subject.device.type == "cuda" else {}
    done = [rows for rows in units if all(task.complete(known.records.get(row)) for row in rows)]
    yield from ((rows, [], {}) for rows in done)
    rest = [rows for rows in units if rows not in set(done)]
    with _client(task, memory) as client:

        def submit(unit: Unit) -> Any:
            records = {row: known.records[row] for row in unit.rows if row in known.records}
            witnesses = {row: known.witnesses[row] for row in unit.rows if row in known.witnesses}
            place = str(Path.cwd())
            arguments = ((packed, digest, place), unit.rows, records, witnesses, known.run is not None, memory)
            return client.submit(work_on, *arguments, pure=False, retries=0, resources=resources)

        waiting = {submit(unit): unit for unit in _joined(rest)}
        while waiting and not known.watch.stopped.is_set():
            for future in _ended(waiting):
                unit = waiting.pop(future)
                again, pieces, files = _outcome(future, unit, task, known)
                for name, content in files.items():
                    _keep(known.run, name, content)
                yield from pieces
                waiting |= {submit(each): each for each in again}
        client.cancel(list(waiting))


def work_on(
    order: tuple[bytes, str, str], rows: range, records: dict[int, Any], witnesses: Any, keeps: bool, memory: float
) -> tuple[list[Piece], Files]:
    """Return the pieces of a unit and the files that they leave, in a worker of the cluster.

    order: packed, with the digest of its task's configuration and the folder in which it was given.
    """
    with one_thread(), tempfile.TemporaryDirectory(prefix="verifier-") as name:
        folder = Path(name)
        run, task = Run(folder, {}) if keeps else None, _task(*order)
        allowed = task.options.time_limit * task.limits_each * task.batch_size + GRACE
        with rigorous(task.job.subject.device):
            known = Known(run, records, witnesses, Watch(memory))
            pieces = list(in_time(pieces_of(task, rows, known), allowed))
        paths = [path for path in folder.rglob("*") if path.is_file()]
        return pieces, {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def in_time(pieces: Iterator[Piece], seconds: float) -> Iterator[Piece]:
    """Yield pieces as they are made; end this process (exit status 1) where one of them takes longer.

    By faulthandler's thread, which runs no Python: so also where native code neither returns nor lets others run.
    """
    with open(os.devnull, "w") as nowhere:  # noqa: PTH123 a device, by its name
        while True:
            if seconds < threading.TIMEOUT_MAX:
                faulthandler.dump_traceback_later(seconds, exit=True, file=nowhere)
            try:
                piece = next(pieces, None)
            finally:
                faulthandler.cancel_dump_traceback_later()
            if piece is None:
                return
            yield piece


@functools.lru_cache(maxsize=1)
def _task(packed: bytes, digest: str, place: str) -> Task[Any, Any]:
    with contextlib.chdir(place):
        return task_of(packed, digest)


def _outcome(future: Any, unit: Unit, task: Task[Any, Any], known: Known[Any]) -> tuple[list[Unit], list[Piece], Files]:
    """Return (units to try again, pieces, files) of a task that has ended; raises what its work raised."""
    from distributed import KilledWorker

    if future.status == "finished":
        pieces, files = future.result()
        return [], pieces, files
    error = future.exception() if future.status == "error" else None
    if error is not None and not isinstance(error, KilledWorker | MemoryError):
        raise error
    again, left = after_failure(unit, task.batch_size, False)
    if not left:
        return again, [], {}
    reason = f"its process ended, again and again ({type(error).__name__})"
    return again, [(left, task.left_open(left, known, reason, False), {})], {}


def _ended(waiting: dict[Any, Unit]) -> list[Any]:
    """Return the tasks that have ended, after at most a look."""
    from distributed import wait

    with contextlib.suppress(TimeoutError):
        wait(list(waiting), timeout=LOOKS, return_when="FIRST_COMPLETED")
    return [future for future in waiting if future.done()]


@contextlib.contextmanager
def _client(task: Task[Any, Any], memory: float) -> Iterator[Any]:
    """Yield a client of the cluster that was named."""
    try:
        import dask
        from distributed import Client, LocalCluster
    except ImportError as error:
        raise ValueError(f"{MISSING} ({error})") from None
    address = task.options.cluster
    if address == LOCAL:
        # Native code may keep a worker from its heartbeats for longer than any time to live.
        with (
            # What ends its worker again is tried in smaller parts here.
            dask.config.set({"distributed.scheduler.worker-ttl": None, "distributed.scheduler.allowed-failures": 1}),
            LocalCluster(
                n_workers=_count(task), threads_per_worker=1, processes=True, dashboard_address=None,
                memory_limit=int(memory) if memory < float("inf") else 0, silence_logs=logging.ERROR,
            ) as cluster,
            Client(cluster) as client,
        ):  # fmt: skip
            yield client
        return
    try:
        client = Client(address, timeout=ANSWERS)
    except (OSError, ValueError, TypeError) as error:
        raise OSError(
            f"no scheduler of a Dask cluster answers at {address!r} ({error or type(error).__name__}); start one with "
            f"`dask scheduler`, or use --cluster {LOCAL}"
        ) from None
    with client:
        yield client


def _count(task: Task[Any, Any]) -> int:
    """Return how many workers a local cluster has."""
    asked = task.options.workers
    return asked if isinstance(asked, int) else processors()


def _joined(units: list[range]) -> list[Unit]:
    """Return the units, of those that follow one another so many as one that there are a few hundred."""
    size = -(-len(units) // MOST_TASKS)
    found: list[range] = []
    parts = 0
    for rows in units:
        if found and found[-1].stop == rows.start and parts < size:
            found[-1], parts = range(found[-1].start, rows.stop), parts + 1
        else:
            found, parts = [*found, rows], 1
    return list(map(Unit, found))


def _keep(run: Run | None, name: str, content: bytes) -> None:
    """Write a file of a worker into the run."""
    path = Path(name)
    if run is None or len(path.parts) != 2 or path.parts[0] not in ("certificates", "properties"):
        raise RunError(f"a worker of the cluster sent a file that no run has: {name}")
    (run.folder / path.parts[0]).mkdir(exist_ok=True)
    write_atomically(run.folder / path, content)
