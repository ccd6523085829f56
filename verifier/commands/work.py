"""What processes that work on the inputs of a task have in common: one thread, a share of memory, pieces of work."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from verifier.budget import memory_to_use
from verifier.commands.sharding import batches
from verifier.commands.task import Known, Task
from verifier.runs.records import Record
from verifier.runs.witness_files import Witnesses

# Inputs that were worked on together, their records that are new, and their witnesses.
Piece = tuple[range, list[Record], Witnesses]
# What makes libraries that are loaded later use one thread.
ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), "1"
)  # fmt: skip


@dataclass(frozen=True)
class Unit:
    """Inputs that one process works on, batch by batch. tries: how often that has failed at its first batch."""

    rows: range
    tries: int = 0


def pieces_of(task: Task[Any, Any], rows: range, known: Known[Any]) -> Iterator[Piece]:
    """Yield the pieces of a unit, batch by batch, up to where an end is wanted; what is complete is not done again."""
    for part in batches(rows, task.batch_size):
        if all(task.complete(known.records.get(row)) for row in part):
            yield part, [], {}
        else:
            fresh, witnesses = task.work(part, known)
            yield part, fresh, witnesses
        if known.watch.stopped.is_set():
            return


def after_failure(unit: Unit, size: int, hopeless: bool) -> tuple[list[Unit], range]:
    """Return (units to try again, inputs to leave open) of a unit at whose first batch its process ended.

    Tried again as it was once, so that the answers are the same; then input by input, so that only those stay open
    that end their process by themselves. hopeless: the same would end the same way.
    """
    first = next(batches(unit.rows, size))
    rest = range(first.stop, unit.rows.stop)
    later = [Unit(rest)] if rest else []
    if not unit.tries and not hopeless:
        return [Unit(unit.rows, 1)], range(0)
    if len(first) == 1:
        return later, first
    return [*(Unit(range(row, row + 1), 1) for row in first), *later], range(0)


def memory_of(gibibytes: float | None, processes: int = 1) -> float:
    """Return what each of some processes may hold, in bytes; None: what this machine has to spare, divided."""
    return (memory_to_use() if gibibytes is None else gibibytes * 2**30) / processes


def processors() -> int:
    """Return how many processors this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Use one thread inside, of torch and of the BLAS that is loaded."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            yield
    finally:
        torch.set_num_threads(before)
