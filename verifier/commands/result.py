"""What the verbs that ask about inputs return: what their results share, and its JSON."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from verifier.commands.job import DataJob
from verifier.runs.folder import Run
from verifier.runs.records import SCHEMA, InputRecord


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class VerbResult:
    """What `certify`, `attack`, `robustness` and `compare` return, each with more of its own.

    model, digest: the name of the model, and what identifies its network.
    data: how the inputs were scaled, reshaped and clipped.
    classes: how the outputs are read as classes, in a sentence; empty where they are scores as they stand.
    about: what a randomised network was asked about, in a sentence; empty where nothing is random.
    inputs, correct: how many were asked about, and of these classified correctly.
    seconds: of the whole command.
    records: the run's records.jsonl; None where nothing was kept.
    warnings: what was damaged or looks wrong, in sentences.
    """

    command: ClassVar[str]

    model: str
    digest: str
    data: str
    classes: str
    about: str
    inputs: int
    correct: int
    seconds: float
    records: Path | None
    warnings: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the object that `--json` prints."""
        return {
            "schema": SCHEMA, "command": self.command, "model": self.model, "digest": self.digest, "data": self.data,
            "classes": self.classes, "about": self.about, "inputs": self.inputs, "correct": self.correct,
            "seconds": self.seconds, "warnings": list(self.warnings),
            "records": None if self.records is None else str(self.records),
        }  # fmt: skip


def shared_fields(job: DataJob, run: Run | None, records: Sequence[InputRecord], seconds: float) -> dict[str, Any]:
    """Return the fields of `VerbResult`, from a job and the records of its inputs."""
    inputs, correct = len(records), sum(record.correct for record in records)
    return {
        "model": job.subject.name, "digest": job.subject.digest, "data": job.dataset.note,
        "classes": job.subject.note, "about": job.subject.about, "inputs": inputs, "correct": correct,
        "seconds": seconds,
        "records": None if run is None else run.records_path,
        "warnings": (*(() if run is None else run.notices), *job.warnings(correct, inputs)),
    }  # fmt: skip
