"""The one loop over the inputs of a question: units of them, resume, progress, and the summary at the end.

A `Task` is what the verbs differ in. The inputs are the range `job.indices`: a part of them is another range, and
whatever was done of it before is in the run's folder. Who works on the units (this process, others, a cluster) changes
neither what is written nor how.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Iterator
from typing import Any, cast

from verifier.budget import Watch
from verifier.commands.interruption import interruption
from verifier.commands.job import opened
from verifier.commands.resuming import take_up
from verifier.commands.sharding import Shard, part_of
from verifier.commands.task import Known, Order, ResultOf, Task
from verifier.commands.work import memory_of, one_thread
from verifier.commands.working import Working, worked
from verifier.devices.choice import rigorous
from verifier.runs.manifest import Manifest, write_manifest


def run_order(order: Order[ResultOf]) -> ResultOf:
    """Return the result of what a verb was asked, worked on unit by unit; what its folder holds is not done again.

    An interruption leaves the folder as the last batch did, and what is known of the one that was worked on, of a task
    that ends early; KeyboardInterrupt follows.
    """
    started = time.perf_counter()
    task: Task[Any, ResultOf] = order.task()
    whole, shard = task.job.indices, Shard.read(task.options.shard)
    if shard is not None:
        indices = part_of(list(task.job.units(task.batch_size)), shard)
        task = dataclasses.replace(cast(Any, task), job=dataclasses.replace(task.job, indices=indices))
    job, configuration = task.job, order.configuration(task)
    about = {} if shard is None else {"shard": str(shard)}
    with _arithmetic(task), opened(task.options.out, configuration, job, about) as run:
        if run is not None and shard is not None:
            write_manifest(run.folder, Manifest.of_shard(order.digest(task), shard, whole, job.indices))
        with interruption(task.ends_early) as stopped:
            watch = Watch(memory_of(task.options.memory_limit), stopped, getattr(task.options.progress, "stands", None))
            # A folder holds records of its command alone.
            records: dict[int, Any] = take_up(run, job, task.norm)
            known = Known(run, records, run.witnesses() if run is not None and task.asks_witnesses else {}, watch)
            _work(order, task, known)
            held = [records[row] for row in job.indices if row in records]
            result = task.summarise(held, known, time.perf_counter() - started)
            if run is not None:
                run.finish({**result.to_json(), "offset": job.indices.start})
    return result


def _work(order: Order[Any], task: Task[Any, Any], known: Known[Any]) -> None:
    """Have every unit worked on, and keep what comes of it; KeyboardInterrupt where work was to end."""
    done, run, told = 0, known.run, task.options.progress
    with contextlib.closing(worked(Working(order, task, known))) as pieces:
        for rows, fresh, witnesses in pieces:
            if run is not None and fresh:
                run.append(fresh, witnesses)
            known.records.update({record.index: record for record in fresh})
            if task.asks_witnesses:
                known.witnesses.update(witnesses)
            done += len(rows)
            # What is left undone for a wish to stop is not done.
            if told is not None and not known.watch.stopped.is_set():
                told(min(done, len(task.job.indices)), len(task.job.indices))
    if known.watch.stopped.is_set():
        raise KeyboardInterrupt
    assert done >= len(task.job.indices), "every input is in a piece"


@contextlib.contextmanager
def _arithmetic(task: Task[Any, Any]) -> Iterator[None]:
    """Compute as bounds want it; on one thread where workers were asked for, or on as many as a batch is worth."""
    threads = one_thread() if isinstance(task.options.workers, int) else task.job.threads()
    with threads, rigorous(task.job.subject.device):
        yield
