"""How tight every method is on one model and what it costs, side by side (the tables of Salman et al. 2019).

Each method works alone, on the same inputs and the same ball: how far does it move each end of the bracket? What one
method proves and another finds must not contradict each other; every pair is checked for every input.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Unpack

import numpy as np
import torch

from encoders.files import replacing
from encoders.region import Norm
from verifier.answers import Answer
from verifier.attacks import ATTACKS
from verifier.batch import BATCH_SIZE, Batch
from verifier.budget import Budget, Watch
from verifier.commands.job import DataJob, load_job
from verifier.commands.loop import run_order
from verifier.commands.request import Data, Model, Options, Request, checked_radius
from verifier.commands.result import VerbResult, shared_fields
from verifier.commands.resuming import arrays_of
from verifier.commands.task import Known, Order
from verifier.devices.parts import why_stopped
from verifier.methods import METHODS, Method, find_method
from verifier.methods.falsify import FalsifyMethod
from verifier.methods.in_memory import bracketed
from verifier.runs.compare_record import CompareRecord, MethodAnswer
from verifier.runs.stored_answer import kept
from verifier.runs.witness_files import Witnesses
from verifier.summaries.compare import ComparedMethod, all_violations, brackets_by_method, compared, violations
from verifier.verdict import Bracket

__all__ = ["COMPARED", "CompareResult", "ComparedMethod", "compare", "violations"]

# What is compared: the methods, and the attacks alone.
COMPARED: dict[str, Method] = {"attack": FalsifyMethod("attack", [ATTACKS["pgd"], ATTACKS["auto"]]), **METHODS}
# What is compared only by name: it takes as long again and says what another row says.
BY_NAME = {"milp-cbc": "a second opinion on milp; name it to compare it"}


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class CompareResult(VerbResult):
    """What `compare` returns.

    epsilon, norm: the radius and the norm that were asked about.
    rows: one for each method.
    left_out: why the other methods were not compared, by name.
    violations: (index, prover, finder) where one method says safe what another breaks: a bug of one of them.
    indices: positions in the data, in order.
    brackets: by method, in the order of `indices`, relative to the prediction.
    """

    command: ClassVar[str] = "compare"

    epsilon: float
    norm: Norm
    rows: tuple[ComparedMethod, ...]
    left_out: dict[str, str]
    violations: tuple[tuple[int, str, str], ...]
    indices: tuple[int, ...]
    brackets: Mapping[str, tuple[Bracket, ...]]

    def to_json(self) -> dict[str, Any]:
        asked = {"epsilon": self.epsilon, "norm": self.norm, "left_out": self.left_out}
        rows = [dataclasses.asdict(row) for row in self.rows]
        return {**super().to_json(), **asked, "rows": rows, "violations": [list(each) for each in self.violations]}


def compare(
    model: Model,
    data: Data,
    epsilon: float,
    *,
    methods: Sequence[str] = (),
    **options: Unpack[Options],
) -> CompareResult:
    """Return how tight and how fast each method is at one radius, on all inputs, against the *predicted* class.

    model, data, options: as `Request` says; time_limit is for an input and method.
    epsilon: radius, in the units of the network's raw input.
    methods: names to compare, default all that apply to the network and the norm but second opinions; those left out
    are named with the reason.

    Raises ValueError with what is wrong before any work starts; a contradiction between two methods, or between a
    solver's word and a witness, is returned in `violations`, never hidden.
    """
    return run_order(Order("compare", _comparison, (model, data, epsilon), {"methods": methods, **options}))


def _comparison(
    model: Model, data: Data, epsilon: float, *, methods: Sequence[str], **options: Unpack[Options]
) -> _Comparison:
    """Return the task of what `compare` was asked."""
    epsilon = checked_radius(epsilon)
    question = Request(model, data, **options)
    norm = question.norm
    job = load_job(question, "compare")
    chosen, left_out = _choose(methods, norm, job)
    return _Comparison(job, question, epsilon, norm, tuple(chosen), left_out)


def _choose(methods: Sequence[str], norm: str, job: DataJob) -> tuple[list[str], dict[str, str]]:
    """Return (names to compare, reasons of those that do not apply); raise ValueError for a name asked for in vain."""
    left_out: dict[str, str] = {}
    for name, method in COMPARED.items():
        reason = method.refusal(job.subject.network)
        if job.surroundings.scale is not None and not method.scales:
            reason = "does not take a scale for each coordinate"
        if norm not in method.norms:
            reason = f"does not support the {norm}-norm"
        if reason is not None:
            left_out[name] = reason
    for name in methods:
        if name not in COMPARED:
            find_method(name, norm)
        if name in left_out:
            others = ", ".join(other for other in COMPARED if other not in left_out)
            raise ValueError(f"method {name!r}: {left_out[name]}. Methods for this network: {others}")
    if not methods:
        left_out = {**BY_NAME, **left_out}
    chosen = [name for name in COMPARED if name not in left_out and (not methods or name in methods)]
    return chosen, {name: reason for name, reason in left_out.items() if not methods}


@dataclasses.dataclass(frozen=True, eq=False)
class _Comparison:
    """The task of `compare`."""

    job: DataJob
    options: Request
    epsilon: float
    norm: Norm
    methods: tuple[str, ...]
    left_out: dict[str, str]
    asks_witnesses: ClassVar[bool] = False
    ends_early: ClassVar[bool] = False
    batch_size: ClassVar[int] = BATCH_SIZE

    @property
    def limits_each(self) -> int:
        return len(self.methods)

    @property
    def configuration(self) -> dict[str, Any]:
        return {"norm": self.norm, "epsilon": self.epsilon}

    def complete(self, record: CompareRecord | None) -> bool:
        """Return whether a record has an answer of each method that the device's memory held."""
        return record is not None and all(
            name in record.methods and record.methods[name].reason is None for name in self.methods
        )

    def work(self, rows: range, known: Known[CompareRecord]) -> tuple[list[CompareRecord], Witnesses]:
        """Return (records, nearest witnesses) of the rows that lack a method, after each has worked on them alone."""
        before = known.records
        open_rows = [row for row in rows if not self.complete(before.get(row))]
        points, labels = self.job.inputs(rows, open_rows)
        predictions = self.job.outputs(points, open_rows).argmax(axis=1)
        batch = self.job.batch(points, open_rows, predictions, self.norm)
        answers = [dict(before[row].methods) if row in before else {} for row in open_rows]
        spent, nearest = [0.0] * len(open_rows), dict[int, Answer]()
        for name in self.methods:
            missing = [i for i, said in enumerate(answers) if name not in said or said[name].reason is not None]
            if not missing:
                continue
            part = batch.at(torch.tensor(missing, device=batch.centres.device))
            fresh, seconds = self._alone(name, part, known.watch)
            for i, answer in zip(missing, fresh, strict=True):
                spent[i] += seconds
                again = why_stopped(answer.reason, None)
                answers[i][name] = MethodAnswer(answer=kept(answer), seconds=seconds, reason=again)
                if answer.witness is not None and answer.distance < nearest.get(open_rows[i], Answer()).distance:
                    nearest[open_rows[i]] = answer
        records = [
            CompareRecord(head=self.job.head(row, labels[i], predictions[i], spent[i]), methods=answers[i])
            for i, row in enumerate(open_rows)
        ]
        return records, arrays_of(list(nearest), list(nearest.values()))

    def left_open(self, rows: range, known: Known[CompareRecord], reason: str, timed_out: bool) -> list[CompareRecord]:
        # A table of methods side by side has no place for an input that some of them have not seen.
        raise RuntimeError(f"inputs {rows.start} to {rows.stop - 1}: {reason}; the run keeps what came before")

    def _alone(self, name: str, batch: Batch, watch: Watch) -> tuple[list[Answer], float]:
        """Return what a method says of the inputs of a batch, knowing nothing, and its seconds an input."""
        started = time.perf_counter()
        budget = Budget(self.options.time_limit * len(batch), watch=watch)
        answers = bracketed(COMPARED[name], batch, [self.epsilon], [Answer()] * len(batch), budget)
        return answers, (time.perf_counter() - started) / len(batch)

    def summarise(self, records: Sequence[CompareRecord], known: Known[CompareRecord], seconds: float) -> CompareResult:
        """Return one row for each method over the records of the requested inputs."""
        result = CompareResult(
            **shared_fields(self.job, known.run, records, seconds),
            epsilon=self.epsilon,
            norm=self.norm,
            rows=compared(records, self.epsilon, {name: _direction(COMPARED[name]) for name in self.methods}),
            left_out=self.left_out,
            violations=all_violations(records, self.methods),
            indices=tuple(record.index for record in records),
            brackets=brackets_by_method(records, self.methods),
        )
        if known.run is not None and result.violations:
            _save_inputs(self.job, result, known.run.folder / "violations.npz")
        return result


def _direction(method: Method) -> str:
    return "both" if method.proves and method.finds else "proves" if method.proves else "finds"


def _save_inputs(job: DataJob, result: CompareResult, path: Path) -> None:
    """Write the inputs that two methods contradict each other on."""
    indices = sorted({index for index, _, _ in result.violations})
    points = np.stack([job.points(range(i, i + 1)).numpy()[0] for i in indices])
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez(file, index=np.array(indices), x=points)
