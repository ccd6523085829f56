"""Regression: whether every output stays within less than delta of its value at the input, input by input.

The question is that of `encoders.questions.output_changes_less_than`: class 0 of a network of margins, of the model and
of a second copy of it fixed at the input, wins at a point exactly if no output changes by delta or more. Its inputs are
those of the model in one axis. In proofs both values are of real arithmetic, in witnesses those of the user's model,
too.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from encoders.network import Network
from encoders.questions import MODEL, output_changes_less_than
from encoders.region import Norm
from verifier.answers import Answer
from verifier.batch import Batch
from verifier.certificates.counterexample import ClaimError
from verifier.commands.claims import Claims
from verifier.commands.job import DataJob, fitted, is_unsafe, job_fields
from verifier.commands.request import Request
from verifier.joint_subject import joined
from verifier.properties import ask
from verifier.runs.records import InputRecord
from verifier.subject import NO_CLASS, Subject, load_model
from verifier.surroundings import Surroundings

# The class that wins where no output changes by delta or more: the label of every input.
WITHIN = 0


def changes(subject: Subject, centre: Tensor, delta: float) -> Subject:
    """Return the subject that asks about changes from an input `(*input_shape)`, in numbers of the model's dtype."""
    outputs = int(np.prod(subject.network.output_shape, dtype=int))
    asked = output_changes_less_than(centre, 0.0, delta, outputs)
    assert asked.joint is not None
    return ask(joined({MODEL: subject}, asked.joint), asked, 0).batch.subject


def flattened(surroundings: Surroundings) -> Surroundings:
    """Return the surroundings of inputs in one axis."""
    ends, scale = surroundings.ends, surroundings.scale
    return dataclasses.replace(
        surroundings,
        shape=(surroundings.held.numel(),),
        ends=None if ends is None else ends.flatten(1),
        scale=None if scale is None else scale.flatten(),
    )


def judged(outputs: np.ndarray) -> np.ndarray:
    """Return the class `(batch,)` of inputs at themselves: NO_CLASS where an output is NaN or infinite."""
    return np.where(np.isfinite(outputs).reshape(len(outputs), -1).all(axis=1), WITHIN, NO_CLASS)


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class ChangeJob(DataJob):
    """Questions about the changes of outputs, one input at a time; the data need no labels."""

    delta: float

    def configuration(self, command: str) -> dict[str, Any]:
        return {**super().configuration(command), "delta": self.delta}

    def labels(self, rows: range) -> np.ndarray:
        return np.full(len(rows), WITHIN, dtype=np.int64)

    def predictions(self, points: Tensor, rows: Sequence[int]) -> np.ndarray:
        return judged(self.outputs(points, rows))

    def batch(self, points: Tensor, rows: Sequence[int], classes: np.ndarray, norm: Norm = "inf") -> Batch:
        (point,) = points
        plain = super().batch(points, rows, classes, norm)
        around = flattened(self.surroundings)
        centres, units = plain.centres.flatten(1), around.units
        return dataclasses.replace(
            plain, subject=changes(self.subject, point, self.delta), centres=centres, domain=around.domain_of(centres),
            scale=None if units is None else units.to(centres.device),
        )  # fmt: skip

    def shaped(self, answers: Sequence[Answer]) -> list[Answer]:
        found = []
        for answer in answers:
            witness = answer.witness
            if witness is not None:
                point = witness.point.reshape(self.subject.network.input_shape)
                answer = dataclasses.replace(answer, witness=dataclasses.replace(witness, point=point))
            found.append(answer)
        return found

    def unsafe(self, points: Tensor, records: Sequence[InputRecord]) -> Tensor:
        centres = self.subject.points(
            self.dataset.inputs[[record.index for record in records]], self.surroundings.domain
        )
        pairs = zip(centres, points.flatten(1).split(1), strict=True)
        shown = [is_unsafe(changes(self.subject, c, self.delta).execute(point), [WITHIN]) for c, point in pairs]
        return torch.cat(shown)

    @property
    def asks_within(self) -> float | None:
        return self.delta

    def together(self, wanted: int) -> int:
        return 1

    @property
    def network(self) -> Network:
        """The network of margins of the first input: what methods are asked about."""
        (point,) = self.points(self.indices[:1])
        return changes(self.subject, point, self.delta).network

    def warnings(self, correct: int, inputs: int) -> tuple[str, ...]:
        return self.dataset.warnings


def load_change_job(request: Request, delta: float) -> ChangeJob:
    """Return the job of a model of any outputs; raise ValueError with what does not fit and what to do."""
    if not 0 < delta < math.inf:
        raise ValueError(f"delta must be a finite number above 0, got {delta}")
    subject, dataset = fitted(request, load_model, classes=False)
    return ChangeJob(**job_fields(request, subject, dataset), delta=float(delta))


@dataclasses.dataclass(frozen=True, eq=False)
class ChangeClaims(Claims):
    """What a run about changes of outputs claims."""

    def check_record(self, index: int, record: InputRecord) -> None:
        if index >= len(self.dataset):
            raise ClaimError("the data end before it")
        outputs = self.subject.outputs(self._point(index), ["an input of the run"])
        if record.head.label != WITHIN or record.head.prediction != int(judged(outputs)[0]):
            raise ClaimError("its label or its prediction are not those of a question about changes")

    def asked(self, record: InputRecord) -> Subject:
        return changes(self.subject, self._point(record.index)[0], float(self.configuration["delta"]))

    def _centre(self, index: int) -> np.ndarray:
        return super()._centre(index).reshape(-1)

    def _around_of(self) -> Surroundings:
        return flattened(self.surroundings)
