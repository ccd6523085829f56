"""One command's work on a model and data: both loaded and checked against each other, and cut into batches.

`load_job` raises before any work starts; `opened` gives the run folder that keeps the answers. What is asked about
the inputs is the command's business.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from encoders.region import Norm
from verifier.agreement import INPUTS
from verifier.batch import BATCH_SIZE, Batch
from verifier.commands.request import Request
from verifier.data import Dataset, as_dataset, check_labels
from verifier.runs.folder import Run, open_run
from verifier.runs.records import Head
from verifier.subject import Subject, classes_of, load_subject
from verifier.threads import threads_for


@dataclasses.dataclass(frozen=True, eq=False)
class Job:
    """A subject, a dataset with labels that fits it, the seed of all randomness, and the positions asked about.

    origin: where model and data came from, for whoever checks the run later; nothing where they were objects.
    """

    subject: Subject
    dataset: Dataset
    seed: int
    indices: range
    origin: dict[str, Any] = dataclasses.field(default_factory=dict)

    def configuration(self, command: str) -> dict[str, Any]:
        """Return what identifies a run of the command: everything that changes an answer about one input."""
        clip = None if self.dataset.clip is None else list(self.dataset.clip)
        return {
            "command": command, "model": self.subject.network.digest, "data": self.dataset.digest, "seed": self.seed,
            "clip": clip,
        }  # fmt: skip

    def batches(self, size: int = BATCH_SIZE) -> Iterator[range]:
        """Yield the parts of the indices between multiples of the size."""
        start = self.indices.start
        while start < self.indices.stop:
            stop = min(self.indices.stop, (start // size + 1) * size)
            yield range(start, stop)
            start = stop

    def threads(self) -> contextlib.AbstractContextManager[None]:
        """Return a context that uses as many threads as the work of a batch is worth."""
        return threads_for(self.subject.network.parameter_count * min(BATCH_SIZE, len(self.indices)))

    def points(self, rows: range) -> Tensor:
        """Return the inputs as the model takes them: in its dtype, rounded into the domain."""
        return self.subject.points(self.dataset.inputs[rows.start : rows.stop], self.dataset.clip)

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
        least, greatest = self.dataset.clip or (float(values.min()), float(values.max()))
        count = values[0].size
        factor = {"inf": 1.0, "2": math.sqrt(count), "1": float(count)}[norm]
        if norm == "inf":
            width = greatest - least
            exact = Fraction(width) >= Fraction(greatest) - Fraction(least)
            return width if exact else math.nextafter(width, math.inf)
        return math.nextafter(math.nextafter((greatest - least) * factor, math.inf), math.inf)

    def batch(self, points: Tensor, rows: Sequence[int], classes: np.ndarray, norm: Norm = "inf") -> Batch:
        """Return the batch of some inputs, with seeds that belong to their positions in the data."""
        seeds = tuple(self.seed * 1_000_000_007 + row for row in rows)
        centres = points.to(device=self.subject.device, dtype=torch.float64)
        references = torch.as_tensor(classes).to(self.subject.device)
        return Batch(self.subject, centres, references, seeds, self.dataset.clip, self.reach(norm), norm)

    def head(self, row: int, label: int, prediction: int, seconds: float) -> Head:
        """Return what every record of an input starts with."""
        digests = {"model": self.subject.network.digest, "data": self.dataset.digest}
        return Head(
            index=row, label=int(label), prediction=int(prediction), seconds=seconds, versions=_versions(), **digests
        )

    def warnings(self, correct: int, inputs: int) -> tuple[str, ...]:
        """Return the warnings about the data, and one where fewer inputs are right than twice chance would be."""
        if correct >= 2 * inputs / self.subject.classes:
            return self.dataset.warnings
        return (
            *self.dataset.warnings,
            f"accuracy is {correct / inputs:.1%} on {inputs} inputs of {self.subject.classes} "
            f"classes: scale or layout of the data probably do not match the model ({self.dataset.note})",
        )


def load_job(request: Request, command: str) -> Job:
    """Return the job of a command; raise ValueError with what does not fit and what to do."""
    dataset = as_dataset(request.data, data_dir=request.data_dir, clip=request.clip, limits=request.limits)
    shape = dataset.channels_first_shape(request.layout) if isinstance(request.model, nn.Module) else None
    subject = load_subject(
        request.model, input_shape=shape, device=request.device, mean=request.mean, std=request.std,
        limits=request.limits,
    )  # fmt: skip
    dataset = dataset.fit_to(subject.network.input_shape, request.layout)
    if dataset.labels is None:
        raise ValueError(f"{dataset.name} has no labels y; {command} counts correctly classified inputs and needs them")
    check_labels(dataset, subject.classes)
    indices = dataset.indices(request.limit, request.offset)
    sample = dataset.inputs[indices.start : indices.start + INPUTS]
    subject = subject.probed(subject.points(sample, dataset.clip), dataset.clip)
    return Job(subject, dataset, request.seed, indices, _origin(request))


@contextlib.contextmanager
def opened(
    out: str | Path | None, configuration: dict[str, Any], origin: dict[str, Any] | None = None
) -> Iterator[Run | None]:
    """Open the run folder: `out`, for "auto" runs/<command>-<digest of the configuration>, for None no folder."""
    if out is None:
        yield None
        return
    folder = Path(out)
    if out == "auto":
        text = json.dumps(configuration, sort_keys=True)
        folder = Path("runs") / f"{configuration['command']}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
    with open_run(folder, configuration, origin) as run:
        yield run


def _origin(request: Request) -> dict[str, Any]:
    """Return the arguments that load the model and the data again; files by their full paths."""
    origin: dict[str, Any] = {"mean": list(request.mean), "std": list(request.std), "layout": request.layout}
    places = {name: getattr(request, name) for name in ("model", "data")}
    for name, place in places.items():
        if isinstance(place, str | Path):
            origin[name] = str(Path(place).resolve()) if Path(place).exists() else str(place)
    if "data" in origin:
        origin["data_dir"] = None if request.data_dir is None else str(Path(request.data_dir).resolve())
    return origin


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    return {name: version(name) for name in ("robustness-verifier", "torch", "numpy")}
