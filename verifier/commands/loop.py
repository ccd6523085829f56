"""The one loop over the inputs of a question: batches, resume, progress, and the summary at the end.

A `Task` is what the verbs differ in. The inputs are the range `job.indices`: a part of them is another range, and
whatever was done of it before is in the run's folder.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar, cast

from encoders.region import Norm
from verifier.budget import Watch, memory_to_use
from verifier.commands.interruption import interruption
from verifier.commands.job import Job, opened
from verifier.commands.request import Progress
from verifier.commands.resuming import take_up
from verifier.runs.folder import Run
from verifier.runs.records import Record
from verifier.runs.witness_files import Witnesses

RecordOf = TypeVar("RecordOf", bound=Record)


@dataclass(frozen=True, eq=False)
class Known(Generic[RecordOf]):
    """What is known so far, by position in the data. run: the folder that keeps it, if any.

    witnesses: the nearest ones, of a task that asks for them. watch: what ends work beside its time.
    """

    run: Run | None
    records: dict[int, RecordOf]
    witnesses: Witnesses
    watch: Watch = field(default_factory=Watch)


class Result(Protocol):
    """What a verb returns."""

    def to_json(self) -> dict[str, Any]:
        """Return the object that `--json` prints."""


ResultOf = TypeVar("ResultOf", bound=Result, covariant=True)


class Keeps(Protocol):
    """What a request says of the folder that keeps a run, and of whom to tell how far it is."""

    @property
    def out(self) -> str | Path | None: ...

    @property
    def progress(self) -> Progress | None: ...

    @property
    def memory_limit(self) -> float | None: ...


class Task(Protocol[RecordOf, ResultOf]):
    """A question about the inputs of a job, and how a batch of them is worked on."""

    @property
    def job(self) -> Job:
        """Model, data and the inputs that are asked about."""

    @property
    def norm(self) -> Norm:
        """The norm of the balls."""

    @property
    def configuration(self) -> dict[str, Any]:
        """Whatever changes an answer about one input, beside what the job says of itself."""

    @property
    def batch_size(self) -> int:
        """Inputs worked on, and written, together."""

    @property
    def asks_witnesses(self) -> bool:
        """Whether `work` and `summarise` look at the witnesses known."""

    @property
    def ends_early(self) -> bool:
        """Whether `work` ends soon once its watch wants an end, with records that say what was not tried."""

    def complete(self, record: RecordOf | None) -> bool:
        """Return whether nothing is left to do about an input."""

    def work(self, rows: range, known: Known[RecordOf]) -> tuple[list[RecordOf], Witnesses]:
        """Return (records, witnesses) of the inputs among the rows that are not complete.

        It may leave out one that nothing depends on any more: then there is no record of it.
        """

    def summarise(self, records: Sequence[RecordOf], known: Known[RecordOf], seconds: float) -> ResultOf:
        """Return the result over the records that there are of the inputs that are asked about."""


def run_task(task: Task[RecordOf, ResultOf], command: str, request: Keeps, started: float) -> ResultOf:
    """Return the result of a task, worked on batch by batch; what its folder holds already is not done again.

    started: when the command began (`time.perf_counter`). An interruption leaves the folder as the last batch did, and
    what is known of the one that was worked on, of a task that ends early; KeyboardInterrupt follows.
    """
    job = task.job
    configuration = {**job.configuration(command), **task.configuration}
    with job.threads(), opened(request.out, configuration, job) as run, interruption(task.ends_early) as stopped:
        # A folder holds records of its command alone.
        records = cast(dict[int, RecordOf], take_up(run, job, task.norm))
        watch = Watch(_bytes(request.memory_limit), stopped, getattr(request.progress, "stands", None))
        known = Known(run, records, run.witnesses() if run is not None and task.asks_witnesses else {}, watch)
        for rows in job.batches(task.batch_size):
            if not all(task.complete(records.get(row)) for row in rows):
                fresh, witnesses = task.work(rows, known)
                if run is not None and fresh:
                    run.append(fresh, witnesses)
                records.update({record.index: record for record in fresh})
                if task.asks_witnesses:
                    known.witnesses.update(witnesses)
            if stopped.is_set():
                raise KeyboardInterrupt
            if request.progress is not None:
                request.progress(rows[-1] - job.indices[0] + 1, len(job.indices))
        held = [records[row] for row in job.indices if row in records]
        result = task.summarise(held, known, time.perf_counter() - started)
        if run is not None:
            run.finish({**result.to_json(), "offset": job.indices.start})
    return result


def _bytes(gibibytes: float | None) -> float:
    """Return a limit of memory in bytes; None: what this machine has to spare."""
    return memory_to_use() if gibibytes is None else gibibytes * 2**30
