"""Processes of this machine that work on the units of a task; what one of them loses another does again.

A process that ends (killed, out of memory, crashed in native code), or that goes on beyond its time, is replaced, and
the inputs that it was at are tried again as `after_failure` says; then they stay open with the reason. The parent alone
writes records, as they come: at any time all that was received is kept.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from typing import Any

from verifier.commands.sharding import batches
from verifier.commands.task import Known, Order, Task
from verifier.commands.work import ONE_THREAD, Piece, Unit, after_failure, memory_of
from verifier.commands.worker import OUT_OF_MEMORY, serve

# Seconds beyond the limits of a batch after which its process is ended: for what the limits do not count (loading of
# libraries, compilation), and for one call of a library to notice its own.
GRACE = 30.0
# Seconds between two looks at clocks and wishes.
LOOKS = 0.1
# Processes that may end before they are ready, one after the other.
MOST_STARTS = 3


class NotStarted(RuntimeError):
    """Worker processes cannot be had."""


@dataclass(eq=False)
class _Process:
    """A worker process. unit: what it has still to do of what it was given; since: when it last said something."""

    process: Any
    connection: Connection
    ready: bool = False
    unit: Unit | None = None
    since: float = field(default_factory=time.monotonic)
    late: bool = False

    def end(self) -> str:
        """End the process, and return how it ended, in a few words."""
        self.process.join(1.0)
        if self.process.exitcode is None:
            self.process.kill()
            self.process.join()
        self.connection.close()
        code = self.process.exitcode
        if code == OUT_OF_MEMORY:
            return "ran out of memory"
        if code == -signal.SIGKILL:
            return "was killed (SIGKILL), which systems do that run out of memory"
        with contextlib.suppress(ValueError):
            return f"was ended by {signal.Signals(-code).name}"
        return f"ended with exit status {code}"


class Workers:
    """So many worker processes for a task, started when units are worked on. grace: see GRACE."""

    def __init__(
        self, order: Order[Any], task: Task[Any, Any], known: Known[Any], count: int, grace: float | None = None
    ) -> None:
        self.task, self.known, self.count = task, known, count
        self.grace = GRACE if grace is None else grace
        memory = memory_of(task.options.memory_limit, count)
        folder = None if known.run is None else known.run.folder
        self._arguments = (order.packed(), order.digest(task), folder, memory)
        self._processes: list[_Process] = []
        self._waiting: deque[Unit] = deque()
        self._starts, self._asked_to_stop = 0, False

    def pieces(self, units: list[range]) -> Iterator[Piece]:
        """Yield the pieces of all units in the order in which they come; each input is in one of them.

        After a wish to stop those that come of what is being worked on, and no more. Raises NotStarted where no process
        gets ready, and what a process raised.
        """
        self._waiting.extend(map(Unit, units))
        try:
            while self._waiting or any(each.unit for each in self._processes):
                self._stop_if_wanted()
                if self._asked_to_stop and not any(each.unit for each in self._processes):
                    return
                self._hand_out()
                yield from self._received()
        finally:
            self.close()

    def close(self) -> None:
        """End all processes at once."""
        for each in self._processes:
            each.process.kill()
        for each in self._processes:
            each.end()
        self._processes = []

    def _hand_out(self) -> None:
        """Start as many processes as there is work for, and give units to those that are ready."""
        if self._asked_to_stop:
            return
        busy = sum(each.unit is not None for each in self._processes)
        while len(self._processes) < min(self.count, busy + len(self._waiting)):
            self._processes.append(_start(self._arguments))
        for each in self._processes:
            if each.ready and each.unit is None and self._waiting:
                unit = self._waiting.popleft()
                rows, known = unit.rows, self.known
                records = {row: known.records[row] for row in rows if row in known.records}
                witnesses = {row: known.witnesses[row] for row in rows if row in known.witnesses}
                each.unit, each.since = unit, time.monotonic()
                with contextlib.suppress(OSError):
                    # Of one that has just ended the next look tells.
                    each.connection.send((rows, records, witnesses))

    def _received(self) -> Iterator[Piece]:
        """Yield what has come in, and see to processes that have ended or are late."""
        waiting = wait([each.connection for each in self._processes], LOOKS)
        for each in list(self._processes):
            if each.connection in waiting:
                try:
                    message = each.connection.recv()
                except (EOFError, OSError):
                    yield from self._lost(each)
                    continue
                yield from self._message(each, message)
            elif self._is_late(each):
                each.late = True
                each.process.kill()

    def _message(self, each: _Process, message: tuple[Any, ...]) -> Iterator[Piece]:
        kind = message[0]
        if kind == "failed":
            raise message[1]
        if kind == "stands" and self.known.watch.told is not None:
            self.known.watch.told(message[1])
        if kind == "ready":
            each.ready, self._starts = True, 0
        if kind == "done" and self._asked_to_stop:
            # What is left of its unit nobody works on. Otherwise its last piece has said so, and it may have another.
            each.unit = None
        if kind == "piece":
            rows = message[1][0]
            assert each.unit is not None
            each.since = time.monotonic()
            left = range(rows.stop, each.unit.rows.stop)
            # An end of the process before it says that it is done loses nothing.
            each.unit = Unit(left) if left else None
            yield message[1]

    def _lost(self, each: _Process) -> Iterator[Piece]:
        """Take a process that has ended out; its unit is tried again, or left open."""
        self._processes.remove(each)
        how = each.end()
        if not each.ready:
            self._starts += 1
            if self._starts >= MOST_STARTS or each.process.exitcode > 0:
                raise NotStarted(
                    f"a worker process {how} before it was ready; a script needs `if __name__ == '__main__':` around "
                    "what it does; workers 1 works in this process alone"
                )
        if each.unit is None or self._asked_to_stop:
            return
        again, left = after_failure(each.unit, self.task.batch_size, each.late)
        self._waiting.extendleft(reversed(again))
        if left:
            limit = self.task.options.time_limit
            reason = f"its process {how}" + (", twice" if each.unit.tries else "")
            if each.late:
                reason = f"its process did not end {self.grace:.0f} s after the time limit of {limit:g} s"
            yield left, self.task.left_open(left, self.known, reason, each.late), {}

    def _is_late(self, each: _Process) -> bool:
        if each.unit is None or each.late:
            return False
        first = next(batches(each.unit.rows, self.task.batch_size))
        allowed = self.task.options.time_limit * self.task.limits_each * len(first) + self.grace
        return time.monotonic() - each.since > allowed

    def _stop_if_wanted(self) -> None:
        """Ask the processes once to end with what they know."""
        if not self._asked_to_stop and self.known.watch.stopped.is_set():
            self._asked_to_stop = True
            for each in self._processes:
                if each.unit is not None:
                    with contextlib.suppress(OSError):
                        os.kill(each.process.pid, signal.SIGTERM)


def _start(arguments: tuple[Any, ...]) -> _Process:
    """Start a process that no Ctrl-C of the terminal reaches: the parent tells it what to do."""
    spawning = multiprocessing.get_context("spawn")
    ours, theirs = spawning.Pipe()
    process = spawning.Process(target=serve, args=(theirs, *arguments), daemon=True)
    before = {name: os.environ.get(name) for name in ONE_THREAD}
    # Started now, or it would unblock the signal again in the middle of the start of the process.
    resource_tracker.ensure_running()
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    os.environ.update(ONE_THREAD)
    try:
        process.start()
    except (OSError, RuntimeError) as error:
        raise NotStarted(f"a worker process cannot be started: {error}") from None
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        # A pipe ends once nobody else holds its other end.
        theirs.close()
    return _Process(process, ours)
