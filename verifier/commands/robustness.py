"""How often and how badly a network fails to be robust: adversarial frequency and severity (Bastani et al. 2016).

phi(epsilon) = P[rho <= epsilon], mu(epsilon) = E[rho | rho <= epsilon], rho the distance to the nearest input that is
classified differently from the *prediction*, over all inputs. Both are ranges read off brackets: a method that proves
gives lower ends, estimators give upper ends by replayed counterexamples. The values of each estimator alone, as the
paper reports them, stand beside the ranges with the share of inputs that it leaves unresolved.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from typing import Any, ClassVar, Unpack

from encoders.region import Norm
from verifier.answers import Answer, merged
from verifier.batch import BATCH_SIZE
from verifier.budget import Budget
from verifier.commands.estimators import Estimate, Estimators
from verifier.commands.job import DataJob, load_job
from verifier.commands.loop import run_order
from verifier.commands.request import Data, Model, Options, Request, checked_radius
from verifier.commands.result import VerbResult, shared_fields
from verifier.commands.resuming import arrays_of
from verifier.commands.task import Known, Order
from verifier.devices.parts import OUT_OF_MEMORY, why_stopped
from verifier.methods import find_method
from verifier.methods.in_memory import bracketed
from verifier.methods.suitable import check_method
from verifier.restriction.optimum import Outcome
from verifier.runs.records import InputHead
from verifier.runs.robustness_record import RobustnessRecord, StoredEstimate
from verifier.runs.stored_answer import kept
from verifier.runs.witness_files import Witnesses
from verifier.summaries.robustness import Measured, measured, radii_of
from verifier.verdict import Bracket

# Estimators that run where none is named; the second only on networks with linear pieces.
DEFAULT = ("attack", "restriction")


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class RobustnessResult(Measured, VerbResult):
    """What `robustness` returns.

    epsilon: the radius that was asked about.
    indices, brackets: of the inputs, in the order of the data.
    radii: of each estimator by name, in the order of `indices`; infinite: none found.
    """

    command: ClassVar[str] = "robustness"

    epsilon: float
    indices: tuple[int, ...]
    brackets: tuple[Bracket, ...]
    radii: dict[str, tuple[float, ...]]

    def to_json(self) -> dict[str, Any]:
        measured = {field.name: getattr(self, field.name) for field in dataclasses.fields(Measured)}
        measured |= {name: dataclasses.asdict(measured[name]) for name in ("frequency", "severity")}
        measured["estimators"] = {name: dataclasses.asdict(result) for name, result in self.estimators.items()}
        return {**super().to_json(), "epsilon": self.epsilon, **measured}


def robustness(
    model: Model,
    data: Data,
    epsilon: float,
    *,
    estimators: Sequence[str] = (),
    method: str = "interval",
    alpha: float = 0.0,
    levels: int | None = None,
    solver: str = "highs",
    **options: Unpack[Options],
) -> RobustnessResult:
    """Return adversarial frequency and severity at a radius, as ranges and as each estimator alone has them.

    model, data, options: as `Request` says; the norm must be "inf". epsilon: radius in units of the raw input.
    estimators: names of `verifier.commands.estimators`; default `attack`, and `restriction` where it applies.
    method: what proves (a name of `certify`).
    alpha: margin of the scores demanded in the programs, >= 0.
    levels: count only points on the grid k / levels (255: whole pixels). solver: a name of `verifier.solvers`.

    Lower ends of the ranges rest on proofs, upper ends on replayed counterexamples (Bastani et al. 2016, section 2).
    Raises ValueError with what is wrong before any work starts.
    """
    asked = {"estimators": estimators, "method": method, "alpha": alpha, "levels": levels, "solver": solver}
    return run_order(Order("robustness", _measurement, (model, data, epsilon), {**asked, **options}))


def _measurement(
    model: Model,
    data: Data,
    epsilon: float,
    *,
    estimators: Sequence[str],
    method: str,
    alpha: float,
    levels: int | None,
    solver: str,
    **options: Unpack[Options],
) -> _Measurement:
    """Return the task of what `robustness` was asked."""
    epsilon = checked_radius(epsilon)
    question = Request(model, data, **options)
    norm = question.norm
    if norm != "inf":
        raise ValueError(f"robustness measures in the inf-norm, the norm of its programs; {norm!r} is not supported")
    prover = find_method(method, norm)
    job = load_job(question, "robustness")
    suitable = _chosen(
        job, Estimators(tuple(dict.fromkeys(estimators)) or DEFAULT, alpha, levels, solver), bool(estimators)
    )
    check_method(method, job.subject.network, norm, question.scale is not None)
    return _Measurement(job, question, epsilon, suitable, prover.name, norm)


def _chosen(job: DataJob, wanted: Estimators, named: bool) -> Estimators:
    """Return the estimators that were named, or of the default ones those that can take the network."""
    try:
        wanted.refuse(job.subject.network, job.surroundings.scale is not None)
    except ValueError:
        if named:
            raise
        return dataclasses.replace(wanted, names=("attack",))
    return wanted


@dataclasses.dataclass(frozen=True, eq=False)
class _Measurement:
    """The task of `robustness`."""

    job: DataJob
    options: Request
    epsilon: float
    estimators: Estimators
    method: str
    norm: Norm
    asks_witnesses: ClassVar[bool] = False
    ends_early: ClassVar[bool] = False
    limits_each: ClassVar[int] = 1
    batch_size: ClassVar[int] = BATCH_SIZE

    @property
    def configuration(self) -> dict[str, Any]:
        names, settings = list(self.estimators.names), self.estimators
        return {
            "method": self.method, "norm": self.norm, "estimators": names, "alpha": settings.alpha,
            "levels": settings.levels, "solver": settings.solver,
        }  # fmt: skip

    def complete(self, record: RobustnessRecord | None) -> bool:
        """Return whether a record was made for this radius or a larger one, without running out of time."""
        return record is not None and record.tried >= self.epsilon and record.reason is None

    def work(self, rows: range, known: Known[RobustnessRecord]) -> tuple[list[RobustnessRecord], Witnesses]:
        """Return (records, witnesses) of the rows that are not complete yet; what is known of them stays."""
        before = known.records
        open_rows = [row for row in rows if not self.complete(before.get(row))]
        points, labels = self.job.inputs(rows, open_rows)
        predictions = self.job.outputs(points, open_rows).argmax(axis=1)
        batch = self.job.batch(points, open_rows, predictions)
        budget = Budget(self.options.time_limit * len(open_rows), watch=known.watch)
        answers = [before[row].answer if row in before else Answer() for row in open_rows]
        started = time.perf_counter()
        answers = bracketed(find_method(self.method, self.norm), batch, [self.epsilon], answers, budget)
        proved = answers
        proving = (time.perf_counter() - started) / len(open_rows)
        estimates = self.estimators.run(batch, self.epsilon, budget)
        for name, values in estimates.items():
            answers = merged(answers, range(len(batch)), [estimate.answer(name) for estimate in values])
        records = []
        for i, row in enumerate(open_rows):
            mine = {name: values[i] for name, values in estimates.items()}
            spent = proving + sum(estimate.seconds for estimate in mine.values())
            head = self.job.head(row, labels[i], predictions[i], spent)
            records.append(self._record(head, answers[i], mine, why_stopped(proved[i].reason, budget.why)))
        return records, arrays_of(open_rows, answers)

    def left_open(
        self, rows: range, known: Known[RobustnessRecord], reason: str, timed_out: bool
    ) -> list[RobustnessRecord]:
        open_rows = [row for row in rows if not self.complete(known.records.get(row))]
        nothing = Estimate(None, Outcome.STOPPED, 0.0)
        estimates = dict.fromkeys(self.estimators.names, nothing)
        answers = [known.records[row].answer if row in known.records else Answer() for row in open_rows]
        heads = self.job.heads(rows, open_rows)
        return [self._record(head, a, estimates, reason) for head, a in zip(heads, answers, strict=True)]

    def _record(
        self, head: InputHead, answer: Answer, estimates: dict[str, Estimate], why: str | None
    ) -> RobustnessRecord:
        outcomes = {estimate.outcome for estimate in estimates.values()}
        if Outcome.FULL in outcomes:
            why = OUT_OF_MEMORY
        stored = {
            name: StoredEstimate(radius=estimate.radius, outcome=estimate.outcome, seconds=estimate.seconds)
            for name, estimate in estimates.items()
        }
        reason = why if why == OUT_OF_MEMORY or Outcome.STOPPED in outcomes else None
        return RobustnessRecord(head=head, answer=kept(answer), estimators=stored, tried=self.epsilon, reason=reason)

    def summarise(
        self, records: Sequence[RobustnessRecord], known: Known[RobustnessRecord], seconds: float
    ) -> RobustnessResult:
        """Return the ranges and the estimators' values over the records of the requested inputs."""
        ranges = vars(measured(records, self.epsilon, self.estimators.names))
        return RobustnessResult(
            **shared_fields(self.job, known.run, records, seconds),
            **ranges,
            epsilon=self.epsilon,
            indices=tuple(record.index for record in records),
            brackets=tuple(record.answer.bracket for record in records),
            radii={name: radii_of(records, name) for name in self.estimators.names},
        )
