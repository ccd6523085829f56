"""One command's work on a model and data: both loaded and checked against each other, and cut into batches.

`load_job` raises before any work starts; `opened` gives the run folder that keeps the answers. What is asked about
the inputs is the command's business.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from encoders.network import Network
from encoders.region import Norm, domain_ends
from verifier.agreement import INPUTS
from verifier.answers import Answer
from verifier.batch import BATCH_SIZE, Batch, Group
from verifier.commands.origin import origin_of
from verifier.commands.request import Request
from verifier.commands.sharding import batches
from verifier.commands.surroundings_request import asked_surroundings, described
from verifier.data import Dataset, as_dataset, check_labels
from verifier.runs.folder import Run, RunError, open_run
from verifier.runs.records import InputHead, InputRecord, Record
from verifier.subject import Subject, classes_of, load_subject
from verifier.surroundings import Surroundings
from verifier.threads import threads_for


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Job(ABC):
    """A subject, what is asked about it, the seed of all randomness, and the positions asked about.

    origin: where model and data came from, for whoever checks the run later; nothing where they were objects.
    """

    subject: Subject
    seed: int
    indices: range
    origin: dict[str, Any] = dataclasses.field(default_factory=dict)

    def configuration(self, command: str) -> dict[str, Any]:
        """Return what identifies a run of the command: everything that changes an answer about one position."""
        known = {"command": command, "model": self.subject.digest, "seed": self.seed}
        return {**known, **self.subject.randomness}

    @property
    def about(self) -> dict[str, Any]:
        """What the name of a run's default folder depends on, beside the configuration."""
        return {}

    @property
    @abstractmethod
    def size(self) -> int:
        """How many positions there are."""

    def check_known(self, records: Mapping[int, Record]) -> None:
        """Raise RunError where the records of a folder are about something else at their positions."""
        beyond = [index for index in records if index >= self.size]
        if beyond:
            raise RunError(f"the data end before input {min(beyond)}; remove its line")

    @abstractmethod
    def shows(self, records: Sequence[Any], found: Sequence[tuple[np.ndarray, float]], norm: Norm) -> Tensor:
        """Return a mask `(records,)`: whether a point within its distance shows, in the user's model, what is claimed.

        found: for each record the point, of the model's shape and dtype, and its distance.
        """

    def units(self, size: int) -> Iterator[range]:
        """Yield the parts of the indices that depend on no other, each of whole batches of the size."""
        return batches(self.indices, size)

    def threads(self) -> contextlib.AbstractContextManager[None]:
        """Return a context that uses as many threads as the work of a batch is worth."""
        return threads_for(self.subject.network.parameter_count * min(BATCH_SIZE, len(self.indices)))

    def described(self, row: int, seconds: float) -> dict[str, Any]:
        """Return what the head of every record says, by its fields."""
        return {
            "index": row, "model": self.subject.digest, "seconds": seconds, "versions": _versions()
        }  # fmt: skip


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class DataJob(Job):
    """Questions about the inputs of a dataset, which fits the subject."""

    dataset: Dataset
    surroundings: Surroundings

    def configuration(self, command: str) -> dict[str, Any]:
        clip = None if self.dataset.clip is None else list(self.dataset.clip)
        about_data = {"data": self.dataset.digest, "clip": clip, **self.surroundings.settings}
        return {**super().configuration(command), **about_data}

    @property
    def size(self) -> int:
        return len(self.dataset)

    def shows(self, records: Sequence[InputRecord], found: Sequence[tuple[np.ndarray, float]], norm: Norm) -> Tensor:
        rows = [record.index for record in records]
        points = torch.from_numpy(np.stack([point for point, _ in found]))
        centres = self.subject.points(self.dataset.inputs[rows], self.surroundings.domain).to(torch.float64)
        distances = torch.tensor([distance for _, distance in found], dtype=torch.float64)
        ball = self.surroundings.region(centres, torch.zeros_like(distances), norm)
        least, greatest = domain_ends(ball.domain, centres)
        exact = points.to(torch.float64)
        within = ((least <= exact) & (exact <= greatest)).flatten(1).all(dim=1)
        within &= ball.distance(points) <= distances
        return within & self.unsafe(points, records)

    def unsafe(self, points: Tensor, records: Sequence[InputRecord]) -> Tensor:
        """Return a mask `(records,)`: whether points are unsafe in the user's model."""
        classes = [record.head.prediction for record in records]
        unsafe = is_unsafe(self.subject.execute(points), classes)
        for i in torch.nonzero(~unsafe).flatten().tolist():
            # Some runtimes round otherwise in a batch; a witness counts as it is alone.
            unsafe[i] = is_unsafe(self.subject.execute(points[i : i + 1]), classes[i : i + 1])[0]
        return unsafe

    @property
    def network(self) -> Network:
        """The network that methods are asked about."""
        return self.subject.network

    @property
    def asks_within(self) -> float | None:
        """What all outputs are asked to stay within of their values; None where the class is asked about."""
        return None

    def together(self, wanted: int) -> int:
        """Return how many inputs are worked on together, where a method takes so many as one batch."""
        return wanted

    def shaped(self, answers: Sequence[Answer]) -> list[Answer]:
        """Return answers of a batch with their witnesses in the shape of the model's input."""
        return list(answers)

    def points(self, rows: range) -> Tensor:
        """Return the inputs as the model takes them: in its dtype, rounded into the domain."""
        return self.subject.points(self.dataset.inputs[rows.start : rows.stop], self.surroundings.domain)

    def inputs(self, rows: range, wanted: Sequence[int]) -> tuple[Tensor, np.ndarray]:
        """Return (points, labels) at some positions of a range, which is read as a whole."""
        places = [row - rows.start for row in wanted]
        return self.points(rows)[places], self.labels(rows)[places]

    def outputs(self, points: Tensor, rows: Sequence[int]) -> np.ndarray:
        """Return the outputs of the user's model at inputs, seen to be those of the graph; rows: their positions."""
        return self.subject.outputs(points, [f"input {row} of the data" for row in rows])

    def predictions(self, points: Tensor, rows: Sequence[int]) -> np.ndarray:
        """Return the class `(batch,)` of the largest output; NO_CLASS where an output is NaN or infinite."""
        return classes_of(self.outputs(points, rows))

    def labels(self, rows: range) -> np.ndarray:
        """Return the labels `(rows,)`."""
        assert self.dataset.labels is not None
        return self.dataset.labels[rows.start : rows.stop].copy()

    def reach(self, norm: Norm) -> float:
        """Return the greatest distance in the domain, rounded up, or in the box of all the data where there is none."""
        values = self.dataset.inputs
        return self.surroundings.reach(float(values.min()), float(values.max()), norm)

    def batch(self, points: Tensor, rows: Sequence[int], classes: np.ndarray, norm: Norm = "inf") -> Batch:
        """Return the batch of some inputs, with seeds that belong to their positions in the data."""
        seeds = tuple(self.seed * 1_000_000_007 + row for row in rows)
        centres = points.to(device=self.subject.device, dtype=torch.float64)
        references = torch.as_tensor(classes).to(self.subject.device)
        domain, units = self.surroundings.domain_of(centres), self.surroundings.units
        return Batch(
            self.subject, centres, references, seeds, domain, self.reach(norm), norm,
            scale=None if units is None else units.to(centres.device),
        )  # fmt: skip

    def groups(self, plain: Batch, stated: Sequence[tuple[float, ...]]) -> list[Group]:
        """Return the inputs of a batch as batches that are each about one network: by default that one.

        stated: for each input the errors of executions in its record.
        """
        return [Group(tuple(range(len(plain))), plain)]

    def limited(self, answer: Answer) -> Answer:
        """Return what an answer says of the balls that it may speak of: by default of all."""
        return answer

    def head(self, row: int, label: int, prediction: int, seconds: float) -> InputHead:
        """Return what every record of an input starts with."""
        shared = self.described(row, seconds)
        return InputHead(**shared, label=int(label), prediction=int(prediction), data=self.dataset.digest)

    def heads(self, rows: range, wanted: Sequence[int]) -> list[InputHead]:
        """Return what records say of inputs at some positions of a range on which nothing else was done."""
        if not wanted:
            return []
        points, labels = self.inputs(rows, wanted)
        predictions = self.predictions(points, wanted)
        return [self.head(row, label, p, 0.0) for row, label, p in zip(wanted, labels, predictions, strict=True)]

    def warnings(self, correct: int, inputs: int) -> tuple[str, ...]:
        """Return the warnings about the data, and one where fewer inputs are right than twice chance would be."""
        if correct >= 2 * inputs / self.subject.classes:
            return self.dataset.warnings
        return (
            *self.dataset.warnings,
            f"accuracy is {correct / inputs:.1%} on {inputs} inputs of {self.subject.classes} "
            f"classes: scale or layout of the data probably do not match the model ({self.dataset.note})",
        )


