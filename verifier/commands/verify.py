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
from numpy.typing import NDArray
from torch import Tensor

from encoders.files import write_atomically
from encoders.property import Property
from encoders.region import Norm
from verifier.answers import Answer
from verifier.bounds.certify import certificate_of
from verifier.budget import Budget, Overrun, guarded
from verifier.certificates.certificate import Certificate
from verifier.commands.loop import Known, run_task
from verifier.commands.property_job import Asked, PropertyJob, load_property_job
from verifier.commands.request import Model
from verifier.commands.verify_request import VerifyOptions, VerifyRequest
from verifier.joint_subject import copies_at
from verifier.methods import find_method, find_prover
from verifier.methods.suitable import check_method
from verifier.properties import PropertyWitness, Question
from verifier.runs.property_files import write_property
from verifier.runs.records import SCHEMA, Head
from verifier.runs.verify_record import INSIDE, VerifyRecord
from verifier.runs.witness_files import Witnesses
from verifier.summaries.verify import PropertySummary, grouped, verified
from verifier.verdict import Strength, Verdict

# Verdicts of a box after which no other of its property is asked about.
SETTLED = (Verdict.SAT, Verdict.TIMEOUT)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class VerifiedProperty(PropertySummary):
    """What is known of one property. witness: with `sat`."""

    witness: PropertyWitness | None

    def to_json(self) -> dict[str, Any]:
        """Return its entry in the object that `--json` prints."""
        witness = self.witness
        numbers: dict[str, Any] | None = None
        if witness is not None:
            numbers = {"input": _flat(witness.point), "output": _flat(witness.outputs)}
            if witness.joint is not None:
                numbers["copies"] = [
                    {"network": network, "input": _flat(x), "output": _flat(y)}
                    for network, x, y in copies_at(witness.joint, witness.point, witness.outputs)
                ]
        return {**super().to_json(), "witness": numbers}

    def to_text(self) -> str:
        """Return the result in the format of VNN-COMP: the verdict, after `sat` the witness.

        Of several copies of networks the inputs stand one after the other, and then the outputs.
        """
        if self.witness is None:
            return f"{self.verdict.value}\n"
        point, outputs = self.witness.point, self.witness.outputs
        copies = [("", point, outputs)] if self.witness.joint is None else copies_at(self.witness.joint, point, outputs)
        inputs = [value for _, x, _ in copies for value in _flat(x)]
        values = [f"(X_{i} {value!r})" for i, value in enumerate(inputs)]
        values += [f"(Y_{i} {value!r})" for i, value in enumerate(v for _, _, y in copies for v in _flat(y))]
        return "sat\n(" + "\n".join(values) + ")\n"


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class VerifyResult:
    """What `verify` returns.

    model, digest, about: as of `VerbResult`. properties: in the order they were given. inputs: how many boxes they ask
    about. records: the run's records.jsonl, if kept. warnings: what was damaged.
    """

    model: str
    digest: str
    about: str
    properties: tuple[VerifiedProperty, ...]
    inputs: int
    seconds: float
    records: Path | None
    warnings: tuple[str, ...]

    @property
    def data(self) -> str:
        """What was asked about, in a few words."""
        return f"{len(self.properties)} properties, {self.inputs} boxes"

    def to_json(self) -> dict[str, Any]:
        """Return the object that `--json` prints."""
        return {
            "schema": SCHEMA, "command": "verify", "model": self.model, "digest": self.digest, "about": self.about,
            "inputs": self.inputs, "seconds": self.seconds, "records": None if not self.records else str(self.records),
            "warnings": list(self.warnings), "properties": [each.to_json() for each in self.properties],
        }  # fmt: skip


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
    began, request = time.perf_counter(), VerifyRequest(**options)
    given = [properties] if isinstance(properties, Property | str | Path) else list(properties)
    find_method(request.method, "inf")
    if not given or (results is not None and len(given) > 1):
        raise ValueError("name a property" if not given else "a results file is about one property: ask about one")
    if request.offset >= len(given):
        raise ValueError(f"there are {len(given)} properties, so none from {request.offset} on; they count from 0")
    job = load_property_job(model, given, request)
    keep = request.out is not None and (request.method == "exact" if certificates is None else certificates)
    task = _Verification(job, request, keep)
    task.check_method()
    result = run_task(task, "verify", request, began)
    if results is not None:
        write_atomically(Path(results), result.properties[0].to_text().encode())
    return result


@dataclasses.dataclass(frozen=True, eq=False)
class _Verification:
    """The task of `verify`.

    budgets: of the properties that were begun, by the position of their first box; settled: those of which a box has a
    witness, or took the time.
    """

    job: PropertyJob
    request: VerifyRequest
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
        return {"method": self.request.method}

    def check_method(self) -> None:
        """Raise ValueError where the method does not take a question."""
        for index in self.job.indices:
            if self.job.boxes[index].asked.unsafe:
                question = self.job.question(index)
                find_method(self.request.method, question.region.norm)
                check_method(self.request.method, question.network, question.region.norm)

    def complete(self, record: VerifyRecord | None) -> bool:
        """Return whether a box is decided, or was tried for as long."""
        if record is None:
            return False
        if self.certificates and record.verdict == Verdict.UNSAT and record.method and not record.says_of_certificate:
            return False
        return record.is_decided or record.tried >= self.request.time_limit

    def work(self, rows: range, known: Known[VerifyRecord]) -> tuple[list[VerifyRecord], Witnesses]:
        """Return (records, witnesses) of a box: none where another of its property has a witness, or took the time."""
        (index,) = rows
        box, before = self.job.boxes[index], known.records.get(index)
        first = index - box.box
        if first not in self.budgets:
            boxes = range(first, first + box.boxes)
            others = [known.records[i] for i in boxes if i in known.records and self.complete(known.records[i])]
            spent = sum(other.head.seconds for other in others)
            self.budgets[first] = Budget(max(0.0, self.request.time_limit - spent), watch=known.watch)
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
        blank = VerifyRecord(
            head=Head(**self.job.described(index, 0.0)), name=box.name, file=box.file, digest=box.digest, box=box.box,
            boxes=box.boxes, verdict=Verdict.UNKNOWN, strength=None, method="", reason=None,
            spent=() if before is None else before.spent,
            tried=max(self.request.time_limit, -1.0 if before is None else before.tried),
        )  # fmt: skip
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
                    (answer,) = find_prover(self.request.method).decide(question.batch, question.region, budget)
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
        if known.watch.stopped.is_set() and not budget.timed_out:
            # The same command takes it up again.
            blank = dataclasses.replace(blank, tried=max(budget.elapsed, -1.0 if before is None else before.tried))
        return dataclasses.replace(blank, verdict=verdict, reason=why), {}

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
            radius, budget = float(question.region.radius[0]), Budget(self.request.time_limit, watch=known.watch)
            if known.watch.stopped.is_set():
                # The same command makes it.
                return record
            found = certificate_of(question.batch, radius, budget, bracket.lower_method)
            if known.watch.stopped.is_set() and isinstance(found, str):
                return record
        return record.keeping(found, question.network, known.run.certificates)


def _why_open(answer: Answer, question: Question) -> str:
    """Return why neither a proof nor a witness was found."""
    if answer.vouched_safe(float(question.region.radius[0])):
        return f"safe by the word of a solver alone ({answer.bracket.trusted_method}), which proves nothing"
    return question.no_input or answer.reason or "the method neither proves it nor finds a witness"


def _flat(values: Tensor | NDArray[Any]) -> list[float]:
    """Return numbers as they are, in C order."""
    return [float(value) for value in values.flatten()]
