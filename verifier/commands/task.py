"""A question about inputs as the loop sees it, in this process or in another: a `Task`, and the `Order` that makes it.

A task holds networks, sessions and caches, and stays in its process. An order holds the arguments of the verb alone, so
that any process can make the same task of it again; that it is the same is seen by the digest of its configuration.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from encoders.region import Norm
from verifier.budget import Watch
from verifier.commands.job import Job
from verifier.commands.request import Progress
from verifier.runs.folder import Run
from verifier.runs.records import SCHEMA, Record, configuration_digest
from verifier.runs.witness_files import Witnesses

RecordOf = TypeVar("RecordOf", bound=Record)
# Keywords that say where a run is kept and who works on it: nothing that a task in another process needs.
OF_THE_FRONT = ("progress", "workers", "shard", "cluster")


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
    """What a request says of the folder that keeps a run, of its limits, who works on it, and whom to tell how far."""

    @property
    def out(self) -> str | Path | None: ...

    @property
    def progress(self) -> Progress | None: ...

    @property
    def time_limit(self) -> float: ...

    @property
    def memory_limit(self) -> float | None: ...

    @property
    def workers(self) -> int | str | None: ...

    @property
    def shard(self) -> str | None: ...

    @property
    def cluster(self) -> str | None: ...


class Task(Protocol[RecordOf, ResultOf]):
    """A question about the inputs of a job, and how a batch of them is worked on."""

    @property
    def job(self) -> Job:
        """Model, data and the inputs that are asked about."""

    @property
    def options(self) -> Keeps:
        """What the request says of its folder, limits and workers."""

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

    @property
    def limits_each(self) -> int:
        """How many time limits an input may take: one, or more where several things are asked of it in turn."""

    def complete(self, record: RecordOf | None) -> bool:
        """Return whether nothing is left to do about an input."""

    def work(self, rows: range, known: Known[RecordOf]) -> tuple[list[RecordOf], Witnesses]:
        """Return (records, witnesses) of the inputs among the rows that are not complete.

        It may leave out one that nothing depends on any more: then there is no record of it.
        """

    def left_open(self, rows: range, known: Known[RecordOf], reason: str, timed_out: bool) -> list[RecordOf]:
        """Return the records of the inputs among the rows that are not complete, open for a reason.

        For inputs on which no process could work to the end; what was known of them stays. The same command tries them
        again. timed_out: it was for the time.
        """

    def summarise(self, records: Sequence[RecordOf], known: Known[RecordOf], seconds: float) -> ResultOf:
        """Return the result over the records that there are of the inputs that are asked about."""


class NotSent(ValueError):
    """What a verb was asked cannot be handed to another process."""


@dataclass(frozen=True, eq=False)
class Order(Generic[ResultOf]):
    """What a verb was asked. make: a function of a module that returns the task of the arguments and keywords."""

    command: str
    make: Callable[..., Task[Any, ResultOf]]
    arguments: tuple[Any, ...]
    keywords: dict[str, Any]

    def task(self) -> Task[Any, ResultOf]:
        """Return the task; raises ValueError with what is wrong before any work starts."""
        return self.make(*self.arguments, **self.keywords)

    def configuration(self, task: Task[Any, Any]) -> dict[str, Any]:
        """Return what identifies the run."""
        return {**task.job.configuration(self.command), **task.configuration}

    def digest(self, task: Task[Any, Any]) -> str:
        """Return the digest of what identifies the run, as its records have it."""
        return configuration_digest(json.loads(json.dumps({"schema": SCHEMA, **self.configuration(task)})))

    def packed(self) -> bytes:
        """Return the order for a process that works in the same folder; NotSent where there is no sending it."""
        keywords = {name: value for name, value in self.keywords.items() if name not in OF_THE_FRONT}
        try:
            return pickle.dumps(Order(self.command, self.make, self.arguments, keywords))
        except Exception as error:  # whatever an object that pickle asks may raise
            raise NotSent(
                f"the model or the data cannot be handed to other processes ({type(error).__name__}: {error}); name "
                "files, or work in this process alone: workers 1"
            ) from None

    @staticmethod
    def unpacked(packed: bytes) -> Order[Any]:
        """Return the order that was packed: by this program, which alone is believed."""
        order = pickle.loads(packed)
        assert isinstance(order, Order)
        return order
