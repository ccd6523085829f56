"""Robustness of a saved model: brackets for its inputs, counted at each requested radius.

`certify` ties the parts together: model, data, method, run folder. It holds no mathematics.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar, Unpack

import numpy as np
from torch import Tensor

from encoders.region import Norm
from verifier.answers import Answer
from verifier.batch import Batch, Group
from verifier.bounds.certify import certificate_of
from verifier.budget import Budget
from verifier.certificates.certificate import Certificate
from verifier.commands.changes import load_change_job
from verifier.commands.executed import REAL, ExecutedJob, load_executed_job
from verifier.commands.job import DataJob, load_job
from verifier.commands.loop import run_order
from verifier.commands.request import Data, Model, Options, Request, checked_radii
from verifier.commands.result import VerbResult, shared_fields
from verifier.commands.resuming import arrays_of, because
from verifier.commands.task import Known, Order
from verifier.devices.parts import why_stopped
from verifier.methods import find_method
from verifier.methods.grouped import by_groups
from verifier.methods.in_memory import bracketed
from verifier.methods.suitable import check_method
from verifier.metrics import RobustnessAt
from verifier.runs.certify_record import CertifyRecord
from verifier.runs.stored_answer import kept
from verifier.runs.witness_files import Witnesses
from verifier.summaries.certify import CertificateCounts, certificate_counts, certified
from verifier.summaries.spending import StageTotal, totals
from verifier.verdict import Bracket, Outcome


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class CertifyResult(VerbResult):
    """What `certify` returns.

    results: the counts at each radius, rising.
    brackets: of the correctly classified inputs, by index in the data.
    spent: by the stages of several methods. certificates: how many proofs have one, where the run keeps them.
    norm: of the balls. delta: what outputs were asked to stay within; None where it was about classes.
    draws_within: in deviations, how far weights of the draws asked about lie from their means; None: not about draws.
    share_of_draws: the probability that a draw is one of them. arithmetic: whose executions are meant; None: real ones.
    """

    command: ClassVar[str] = "certify"

    results: tuple[RobustnessAt, ...]
    brackets: dict[int, Bracket]
    norm: Norm
    spent: tuple[StageTotal, ...]
    delta: float | None = None
    draws_within: float | None = None
    share_of_draws: float | None = None
    arithmetic: str | None = None
    certificates: CertificateCounts | None = None

    def to_json(self) -> dict[str, Any]:
        optional = {name: getattr(self, name) for name in ("delta", "draws_within", "share_of_draws", "arithmetic")}
        asked = {name: value for name, value in optional.items() if value is not None}
        rows, spent = ([dataclasses.asdict(each) for each in part] for part in (self.results, self.spent))
        return {**super().to_json(), **asked, "results": rows, "spent": spent}


def certify(
    model: Model,
    data: Data,
    epsilons: Sequence[float],
    *,
    method: str = "auto",
    certificates: bool | None = None,
    delta: float | None = None,
    draws_within: float | None = None,
    arithmetic: str = REAL,
    **options: Unpack[Options],
) -> CertifyResult:
    """Return how robust a classifier provably is, and how far attacks break it, at each radius.

    model, data, options: as `Request` says. epsilons: radii of the closed balls, in units of the network's raw input.
    method: of the table `verifier.methods.METHODS`.
    delta: ask of every input instead whether all outputs stay less than this from their values there, of any model.
    draws_within: prove it of a randomised network for every draw whose weights all lie within so many deviations of
    their means, instead of for its mean; a falsified input has a witness in the mean, which is one of these draws.
    arithmetic: "real", or that of the model, float32 say: no execution in it may change the class (`executed`).
    certificates: whether the run keeps one for every proof, which `check` evaluates again; None: with method exact.

    certified counts are proofs in real arithmetic on the stored weights (strength checked or computed); falsified
    inputs have a witness that was replayed in the user's model and is unsafe in real arithmetic; what only a solver
    vouches for is open, and counted as trusted beside. Raises ValueError with what is wrong before any work starts, and
    where graph and model disagree.
    """
    asked: dict[str, Any] = {"method": method, "certificates": certificates, "delta": delta}
    asked |= {"draws_within": draws_within, "arithmetic": arithmetic, **options}
    return run_order(Order("certify", _certification, (model, data, epsilons), asked))


def _certification(
    model: Model,
    data: Data,
    epsilons: Sequence[float],
    *,
    method: str,
    certificates: bool | None,
    delta: float | None,
    draws_within: float | None,
    arithmetic: str,
    **options: Unpack[Options],
) -> _Certification:
    """Return the task of what `certify` was asked."""
    question, radii = Request(model, data, **options), checked_radii(epsilons)
    norm = question.norm
    prover = find_method(method, norm)
    job = _over_draws(_job(question, radii, delta, arithmetic), draws_within, certificates)
    check_method(method, job.network, norm, question.scale is not None)
    wanted = prover.name == "exact" if certificates is None else certificates
    kept = question.out is not None and wanted
    return _Certification(job, question, radii, prover.name, norm, kept)


def _over_draws(job: DataJob, deviations: float | None, certificates: bool | None) -> DataJob:
    """Return the job about all draws within so many deviations, if any; ValueError where that is not supported."""
    if deviations is None:
        return job
    if isinstance(job, ExecutedJob):
        raise ValueError("--draws-within is asked in real arithmetic: leave out --arithmetic")
    if job.asks_within is not None:
        raise ValueError("--draws-within is about the class, not about changes of outputs: leave out --delta")
    if certificates:
        raise ValueError("proofs about draws of a randomised network have no certificates: leave out --certificates")
    return replace(job, subject=job.subject.over_draws(deviations))


@dataclasses.dataclass(frozen=True, eq=False)
class _Certification:
    """The task of `certify`."""

    job: DataJob
    options: Request
    epsilons: tuple[float, ...]
    method: str
    norm: Norm
    certificates: bool
    asks_witnesses: ClassVar[bool] = False
    ends_early: ClassVar[bool] = True

    @property
    def configuration(self) -> dict[str, Any]:
        return {"method": self.method, "norm": self.norm}

    @property
    def limits_each(self) -> int:
        return 2 if self.certificates else 1

    @property
    def batch_size(self) -> int:
        subject = self.job.subject
        return self.job.together(find_method(self.method, self.norm).batch_for(subject.network, subject.device))

    def complete(self, record: CertifyRecord | None) -> bool:
        """Return whether a record answers every requested radius, or records that it was tried in vain."""
        if record is None or not record.correct:
            return record is not None
        bracket = record.answer.bracket
        if self.certificates and bracket.lower >= 0 and not record.says_of_certificate:
            return False
        return all(e in record.tried or bracket.at(e) is not Outcome.OPEN for e in self.epsilons)

    def work(self, rows: range, known: Known[CertifyRecord]) -> tuple[list[CertifyRecord], Witnesses]:
        """Return (records, witnesses) of the rows that are not complete yet; write their certificates."""
        started = time.perf_counter()
        points, labels = self.job.points(rows), self.job.labels(rows)
        predictions = self.job.predictions(points, rows)
        correct = np.flatnonzero(predictions == labels)
        asked = [rows[i] for i in correct]
        budget = Budget(self.options.time_limit * max(1, len(asked)), watch=known.watch)
        answers, placed = self._answers(points[correct], asked, labels[correct], known, budget)
        seconds = (time.perf_counter() - started) / len(rows)
        fresh = []
        for row, label, prediction in zip(rows, labels, predictions, strict=True):
            before = known.records.get(row)
            if self.complete(before):
                continue
            record = CertifyRecord(head=self.job.head(row, label, prediction, seconds))
            if row in placed:
                answer, group, place = placed[row]
                stopped = why_stopped(answer.reason, budget.why)
                record = replace(self._answered(record, answer, before, stopped), errors=group.errors)
                if self.certificates and known.run is not None:
                    record = self._with_certificate(record, group.batch.one(place), answer, before, known)
            fresh.append(record)
        return fresh, arrays_of(asked, self.job.shaped(answers))

    def _answers(
        self, points: Tensor, rows: list[int], labels: np.ndarray, known: Known[CertifyRecord], budget: Budget
    ) -> tuple[list[Answer], dict[int, tuple[Answer, Group, int]]]:
        """Return (answers about rows, by row: its answer, the group that it was asked in, and its place there)."""
        if not rows:
            return [], {}
        before = [known.records.get(row) for row in rows]
        plain = self.job.batch(points, rows, labels, self.norm)
        groups = self.job.groups(plain, [() if record is None else record.errors for record in before])
        method = by_groups(find_method(self.method, self.norm), groups, plain)
        answers = [Answer() if record is None else record.answer for record in before]
        for group in groups:
            for place in group.places:
                if (record := before[place]) is not None and tuple(record.errors) != tuple(group.errors):
                    # What was proved allowed for errors that are not enough.
                    answers[place] = answers[place].unproved()
        answers = [self.job.limited(answer) for answer in bracketed(method, plain, self.epsilons, answers, budget)]
        places = {place: (group, number) for group in groups for number, place in enumerate(group.places)}
        return answers, {row: (answers[place], *places[place]) for place, row in enumerate(rows)}

    def left_open(self, rows: range, known: Known[CertifyRecord], reason: str, timed_out: bool) -> list[CertifyRecord]:
        heads = self.job.heads(rows, [row for row in rows if not self.complete(known.records.get(row))])
        return [because(known.records.get(head.index) or CertifyRecord(head=head), reason) for head in heads]

    def summarise(self, records: Sequence[CertifyRecord], known: Known[CertifyRecord], seconds: float) -> CertifyResult:
        """Return the counts over the records of the requested inputs."""
        brackets = {record.index: record.answer.bracket for record in records if record.correct}
        return CertifyResult(
            **shared_fields(self.job, known.run, records, seconds),
            norm=self.norm,
            delta=self.job.asks_within,
            draws_within=self.job.subject.draws_within,
            share_of_draws=self.job.subject.share_of_draws,
            arithmetic=self.job.configuration("certify").get("arithmetic"),
            results=certified(records, self.epsilons),
            brackets=brackets,
            spent=totals(record.spent for record in records),
            certificates=certificate_counts(records) if self.certificates else None,
        )

    def _answered(
        self, record: CertifyRecord, answer: Answer, before: CertifyRecord | None, stopped: str | None
    ) -> CertifyRecord:
        """Return the record with what is known now; before: what was known at the start."""
        bracket = answer.bracket
        undecided = [epsilon for epsilon in self.epsilons if bracket.at(epsilon) is Outcome.OPEN]
        # Where a solver has spoken the method has done what it can, though its word certifies nothing.
        is_open = any(not bracket.only_trusted_at(epsilon) for epsilon in undecided)
        word = f"safe by the word of a solver alone ({bracket.trusted_method})"
        # What was stopped was not tried: the same command takes it up again.
        tried = {*(before.tried if before is not None else ()), *(() if stopped and is_open else self.epsilons)}
        return replace(
            record,
            answer=kept(answer),
            tie=(before is not None and before.tie) if answer.witness is None else answer.witness.tie,
            tried=tuple(sorted(tried)),
            reason=(answer.reason or stopped if is_open else word) if undecided else None,
            spent=(*(() if before is None else before.spent), *answer.spent),
        )

    @staticmethod
    def _same_claim(before: CertifyRecord, record: CertifyRecord) -> bool:
        return before.answer.bracket.lower == record.answer.bracket.lower and before.errors == record.errors

    def _with_certificate(
        self,
        record: CertifyRecord,
        one: Batch,
        answer: Answer,
        before: CertifyRecord | None,
        known: Known[CertifyRecord],
    ) -> CertifyRecord:
        """Return the record with the certificate of its lower end, which is written first."""
        lower, watch = answer.bracket.lower, known.watch
        if lower < 0 or known.run is None:
            return record
        if before is not None and self._same_claim(before, record) and before.says_of_certificate:
            return replace(record, certificate=before.certificate, no_certificate=before.no_certificate)
        certificate: Certificate | str | None = answer.certificate
        if certificate is None:
            if watch.stopped.is_set():
                # The same command makes it.
                return record
            budget = Budget(self.options.time_limit, watch=watch)
            certificate = certificate_of(one, lower, budget, answer.bracket.lower_method)
            if watch.stopped.is_set() and isinstance(certificate, str):
                return record
        return record.keeping(certificate, one.subject.network, known.run.certificates)


def _job(question: Request, radii: tuple[float, ...], delta: float | None, arithmetic: str) -> DataJob:
    """Return the job of a question about classes, about changes of outputs, or about executions."""
    if arithmetic != REAL:
        if delta is not None:
            raise ValueError(f"--delta is asked in real arithmetic, not in {arithmetic}; leave out one of the two")
        return load_executed_job(question, arithmetic, radii[-1])
    return load_job(question, "certify") if delta is None else load_change_job(question, delta)