def load_job(request: Request, command: str) -> DataJob:
    """Return the job of a command; raise ValueError with what does not fit and what to do."""
    return DataJob(**job_fields(request, *classified(request, command)))


def classified(request: Request, command: str) -> tuple[Subject, Dataset]:
    """Return a classifier and data with labels that fit it; raise ValueError with what does not."""
    subject, dataset = fitted(request, load_subject)
    if dataset.labels is None:
        raise ValueError(f"{dataset.name} has no labels y; {command} counts correctly classified inputs and needs them")
    check_labels(dataset, subject.classes)
    return subject, dataset


def fitted(request: Request, load: Callable[..., Subject], classes: bool = True) -> tuple[Subject, Dataset]:
    """Return the model, loaded so, and data that fit it; without classes labels are not read."""
    dataset = as_dataset(
        request.data, data_dir=request.data_dir, clip=request.clip, limits=request.limits, split=request.split,
        label=request.label, classes=classes,
    )  # fmt: skip
    shape = dataset.channels_first_shape(request.layout) if isinstance(request.model, nn.Module) else None
    subject = load(
        request.model, input_shape=shape, device=request.device, mean=request.mean, std=request.std,
        limits=request.limits,
    )  # fmt: skip
    return subject, dataset.fit_to(subject.network.input_shape, request.layout)


