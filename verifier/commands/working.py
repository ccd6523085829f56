"""Who works on the units of a task: this process, several of this machine, or a cluster.

Without a number of workers the command line begins in this process, and hands the rest to one for each processor as
soon as what is done so far lets it expect that the rest takes longer than their start is worth: so a small job is never
slower for it.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

from verifier.budget import memory_to_use
from verifier.commands.task import Known, NotSent, Order, Task
from verifier.commands.work import Piece, pieces_of, processors
from verifier.commands.workers import NotStarted, Workers

# Seconds that the rest must be expected to take alone before others are started: each loads libraries, the model and
# the data for some 5 s, at the same time as the others and as this process did.
WORTH_STARTING = 20.0
# Bytes that a worker takes at least.
LEAST_MEMORY = 2**30
AUTO = "auto"


@dataclass(frozen=True, eq=False)
class Working:
    """An order, its task, and what is known."""

    order: Order[Any]
    task: Task[Any, Any]
    known: Known[Any]

    def done(self, rows: range) -> bool:
        """Return whether nothing is left to do about inputs."""
        return all(self.task.complete(self.known.records.get(row)) for row in rows)

    def workers(self, count: int) -> Workers:
        """Return so many workers."""
        return Workers(self.order, self.task, self.known, count)


def worked(working: Working) -> Generator[Piece]:
    """Yield the pieces of the inputs as they are worked on, up to where an end is wanted."""
    units, options = list(working.task.job.units(working.task.batch_size)), working.task.options
    if options.cluster is not None:
        from verifier.commands.cluster import over_cluster

        return over_cluster(working.order, working.task, working.known, units)
    if isinstance(options.workers, int) and options.workers > 1:
        return _together(working, units, options.workers)
    if options.workers == AUTO and (count := _most_workers(working.task)) > 1:
        return _together_if_long(working, units, count)
    return _alone(working, units)


def _alone(working: Working, units: list[range]) -> Generator[Piece]:
    for rows in units:
        yield from pieces_of(working.task, rows, working.known)
        if working.known.watch.stopped.is_set():
            return


def _together(working: Working, units: list[range], count: int) -> Generator[Piece]:
    rest = []
    for rows in units:
        if working.done(rows):
            yield rows, [], {}
        else:
            rest.append(rows)
    if rest:
        yield from working.workers(min(count, len(rest))).pieces(rest)


def _together_if_long(working: Working, units: list[range], count: int) -> Generator[Piece]:
    seconds, inputs = 0.0, 0
    for number, rows in enumerate(units):
        begun, done = time.perf_counter(), working.done(rows)
        yield from pieces_of(working.task, rows, working.known)
        if working.known.watch.stopped.is_set():
            return
        if done:
            continue
        seconds, inputs = seconds + time.perf_counter() - begun, inputs + len(rows)
        rest = [rows for rows in units[number + 1 :] if not working.done(rows)]
        if len(rest) > 1 and seconds / inputs * sum(map(len, rest)) > WORTH_STARTING:
            break
    else:
        return
    left = units[number + 1 :]
    try:
        yield from _together(working, left, count)
    except (NotStarted, NotSent):
        # Nobody asked for others.
        yield from _alone(working, [rows for rows in left if not working.done(rows)])


def _most_workers(task: Task[Any, Any]) -> int:
    """Return how many processes may work at a time: one where a device other than the processors does."""
    if task.job.subject.device.type != "cpu":
        return 1
    return int(min(processors(), max(1, memory_to_use() // LEAST_MEMORY)))
