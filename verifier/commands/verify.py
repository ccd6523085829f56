"""Any property of a model: proved, broken by a witness, or open.

`verify` ties the parts together: model, properties, method, run folder. What a property is as a question about classes,
and what makes a point a witness against it, stands in `verifier.properties`.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Unpack

import torch

from encoders.files import write_atomically
from encoders.property import Property
from encoders.region import Norm
from verifier.answers import Answer
from verifier.bounds.certify import certificate_of
from verifier.budget import Budget, Overrun, guarded
from verifier.certificates.certificate import Certificate
from verifier.certificates.scope import property_refusal
from verifier.commands.loop import run_order
from verifier.commands.property_job import Asked, PropertyJob, load_property_job
from verifier.commands.request import Model
from verifier.commands.task import Known, Order
from verifier.commands.verify_request import VerifyOptions, VerifyRequest
from verifier.commands.verify_result import VerifiedProperty, VerifyResult
from verifier.devices.parts import why_stopped
from verifier.methods import find_method, find_prover
from verifier.methods.in_memory import decided
from verifier.methods.suitable import check_method
from verifier.properties import PropertyWitness, Question
from verifier.runs.property_files import write_property
from verifier.runs.records import Head
from verifier.runs.verify_record import INSIDE, VerifyRecord
from verifier.runs.witness_files import Witnesses
from verifier.summaries.verify import grouped, verified
from verifier.verdict import Strength, Verdict

# Verdicts of a box after which no other of its property is asked about.
SETTLED = (Verdict.SAT, Verdict.TIMEOUT)


def verify(
    model: Model,
    properties: Asked | Sequence[Asked],
    *,
    results: str | Path | None = None,
    certificates: bool | None = None,
    **options: Unpack[VerifyOptions],
) -> VerifyResult:
    """Return for each property whether it holds: no input of its box has outputs in its unsafe set.

    model: a file (.onnx, .pt2, .safetensors), a shipped name, or a torch module.
    networks (an option): the other models of a property that is about several networks, by their names in it.
    properties: `Property` objects, or VNN-LIB files, of which each has one verdict over all its boxes.
    results: a file to write in the format of VNN-COMP, where one property is asked about.
    certificates: whether the run keeps one for every proof, which `check` evaluates again; None: with method exact.
    options: as `VerifyRequest` says.

    unsat is a proof in real arithmetic on the stored weights; sat has a witness of the model's dtype, in the box
    without tolerance, unsafe in the user's own model and in real arithmetic; what a solver alone vouches for is
    unknown. Raises ValueError with what is wrong before any work starts, and where graph and model disagree.
    """
    given = [properties] if isinstance(properties, Property | str | Path) else list(properties)
    if not given or (results is not None and len(given) > 1):
        raise ValueError("name a property" if not given else "a results file is about one property: ask about one")
    if results is not None and (Path(results).is_dir() or not Path(results).parent.is_dir()):
        raise ValueError(f"--results {results} is no file in a folder that is there; name one, say results.txt")
    order = Order("verify", _verification, (model, given), {"certificates": certificates, **options})
    result: VerifyResult = run_order(order)
    if results is not None:
        write_atomically(Path(results), result.properties[0].to_text().encode())
    return result


def _verification(
    model: Model, given: Sequence[Asked], *, certificates: bool | None, **options: Unpack[VerifyOptions]
) -> _Verification:
    """Return the task of what `verify` was asked."""
    request = VerifyRequest(**options)
    find_method(request.method, "inf")
    if request.offset >= len(given):
        raise ValueError(f"there are {len(given)} properties, so none from {request.offset} on; they count from 0")
    job = load_property_job(model, given, request)
    keep = request.out is not None and (request.method == "exact" if certificates is None else certificates)
    task = _Verification(job, request, keep)
    task.check_method()
    return task


@dataclasses.dataclass(frozen=True, eq=False)
class _Verification:
    """The task of `verify`.

    budgets: of the properties that were begun, by the position of their first box; settled: those of which a box has a
    witness, or took the time.
    """

    job: PropertyJob
    options: VerifyRequest
    certificates: bool
    budgets: dict[int, Budget] = dataclasses.field(default_factory=dict)
    settled: set[int] = dataclasses.field(default_factory=set)
    norm: ClassVar[Norm] = "inf"
    # A box may take all the time of its property, and what was done is to last.
    batch_size: ClassVar[int] = 1
    asks_witnesses: ClassVar[bool] = True
    ends_early: ClassVar[bool] = True

    @property
    def configuration(self) -> dict[str, Any]:
        return {"method": self.options.method}

    @property
    def limits_each(self) -> int:
        return 2 if self.certificates else 1

    def check_method(self) -> None:
        """Raise ValueError where the method does not take a question."""
        for index in self.job.indices:
            if self.job.boxes[index].asked.unsafe:
                question = self.job.question(index)
                find_method(self.options.method, question.region.norm)
                check_method(self.options.method, question.network, question.region.norm)

    def complete(self, record: VerifyRecord | None) -> bool:
        """Return whether a box is decided, or was tried for as long."""
        if record is None:
            return False
        if self.certificates and record.verdict == Verdict.UNSAT and record.method and not record.says_of_certificate:
            return False
        return record.is_decided or record.tried >= self.options.time_limit

    def work(self, rows: range, known: Known[VerifyRecord]) -> tuple[list[VerifyRecord], Witnesses]:
        """Return (records, witnesses) of a box: none where another of its property has a witness, or took the time."""
        (index,) = rows
        box, before = self.job.boxes[index], known.records.get(index)
        first = index - box.box
        if first not in self.budgets:
            boxes = range(first, first + box.boxes)
            others = [known.records[i] for i in boxes if i in known.records and self.complete(known.records[i])]
            spent = sum(other.head.seconds for other in others)
            self.budgets[first] = Budget(max(0.0, self.options.time_limit - spent), watch=known.watch)
            self.settled.update(first for other in others if other.verdict in SETTLED)
        if first in self.settled and not (before is not None and before.is_decided):
            return [], {}
        if known.run is not None and box.file is None:
            write_property(box.asked, known.run.folder)
        started = time.perf_counter()
        record, witnesses = self._decided(index, before, known, self.budgets[first])
        self.settled.update({first} if record.verdict in SETTLED else ())
        seconds = time.perf_counter() - started
        return [dataclasses.replace(record, head=dataclasses.replace(record.head, seconds=seconds))], witnesses

    def left_open(self, rows: range, known: Known[VerifyRecord], reason: str, timed_out: bool) -> list[VerifyRecord]:
        found = []
        for index in rows:
            before = known.records.get(index)
            if self.complete(before):
                continue
            record = before or self._blank(index, None, 0.0)
            if not record.is_decided:
                verdict = Verdict.TIMEOUT if timed_out else Verdict.UNKNOWN
                tried = max(record.tried, self.options.time_limit if timed_out else 0.0)
                record = dataclasses.replace(record, verdict=verdict, reason=reason, tried=tried)
            found.append(record)
        return found

    def summarise(self, records: Sequence[VerifyRecord], known: Known[VerifyRecord], seconds: float) -> VerifyResult:
        """Return the verdicts over the records of the requested properties, with their witnesses."""
        found = []
        for group, summary in zip(grouped(records), verified(records), strict=True):
            broken = next((record.index for record in group if record.verdict == Verdict.SAT), None)
            witness = None
            if broken is not None:
                point = known.witnesses[broken][0]
                outputs = self.job.subject.outputs(point[None], ["a witness"])[0]
                witness = PropertyWitness(torch.from_numpy(point), outputs, self.job.boxes[broken].asked.joint)
            found.append(VerifiedProperty(**vars(summary), witness=witness))
        return VerifyResult(
            model=self.job.subject.name,
            digest=self.job.subject.network.digest,
            about=self.job.subject.about,
            properties=tuple(found),
            inputs=len(self.job.indices),
            seconds=seconds,
            records=None if known.run is None else known.run.records_path,
            warnings=tuple(known.run.notices) if known.run is not None else (),
        )

    def _decided(
        self, index: int, before: VerifyRecord | None, known: Known[VerifyRecord], budget: Budget
    ) -> tuple[VerifyRecord, Witnesses]:
        """Return the record of a box and its witness, if it has one."""
        box = self.job.boxes[index]
        blank = self._blank(index, before, max(self.options.time_limit, -1.0 if before is None else before.tried))
        if not box.asked.unsafe:
            note = f" ({box.asked.note})" if box.asked.note else ""
            reason = f"vacuously true: nothing is unsafe{note}"
            return dataclasses.replace(blank, verdict=Verdict.UNSAT, strength=Strength.CHECKED, reason=reason), {}
        question = self.job.question(index)
        if before is not None and before.verdict == Verdict.UNSAT:
            # What is missing is its certificate.
            answer = Answer.proved(float(question.region.radius[0]), before.method, Strength(before.strength or ""))
        else:
            try:
                with guarded(budget):
                    (answer,) = decided(find_prover(self.options.method), question.batch, question.region, budget)
            except Overrun as overrun:
                answer = Answer.open(str(overrun))
            blank = dataclasses.replace(blank, spent=(*blank.spent, *answer.spent))
        found = None if answer.witness is None else question.confirm(answer.witness.point)
        if isinstance(found, PropertyWitness):
            record = dataclasses.replace(blank, verdict=Verdict.SAT, method=answer.bracket.upper_method)
            return record, {index: (found.point.numpy(), INSIDE)}
        if found is None and answer.bracket.lower >= float(question.region.radius[0]):
            return self._proved(blank, answer, question, known), {}
        why = found or (answer.reason or budget.why if budget.exhausted else _why_open(answer, question))
        verdict = Verdict.TIMEOUT if budget.timed_out else Verdict.UNKNOWN
        if (known.watch.stopped.is_set() or why_stopped(answer.reason, None)) and not budget.timed_out:
            # The same command takes it up again.
            blank = dataclasses.replace(blank, tried=max(budget.elapsed, -1.0 if before is None else before.tried))
        return dataclasses.replace(blank, verdict=verdict, reason=why), {}

    def _blank(self, index: int, before: VerifyRecord | None, tried: float) -> VerifyRecord:
        """Return the record of a box of which nothing is known but what was spent before."""
        box = self.job.boxes[index]
        return VerifyRecord(
            head=Head(**self.job.described(index, 0.0)), name=box.name, file=box.file, digest=box.digest, box=box.box,
            boxes=box.boxes, verdict=Verdict.UNKNOWN, strength=None, method="", reason=None,
            spent=() if before is None else before.spent, tried=tried,
        )  # fmt: skip

    def _proved(
        self, blank: VerifyRecord, answer: Answer, question: Question, known: Known[VerifyRecord]
    ) -> VerifyRecord:
        """Return the record of a proof, with its certificate, which is written first."""
        bracket = answer.bracket
        record = dataclasses.replace(
            blank, verdict=Verdict.UNSAT, strength=str(bracket.strength), method=bracket.lower_method
        )
        if not self.certificates or known.run is None:
            return record
        found: Certificate | str | None = answer.certificate
        if found is None:
            radius, budget = float(question.region.radius[0]), Budget(self.options.time_limit, watch=known.watch)
            if known.watch.stopped.is_set():
                # The same command makes it.
                return record
            norm = question.region.norm
            refusal = None if norm == "inf" else property_refusal(question.network, norm)
            found = refusal or certificate_of(question.batch, radius, budget, bracket.lower_method)
            if known.watch.stopped.is_set() and isinstance(found, str):
                return record
        return record.keeping(found, question.network, known.run.certificates)


def _why_open(answer: Answer, question: Question) -> str:
    """Return why neither a proof nor a witness was found."""
    if answer.vouched_safe(float(question.region.radius[0])):
        return f"safe by the word of a solver alone ({answer.bracket.trusted_method}), which proves nothing"
    return question.no_input or answer.reason or "the method neither proves it nor finds a witness"
