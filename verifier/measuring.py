"""How often and how badly a network fails to be robust: adversarial frequency and severity (Bastani et al. 2016).

phi(epsilon) = P[rho <= epsilon], mu(epsilon) = E[rho | rho <= epsilon], rho the distance to the nearest input that is
classified differently from the *prediction*, over all inputs. Both are ranges read off brackets: a method that proves
gives lower ends, estimators give upper ends by replayed counterexamples. The values of each estimator alone, as the
paper reports them, stand beside the ranges with the share of inputs that it leaves unresolved.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Unpack

import numpy as np

from verifier.budget import Budget
from verifier.certification import bracket_of
from verifier.estimators import Estimate, Estimators, take_in
from verifier.job import Job, load_job, opened
from verifier.methods import Findings, find_method
from verifier.metrics import Range, adversarial_frequency, adversarial_severity
from verifier.request import Data, Model, Options, Request
from verifier.restriction.answer import Outcome
from verifier.runs import SCHEMA
from verifier.verdict import Bracket
from verifier.verdict import Outcome as At

# Estimators that run where none is named; the second only on networks with linear pieces.
DEFAULT = ("attack", "restriction")


@dataclasses.dataclass(frozen=True)
class EstimatorResult:
    """What one estimator says, taken at its word: frequency = share(radius <= epsilon), severity = mean of those.

    severity is None with a reason where no radius is. unresolved: share of inputs that it does not find and nothing
    proves safe. outcomes: how often it found, met an infeasible program, stopped, ...
    """

    frequency: float
    severity: float | None
    reason: str | None
    unresolved: float
    median_seconds: float
    outcomes: dict[str, int]


@dataclasses.dataclass(frozen=True)
class RobustnessResult:
    """What `robustness` returns. radii: of each estimator by name, in the order of `indices`; infinite: none found."""

    model: str
    digest: str
    inputs: int
    correct: int
    epsilon: float
    frequency: Range
    severity: Range
    unresolved: float
    estimators: dict[str, EstimatorResult]
    seconds: float
    records: Path | None
    indices: tuple[int, ...]
    brackets: tuple[Bracket, ...]
    radii: dict[str, tuple[float, ...]]
    warnings: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the object that `--json` prints."""
        return {
            "schema": SCHEMA,
            "command": "robustness",
            "model": self.model,
            "digest": self.digest,
            "inputs": self.inputs,
            "correct": self.correct,
            "epsilon": self.epsilon,
            "frequency": dataclasses.asdict(self.frequency),
            "severity": dataclasses.asdict(self.severity),
            "unresolved": self.unresolved,
            "estimators": {name: dataclasses.asdict(result) for name, result in self.estimators.items()},
            "seconds": self.seconds,
            "records": None if self.records is None else str(self.records),
            "warnings": list(self.warnings),
        }


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

    estimators: names of `verifier.estimators`; by default `attack`, and `restriction` where the network has linear
    pieces. method: what proves (a name of `certify`). alpha: margin demanded in the programs; levels: count only
    points on the grid k / levels (255: whole pixels). solver: what solves them. model, data, options: as `Request`
    says.

    Raises ValueError with what is wrong before any work starts.
    """
    started = time.perf_counter()
    if not math.isfinite(epsilon) or epsilon < 0:
        raise ValueError(f"epsilon must be a finite number that is not negative, got {epsilon}")
    question = Request(model, data, **options)
    norm = question.norm
    if norm != "inf":
        raise ValueError(f"robustness measures in the inf-norm, the norm of its programs; {norm!r} is not supported")
    prover = find_method(method, norm)
    job = load_job(question, "robustness")
    chosen = _chosen(
        job, Estimators(tuple(dict.fromkeys(estimators)) or DEFAULT, alpha, levels, solver), bool(estimators)
    )
    refusal = prover.refusal(job.subject.network)
    if refusal is not None:
        raise ValueError(refusal)
    configuration = {
        **job.configuration("robustness"), "method": prover.name, "norm": norm, "estimators": list(chosen.names),
        "alpha": alpha, "levels": levels, "solver": solver,
    }  # fmt: skip
    work = _Work(job, float(epsilon), chosen, prover.name, norm, question.time_limit)
    with job.threads(), opened(question.out, configuration, job.origin) as run:
        records = run.records if run is not None else {}
        for rows in job.batches():
            if any(not work.complete(records.get(row)) for row in rows):
                found, witnesses = work.batch(rows)
                if run is not None:
                    run.append(found, witnesses)
                records.update({record["index"]: record for record in found})
            if question.progress is not None:
                question.progress(rows[-1] - job.indices[0] + 1, len(job.indices))
        path = None if run is None else run.records_path
        result = work.summarise([records[row] for row in job.indices], path, time.perf_counter() - started)
        if run is not None:
            run.finish(result.to_json())
    return result


def _chosen(job: Job, wanted: Estimators, named: bool) -> Estimators:
    """Return the estimators that were named, or of the default ones those that can take the network."""
    try:
        wanted.refuse(job.subject.network)
    except ValueError:
        if named:
            raise
        return dataclasses.replace(wanted, names=("attack",))
    return wanted


@dataclasses.dataclass(frozen=True, eq=False)
class _Work:
    """The fixed part of a measurement: everything but which inputs."""

    job: Job
    epsilon: float
    estimators: Estimators
    method: str
    norm: str
    seconds_per_input: float

    def complete(self, record: dict[str, Any] | None) -> bool:
        """Return whether a record was made for this radius or a larger one, without running out of time."""
        return record is not None and record["tried"] >= self.epsilon and record["reason"] is None

    def batch(self, rows: range) -> tuple[list[dict[str, Any]], dict[int, tuple[np.ndarray, float]]]:
        """Return (records, witnesses) of the rows."""
        points, labels = self.job.points(rows), self.job.labels(rows)
        predictions = self.job.outputs(points, rows).argmax(axis=1)
        batch = self.job.batch(points, list(rows), predictions)
        budget = Budget(self.seconds_per_input * len(rows))
        findings = Findings([Bracket() for _ in rows])
        started = time.perf_counter()
        find_method(self.method, self.norm).bracket(batch, [self.epsilon], findings, budget)
        proving = (time.perf_counter() - started) / len(rows)
        estimates = self.estimators.run(batch, self.epsilon, budget)
        for name, values in estimates.items():
            take_in(findings, name, values)
        records = []
        for i, row in enumerate(rows):
            mine = {name: values[i] for name, values in estimates.items()}
            spent = proving + sum(estimate.seconds for estimate in mine.values())
            record = self.job.record(row, int(labels[i]), int(predictions[i]), spent)
            records.append(record | self._knowledge(findings.brackets[i], mine, budget.exhausted))
        witnesses = {rows[i]: (w.point.numpy(), w.distance) for i, w in findings.witnesses.items()}
        return records, witnesses

    def _knowledge(self, bracket: Bracket, estimates: dict[str, Estimate], timed_out: bool) -> dict[str, Any]:
        stopped = timed_out and any(e.outcome == Outcome.STOPPED for e in estimates.values())
        return {
            **bracket.to_record(),
            "estimators": {
                name: {"radius": None if math.isinf(e.radius) else e.radius, "outcome": e.outcome, "seconds": e.seconds}
                for name, e in estimates.items()
            },
            "tried": self.epsilon,
            "reason": "time limit" if stopped else None,
        }

    def summarise(self, records: Sequence[dict[str, Any]], path: Path | None, seconds: float) -> RobustnessResult:
        """Return the ranges and the estimators' values over the records of the requested inputs."""
        brackets = tuple(bracket_of(record) for record in records)
        correct = sum(record["correct"] for record in records)
        certified = [bracket.at(self.epsilon) is At.CERTIFIED for bracket in brackets]
        radii = {name: tuple(_radius(record, name) for record in records) for name in self.estimators.names}
        return RobustnessResult(
            model=self.job.subject.name,
            digest=self.job.subject.network.digest,
            inputs=len(records),
            correct=correct,
            epsilon=self.epsilon,
            frequency=adversarial_frequency(self.epsilon, brackets),
            severity=adversarial_severity(self.epsilon, brackets),
            unresolved=sum(b.at(self.epsilon) is At.OPEN for b in brackets) / len(records),
            estimators={name: self._alone(name, records, radii[name], certified) for name in self.estimators.names},
            seconds=seconds,
            records=path,
            indices=tuple(record["index"] for record in records),
            brackets=brackets,
            radii=radii,
            warnings=self.job.warnings(correct, len(records)),
        )

    def _alone(
        self, name: str, records: Sequence[dict[str, Any]], radii: Sequence[float], certified: Sequence[bool]
    ) -> EstimatorResult:
        mine = [record["estimators"][name] for record in records]
        within = [radius for radius in radii if radius <= self.epsilon]
        missed = sum(r > self.epsilon and not safe for r, safe in zip(radii, certified, strict=True))
        words = [value["outcome"] for value in mine]
        return EstimatorResult(
            frequency=len(within) / len(records),
            severity=statistics.fmean(within) if within else None,
            reason=None if within else f"{name} finds no radius of at most {self.epsilon:g}",
            unresolved=missed / len(records),
            median_seconds=statistics.median(value["seconds"] for value in mine),
            outcomes={word: words.count(word) for word in sorted(set(words))},
        )


def _radius(record: dict[str, Any], name: str) -> float:
    radius = record["estimators"][name]["radius"]
    return math.inf if radius is None else float(radius)