def job_fields(request: Request, subject: Subject, dataset: Dataset) -> dict[str, Any]:
    """Return the fields of a job, the model seen to be its graph at the inputs and in their domain."""
    indices = dataset.indices(request.limit, request.offset)
    surroundings = asked_surroundings(request, dataset, subject)
    sample = dataset.inputs[indices.start : indices.start + INPUTS]
    subject = subject.probed(subject.points(sample, surroundings.domain), surroundings.domain)
    return {
        "subject": subject, "dataset": described(dataset, surroundings), "seed": request.seed, "indices": indices,
        "origin": origin_of(request), "surroundings": surroundings,
    }  # fmt: skip


@contextlib.contextmanager
def opened(
    out: str | Path | None, configuration: dict[str, Any], job: Job, about: Mapping[str, Any]
) -> Iterator[Run | None]:
    """Open the run folder: `out`, for "auto" runs/<command>-<digest>, for None no folder.

    The digest is that of the configuration, of what the job is about beside it, and of `about`.
    """
    if out is None:
        yield None
        return
    folder = Path(out)
    if out == "auto":
        text = json.dumps({**configuration, **job.about, **about}, sort_keys=True)
        folder = Path("runs") / f"{configuration['command']}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
    with open_run(folder, configuration, job.origin) as run:
        yield run


def is_unsafe(outputs: np.ndarray, classes: Sequence[int]) -> Tensor:
    """Return a mask: whether another class has at least the value of the given one."""
    known = torch.tensor([0 <= k < outputs.shape[1] for k in classes])
    own = np.clip(np.array(classes), 0, outputs.shape[1] - 1)
    rows = np.arange(len(outputs))
    others = outputs.copy()
    others[rows, own] = -np.inf
    return known & torch.from_numpy(others.max(axis=1) >= outputs[rows, own])


@functools.cache
def _versions() -> dict[str, str]:
    from importlib.metadata import version

    return {name: version(name) for name in ("robustness-verifier", "torch", "numpy")}
