"""Robustness of a saved model: brackets for its inputs, counted at each requested radius.

`certify` ties the parts together: model, data, method, run folder. It holds no mathematics.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Unpack

import numpy as np

from encoders.region import Norm
from verifier.answers import Answer
from verifier.batch import Batch
from verifier.bounds.split.certify import certificate_of
from verifier.budget import Budget
from verifier.certificates.certificate import Certificate
from verifier.certificates.files import write_certificate
from verifier.commands.job import Job, load_job
from verifier.commands.loop import Known, Witnesses, run_task
from verifier.commands.request import Data, Model, Options, Request
from verifier.commands.resuming import answer_of, arrays_of, notices_of
from verifier.methods import find_method
from verifier.methods.suitable import check_method
from verifier.metrics import RobustnessAt
from verifier.runs.records import SCHEMA, bracket_of
from verifier.summaries.certify import certified
from verifier.verdict import Bracket, Outcome


@dataclasses.dataclass(frozen=True)
class CertifyResult:
    """What `certify` returns.

    model, digest: the name of the model, and what identifies its network.
    inputs, correct: how many were asked about, and of these classified correctly.
    seconds: of the whole command.
    records: the run's records.jsonl; None where nothing was kept.
    results: the counts at each radius, rising.
    brackets: of the correctly classified inputs, by index in the data.
    warnings: what was damaged or looks wrong, in sentences.
    data: how the inputs were scaled, reshaped and clipped.
    """

    model: str
    digest: str
    inputs: int
    correct: int
    seconds: float
    records: Path | None
    results: tuple[RobustnessAt, ...]
    brackets: dict[int, Bracket]
    warnings: tuple[str, ...]
    data: str = ""
    norm: Norm = "inf"

    def to_json(self) -> dict[str, Any]:
        """Return the object that `--json` prints."""
        return {
            "schema": SCHEMA,
            "command": "certify",
            "model": self.model,
            "digest": self.digest,
            "data": self.data,
            "inputs": self.inputs,
            "correct": self.correct,
            "seconds": self.seconds,
            "records": None if self.records is None else str(self.records),
            "results": [dataclasses.asdict(result) for result in self.results],
            "warnings": list(self.warnings),
        }


def certify(
    model: Model,
    data: Data,
    epsilons: Sequence[float],
    *,
    method: str = "auto",
    certificates: bool | None = None,
    **options: Unpack[Options],
) -> CertifyResult:
    """Return how robust a classifier provably is, and how far attacks break it, at each radius.

    model, data, options: as `Request` says.
    epsilons: radii of the closed balls, in the units of the network's raw input.
    method: of the table `verifier.methods.METHODS`.
    certificates: whether the run keeps one for every proof, which `check` evaluates again; None: with method exact.

    certified counts are proofs in real arithmetic on the stored weights (strength checked or computed); falsified
    inputs have a witness that was replayed in the user's model and is unsafe in real arithmetic; what only a solver
    vouches for is open, and counted as trusted beside. Raises ValueError with what is wrong before any work starts, and
    where graph and model disagree.
    """
    started = time.perf_counter()
    question, radii = Request(model, data, **options), _check_radii(epsilons)
    norm = question.norm
    prover = find_method(method, norm)
    job = load_job(question, "certify")
    check_method(method, job.subject.network, norm)
    if certificates and norm != "inf":
        raise ValueError(f"certificates are of the inf-norm, not of the {norm}-norm; leave out --certificates")
    keep = (
        question.out is not None
        and norm == "inf"
        and (prover.name == "exact" if certificates is None else certificates)
    )
    task = _Certification(job, radii, prover.name, norm, question.time_limit, keep)
    return run_task(task, "certify", question, started)


@dataclasses.dataclass(frozen=True, eq=False)
class _Certification:
    """The task of `certify`."""

    job: Job
    epsilons: tuple[float, ...]
    method: str
    norm: Norm
    seconds_per_input: float
    certificates: bool
    asks_witnesses: ClassVar[bool] = False

    @property
    def configuration(self) -> dict[str, Any]:
        return {"method": self.method, "norm": self.norm}

    @property
    def batch_size(self) -> int:
        return find_method(self.method, self.norm).batch_size

    def complete(self, record: dict[str, Any] | None) -> bool:
        """Return whether a record answers every requested radius, or records that it was tried in vain."""
        if record is None:
            return False
        if not record["correct"]:
            return True
        bracket = bracket_of(record)
        if self.certificates and bracket.lower >= 0 and not (record.get("certificate") or record.get("no_certificate")):
            return False
        return all(e in record["tried"] or bracket.at(e) is not Outcome.OPEN for e in self.epsilons)

    def work(self, rows: range, known: Known) -> tuple[list[dict[str, Any]], Witnesses]:
        """Return (records, witnesses) of the rows that are not complete yet; write their certificates."""
        started = time.perf_counter()
        points = self.job.points(rows)
        labels = self.job.labels(rows)
        predictions = self.job.predictions(points, rows)
        correct = np.flatnonzero(predictions == labels)
        records = known.records
        answers = [answer_of(records.get(rows[i])) for i in correct]
        budget = Budget(self.seconds_per_input * max(1, len(correct)))
        batch: Batch | None = None
        if len(correct):
            batch = self.job.batch(points[correct], [rows[i] for i in correct], labels[correct], self.norm)
            answers = find_method(self.method, self.norm).bracket(batch, self.epsilons, answers, budget)
        seconds = (time.perf_counter() - started) / len(rows)
        positions = {int(i): position for position, i in enumerate(correct)}
        fresh: list[dict[str, Any]] = []
        for i, row in enumerate(rows):
            if self.complete(records.get(row)):
                continue
            record = self.job.record(row, int(labels[i]), int(predictions[i]), seconds)
            if i in positions:
                answer = answers[positions[i]]
                record |= self._knowledge(answer, records.get(row), budget.exhausted)
                if self.certificates and batch is not None and known.run is not None:
                    one = batch.one(positions[i])
                    record |= self._certificate(one, answer, row, records.get(row), known.run.certificates)
            fresh.append(record)
        return fresh, arrays_of([rows[i] for i in correct], answers)

    def summarise(self, records: Sequence[dict[str, Any]], known: Known, seconds: float) -> CertifyResult:
        """Return the counts over the records of the requested inputs."""
        brackets = {record["index"]: bracket_of(record) for record in records if record["correct"]}
        return CertifyResult(
            model=self.job.subject.name,
            digest=self.job.subject.network.digest,
            data=self.job.dataset.note,
            norm=self.norm,
            inputs=len(records),
            correct=len(brackets),
            seconds=seconds,
            records=None if known.run is None else known.run.records_path,
            results=certified(records, self.epsilons),
            brackets=brackets,
            warnings=(*notices_of(known.run), *self.job.warnings(len(brackets), len(records))),
        )

    def _knowledge(self, answer: Answer, known: dict[str, Any] | None, timed_out: bool) -> dict[str, Any]:
        bracket, witness, before = answer.bracket, answer.witness, known or {}
        undecided = [epsilon for epsilon in self.epsilons if bracket.at(epsilon) is Outcome.OPEN]
        # Where a solver has spoken the method has done what it can, though its word certifies nothing.
        is_open = any(not bracket.only_trusted_at(epsilon) for epsilon in undecided)
        word = f"safe by the word of a solver alone ({bracket.trusted_method})"
        why = "time limit" if answer.reason is None and timed_out else answer.reason
        # What the clock stopped was not tried: the same command takes it up again.
        tried = set(before.get("tried", ())) | (set() if timed_out and is_open else set(self.epsilons))
        return {
            **bracket.to_record(),
            "refuted": answer.refuted,
            "open_units": answer.open_units,
            "tie": witness.tie if witness is not None else before.get("tie", False),
            "execution_only": answer.execution_only,
            "tried": sorted(tried),
            "reason": (why if is_open else word) if undecided else None,
        }

    def _certificate(
        self, one: Batch, answer: Answer, row: int, known: dict[str, Any] | None, folder: Path
    ) -> dict[str, Any]:
        """Return what the record says of the certificate of an input's lower end, which is written first."""
        lower = answer.bracket.lower
        if lower < 0:
            return {}
        before = known or {}
        if bracket_of(before).lower == lower if "lower" in before else False:
            kept = {name: before[name] for name in ("certificate", "no_certificate") if before.get(name)}
            if kept:
                return kept
        certificate: Certificate | str | None = answer.certificate
        if certificate is None:
            certificate = certificate_of(one, lower, Budget(self.seconds_per_input))
        if isinstance(certificate, str):
            return {"no_certificate": certificate}
        return {"certificate": write_certificate(certificate, folder, row)}


def _check_radii(epsilons: Sequence[float]) -> tuple[float, ...]:
    radii = tuple(float(epsilon) for epsilon in epsilons)
    if not radii:
        raise ValueError("no epsilon was given")
    for radius in radii:
        if not math.isfinite(radius) or radius < 0:
            raise ValueError(f"epsilon must be a finite number that is not negative, got {radius}")
    return tuple(sorted(set(radii)))
