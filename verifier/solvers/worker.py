"""A solver in a process of its own, which may crash, hang or answer nonsense without harm to this one.

The process takes one model after another, as arrays. At the deadline and a little grace it is killed, with whatever it
started; so it is when it answers what cannot be an answer (`verifier.solvers.sanity`). All of this is STOPPED with the
reason, never INFEASIBLE, and the next model gets a new process. HiGHS has been reported to crash on integer programs
(HiGHS 3150), and no limit of its own is sure to hold.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import Sequence
from pathlib import Path

from encoders.linear_model import LinearModel
from verifier.solvers.base import PLAIN, IntegerSettings, Solution, Solver, Termination
from verifier.solvers.messages import Frame, read_answer, read_frame, request_frame, write_frame
from verifier.solvers.sanity import nonsense

# Seconds past the deadline in which a solver may still notice its own time limit.
GRACE = 1.0
# Seconds that a new process may take to report that it is ready.
START_SECONDS = 60.0
MEMORY_BYTES = 8 * 2**30
# What the words of an answer may take beyond its numbers.
MOST_WORDS = 2**20

PROGRAM = (sys.executable, "-P", "-m", "verifier.solvers.worker_process")


class WorkerSolver(Solver):
    """Another solver of the table, run in a worker process that starts with the first model and serves many.

    memory: bytes of address space that the process may have, where the system can limit that; 0 for no limit. grace:
    seconds beyond a deadline before it is killed. program: what to run instead, given the solver's name, the bytes and
    a folder that is removed when the process ends.
    """

    def __init__(
        self, inner: Solver, memory: int = MEMORY_BYTES, grace: float = GRACE, program: Sequence[str] = PROGRAM
    ) -> None:
        self.inner, self.memory, self.grace, self.program = inner, memory, grace, tuple(program)
        self.name = f"worker:{inner.name}"
        # A ClassVar of backends; of a worker it is that of what it runs.
        self.integers = inner.integers  # type: ignore[misc]
        self._worker: _Worker | None = None
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)

    def missing(self) -> str | None:
        return self.inner.missing()

    def solve(self, model: LinearModel, seconds: float = math.inf, settings: IntegerSettings = PLAIN) -> Solution:
        """Return the answer of the inner solver, or STOPPED with the reason under "status".

        The model travels as it is: the inner solver chooses the units.
        """
        early = self.stopped_before_start(model, seconds)
        if early is not None:
            return early
        with self._lock:
            try:
                solution = self._ask(model, time.monotonic() + seconds, settings)
            except _Failure as failure:
                self._drop()
                return Solution(Termination.STOPPED, stats={"status": f"the worker process of {failure}"})
            except BaseException:  # also the user's interrupt: nothing may go on working for nobody
                self._drop()
                raise
        return solution

    def close(self) -> None:
        """End the process; the next model starts a new one."""
        with self._lock:
            self._drop()

    def _ask(self, model: LinearModel, deadline: float, settings: IntegerSettings) -> Solution:
        name = self.inner.name
        worker = self._running()
        # What is not ready at the deadline goes on starting: killed, it would never serve short deadlines.
        worker.wait_until_ready(deadline)
        seconds = deadline - time.monotonic()
        if seconds <= 0 or not worker.ready:
            return Solution(Termination.STOPPED, stats={"status": f"no time was left after the start of {name}"})
        number = next(self._numbers)
        most_bytes = 64 * (model.rows + model.columns) + MOST_WORDS
        answer = worker.send(request_frame(model, seconds, settings, number), most_bytes)
        frame = worker.receive(answer, seconds + self.grace)
        try:
            solution = read_answer(frame, number)
        except ValueError as error:
            raise _Failure(f"{name} sent {error}") from None
        problem = nonsense(model, solution, settings.start)
        if problem is not None:
            raise _Failure(f"{name} answered nonsense: {problem}")
        return solution

    def _running(self) -> _Worker:
        """Return the process, started if need be. One that belongs to the parent of a fork is not ours."""
        if self._worker is not None and self._worker.owner != os.getpid():
            self._worker = None
        if self._worker is None:
            self._worker = _start([*self.program, self.inner.name, str(self.memory)], self.inner.name)
        return self._worker

    def _drop(self) -> None:
        worker, self._worker = self._worker, None
        if worker is not None and worker.owner == os.getpid():
            worker.end()


class _Failure(Exception):
    """Why there is no answer."""


class _TooLate(_Failure):
    """Nothing was sent in time."""


Answer = queue.SimpleQueue[Frame | Exception]


class _Worker:
    """A running process, the folder with what it writes (its errors, a solver's files), and who started it."""

    def __init__(self, process: subprocess.Popen[bytes], folder: Path, name: str) -> None:
        self.process, self.folder, self.name, self.owner = process, folder, name, os.getpid()
        self.ready, self._started = False, time.monotonic()
        # Runs when this object goes, and when the interpreter ends.
        self.end = weakref.finalize(self, _end, process, folder, self.owner)
        self._greeting = self.send(None, MOST_WORDS)

    def wait_until_ready(self, deadline: float) -> None:
        """Wait for the message of a new process that it is ready; _Failure if it takes too long to start."""
        if self.ready:
            return
        late = self._started + START_SECONDS
        try:
            self.receive(self._greeting, min(deadline, late) - time.monotonic())
        except _TooLate:
            if time.monotonic() >= late:
                raise _Failure(f"{self.name} was not ready after {START_SECONDS:.0f} s") from None
        else:
            self.ready = True

    def send(self, request: Frame | None, most_bytes: int) -> Answer:
        """Send a request, or none, and return where the next message of the process will appear."""
        answer: Answer = queue.SimpleQueue()
        # A pipe can block both ways, and only a thread can be waited for with a limit on every system.
        threading.Thread(target=_exchange, args=(self.process, request, most_bytes, answer), daemon=True).start()
        return answer

    def receive(self, answer: Answer, seconds: float) -> Frame:
        """Return the message; _Failure if it is none, or does not come in time."""
        limit = None if math.isinf(seconds) else min(max(0.0, seconds), threading.TIMEOUT_MAX)
        try:
            frame = answer.get(timeout=limit)
        except queue.Empty:
            raise _TooLate(f"{self.name} was killed after {seconds:.1f} s, beyond its time limit") from None
        if isinstance(frame, EOFError | OSError):
            raise _Failure(f"{self.name} died ({self._death()})") from None
        if isinstance(frame, Exception):
            raise _Failure(f"{self.name} sent {frame}") from None
        return frame

    def _death(self) -> str:
        """Return how the process ended, with the last line it wrote to standard error."""
        try:
            code = self.process.wait(timeout=1.0)
        except subprocess.TimeoutExpired:
            return "it closed its output"
        how = f"exit status {code}"
        if code < 0:
            with contextlib.suppress(ValueError):
                how = f"signal {signal.Signals(-code).name}"
        lines = (self.folder / "errors").read_text(errors="replace").strip().splitlines()
        return f"{how}: {lines[-1][:200]}" if lines else how


def _start(command: list[str], name: str) -> _Worker:
    # Files that the solver leaves behind when it is killed go with the folder.
    folder = Path(tempfile.mkdtemp(prefix="verifier-solver-"))
    one_thread = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    root = str(Path(__file__).resolve().parents[2])
    # The child finds what this process found, in the same order.
    paths = [*([] if root in sys.path else [root]), *(path for path in sys.path if path)]
    temporary = dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(folder))
    environment = {**os.environ, **one_thread, **temporary, "PYTHONPATH": os.pathsep.join(paths)}
    try:
        with (folder / "errors").open("wb") as errors:
            # A session of its own: the terminal's interrupt goes to us alone, and the whole group can be killed.
            process = subprocess.Popen(
                [*command, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, env=environment,
                start_new_session=True,
            )  # fmt: skip
    except OSError as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise _Failure(f"{name} could not be started ({error})") from None
    return _Worker(process, folder, name)


def _exchange(
    process: subprocess.Popen[bytes],
    request: Frame | None,
    most_bytes: int,
    answer: Answer,
) -> None:
    assert process.stdin is not None and process.stdout is not None
    try:
        if request is not None:
            write_frame(process.stdin, request)  # type: ignore[arg-type]
        answer.put(read_frame(process.stdout, most_bytes))  # type: ignore[arg-type]
    except Exception as error:  # the waiting thread judges it
        answer.put(error)


def _end(process: subprocess.Popen[bytes], folder: Path, owner: int) -> None:
    """Kill the process with its group, and remove its folder; nothing in a fork of the owner."""
    if os.getpid() != owner:
        return
    if os.name == "posix":
        # The group outlives its leader: a program that the solver started may be all that is left of it.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            # Closing flushes what was not written any more.
            with contextlib.suppress(OSError):
                stream.close()
    shutil.rmtree(folder, ignore_errors=True)
