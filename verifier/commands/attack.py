"""Attack a saved model: how many correctly classified inputs withstand, and at which distance the others break.

`attack` ties the parts together: model, data, an attack of the table, run folder. A counterexample counts where it is
confirmed as in `witnesses.confirm`: replayed in the user's model and unsafe in real arithmetic.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Unpack

import numpy as np
import torch

from encoders.region import BallRegion, Norm
from verifier.answers import Answer, merged
from verifier.attacks.masking import Signs
from verifier.attacks.watched import Watched
from verifier.batch import BATCH_SIZE, Batch
from verifier.budget import Budget
from verifier.commands.adversarial_example import AdversarialExample, Exhibit, confidences, write_examples
from verifier.commands.attack_masking import attack_warnings, count_signs
from verifier.commands.attack_request import AttackRequest, check_gradient, check_target, choose_targets
from verifier.commands.attack_votes import VoteCounts, checked_vote, count_votes
from verifier.commands.job import DataJob, load_job
from verifier.commands.loop import run_order
from verifier.commands.request import Data, Model, Options, Request
from verifier.commands.result import VerbResult, shared_fields
from verifier.commands.resuming import arrays_of, because
from verifier.commands.task import Known, Order
from verifier.devices.parts import why_stopped
from verifier.runs.attack_record import AttackRecord
from verifier.runs.records import InputHead
from verifier.runs.witness_files import Witnesses
from verifier.subject import Subject, load_subject
from verifier.summaries.attack import AttackCounts, attacked
from verifier.witnesses.confirm import own_ties
from verifier.witnesses.find import find_witnesses
from verifier.witnesses.targeted import find_targeted

# Counterexamples that the picture shows.
GALLERY = 8


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class AttackResult(AttackCounts, VerbResult):
    """What `attack` returns.

    request: what was asked.
    adversarial: the run's adversarial.npz; None where nothing was kept.
    examples: the confirmed counterexamples, by index in the data.
    gallery: the first of them with the model's confidences, for the picture.
    masking: of `auto`, what says that gradients are masked (see `verifier.attacks.masking`); enough of it is a warning.
    """

    command: ClassVar[str] = "attack"

    request: AttackRequest
    adversarial: Path | None
    examples: dict[int, AdversarialExample]
    gallery: tuple[Exhibit, ...]
    votes: VoteCounts | None = None
    masking: Signs | None = None

    def to_json(self) -> dict[str, Any]:
        counts = {field.name: getattr(self, field.name) for field in dataclasses.fields(AttackCounts)}
        adversarial = None if self.adversarial is None else str(self.adversarial)
        more = {"robust_accuracy": self.robust / self.inputs, "adversarial": adversarial}
        votes = {} if self.votes is None else {"votes": dataclasses.asdict(self.votes)}
        signs = {} if self.masking is None else {"masking": dataclasses.asdict(self.masking)}
        return {**super().to_json(), **self.request.to_json(), **counts, **more, **votes, **signs}


def attack(
    model: Model,
    data: Data,
    name: str,
    epsilon: float,
    *,
    target: int | str | None = None,
    settings: Mapping[str, Any] | None = None,
    surrogate: Model | None = None,
    vote: int | None = None,
    **options: Unpack[Options],
) -> AttackResult:
    """Return how many inputs withstand an attack within epsilon, and the confirmed counterexamples.

    model, data, options: as `Request` says; the run's folder also holds adversarial.npz.
    name: of the table `verifier.attacks.ATTACKS`.
    epsilon: radius, in the units of the network's raw input.
    target: a class, "second" or "least-likely": only counterexamples of that class count.
    settings: by name, those of `verifier.attacks.settings` that are not to be the table's.
    surrogate: a model that is searched instead, within epsilon; its points are only judged by the model, which is asked
    for nothing else (transfer). mean and std are put in front of it, too.
    vote: of a randomised network, whose mean is attacked, also take the votes of so many draws (see `VoteCounts`).

    Finds, and never proves. An attack that minimises the distance looks for the nearest counterexample in the whole
    domain, the others in the ball of radius epsilon. Raises ValueError with what is wrong before any work starts.
    """
    asked = {"target": target, "settings": settings, "surrogate": surrogate, "vote": vote}
    return run_order(Order("attack", _attacking, (model, data, name, epsilon), {**asked, **options}))


def _attacking(
    model: Model,
    data: Data,
    name: str,
    epsilon: float,
    *,
    target: int | str | None,
    settings: Mapping[str, Any] | None,
    surrogate: Model | None,
    vote: int | None,
    **options: Unpack[Options],
) -> _Attacking:
    """Return the task of what `attack` was asked."""
    question = Request(model, data, **options)
    request = AttackRequest(name, question.norm, float(epsilon), target, settings or {})
    job = load_job(question, "attack")
    searched = job.subject if surrogate is None else _loaded_surrogate(surrogate, question, job)
    check_gradient(request, searched)
    if question.scale is not None and request.attack.minimal:
        raise ValueError(
            f"attack {name!r} minimises the distance without a scale; with --scale use one within a radius: pgd, auto"
        )
    check_target(request, job)
    if surrogate is not None:
        request = request.on_surrogate(searched, job.subject)
    return _Attacking(job, question, request, checked_vote(job.network, vote))


def _loaded_surrogate(surrogate: Model, question: Request, job: DataJob) -> Subject:
    return load_subject(
        surrogate, input_shape=job.subject.network.input_shape, device=question.device, mean=question.mean,
        std=question.std, limits=question.limits,
    )  # fmt: skip


@dataclasses.dataclass(frozen=True, eq=False)
class _Attacking:
    """The task of `attack`."""

    job: DataJob
    options: Request
    request: AttackRequest
    vote: int | None = None
    asks_witnesses: ClassVar[bool] = True
    ends_early: ClassVar[bool] = False
    limits_each: ClassVar[int] = 1
    batch_size: ClassVar[int] = BATCH_SIZE

    @property
    def norm(self) -> Norm:
        return self.request.checked_norm

    @property
    def configuration(self) -> dict[str, Any]:
        return self.request.to_json()

    def complete(self, record: AttackRecord | None) -> bool:
        """Return whether a record is final: broken within epsilon, or not cut short by the clock."""
        return record is not None and (not record.correct or not record.robust or record.reason is None)

    def work(self, rows: range, known: Known[AttackRecord]) -> tuple[list[AttackRecord], Witnesses]:
        """Return (records, points) of the rows that are not complete yet."""
        started = time.perf_counter()
        open_rows = [row for row in rows if not self.complete(known.records.get(row))]
        points, labels = self.job.inputs(rows, open_rows)
        predictions = self.job.predictions(points, open_rows)
        correct = np.flatnonzero(predictions == labels)
        budget = Budget(self.options.time_limit * max(1, len(correct)), watch=known.watch)
        heads = [self.job.head(*each, 0.0) for each in zip(open_rows, labels, predictions, strict=True)]
        records, nearer = {head.index: AttackRecord(head=head) for head in heads}, Witnesses()
        if len(correct):
            attacked_heads = [heads[i] for i in correct]
            batch = self.job.batch(points[correct], [head.index for head in attacked_heads], labels[correct], self.norm)
            fresh, nearer = self._records(batch, attacked_heads, budget, known.witnesses)
            records |= {record.index: record for record in fresh}
        seconds = (time.perf_counter() - started) / len(open_rows)
        timed = [replace(record, head=replace(record.head, seconds=seconds)) for record in records.values()]
        return timed, nearer

    def left_open(self, rows: range, known: Known[AttackRecord], reason: str, timed_out: bool) -> list[AttackRecord]:
        heads = self.job.heads(rows, [row for row in rows if not self.complete(known.records.get(row))])
        return [because(known.records.get(head.index) or AttackRecord(head=head), reason) for head in heads]

    def _records(
        self, batch: Batch, heads: Sequence[InputHead], budget: Budget, known: Witnesses
    ) -> tuple[list[AttackRecord], Witnesses]:
        """Return the records of correctly classified inputs, and the points that are nearer than those known."""
        answers, watched = self._decide(batch, budget)
        arrays = arrays_of([head.index for head in heads], answers)
        nearer = {row: value for row, value in arrays.items() if row not in known or value[1] < known[row][1]}
        nearest = {head.index: nearer.get(head.index, known.get(head.index)) for head in heads}
        predictions = self._predictions({row: value[0] for row, value in nearest.items() if value is not None})
        records = []
        for position, (head, answer) in enumerate(zip(heads, answers, strict=True)):
            value = nearest[head.index]
            robust = value is None or value[1] > self.request.epsilon
            records.append(
                AttackRecord(
                    head=head,
                    distance=None if value is None else value[1],
                    adversarial=predictions.get(head.index),
                    robust=robust,
                    tie=answer.witness is not None and answer.witness.tie,
                    execution_only=answer.execution_only,
                    reason=why_stopped(answer.reason, budget.why) if robust else None,
                    **watched.effort(position),
                )
            )
        return records, nearer

    def _predictions(self, points: dict[int, np.ndarray]) -> dict[int, int]:
        """Return the classes that the user's model gives to points."""
        if not points:
            return {}
        classes = self.job.subject.execute(np.stack(list(points.values()))).argmax(axis=1)
        return {row: int(value) for row, value in zip(points, classes, strict=True)}

    def _decide(self, batch: Batch, budget: Budget) -> tuple[list[Answer], Watched]:
        """Return the confirmed counterexamples, and the attack with its report."""
        watched, name = Watched(self.request.attack), self.request.name
        region = self._region(batch)
        if self.request.target is not None:
            targets = choose_targets(self.request, batch)
            return find_targeted(watched, batch, region, targets, name, budget), watched
        answers = find_witnesses([watched], batch, region, name, budget)
        # An input that ties with another class is its own counterexample.
        return merged(own_ties(batch, name), range(len(batch)), answers), watched

    def _region(self, batch: Batch) -> BallRegion:
        """Return the balls to search: those of epsilon, or for a minimal distance all that the domain can hold."""
        radius = self.request.epsilon
        if self.request.attack.minimal:
            # A little more than the diagonal of the domain, lest rounding cut its corners.
            radius = max(radius, batch.reach * (1.0 + 1e-6))
        radii = torch.full_like(batch.centres.flatten(1)[:, 0], radius)
        return batch.region(radii)

    def summarise(self, records: Sequence[AttackRecord], known: Known[AttackRecord], seconds: float) -> AttackResult:
        """Return the counts over the records of the requested inputs; write the counterexamples."""
        examples = {
            record.index: self._example(record, known.witnesses) for record in records if record.distance is not None
        }
        path = None if known.run is None else known.run.folder / "adversarial.npz"
        if path is not None:
            write_examples(path, list(examples.values()), self.job.subject.network.input_shape)
        fields = shared_fields(self.job, known.run, records, seconds)
        signs = count_signs(self.job, self.request, records, self.options.time_limit)
        fields["warnings"] = (*fields["warnings"], *attack_warnings(self.request, self.job.subject, signs))
        return AttackResult(
            **{**fields, **dataclasses.asdict(attacked(records))},
            request=self.request,
            adversarial=path,
            examples=examples,
            gallery=self._gallery(list(examples.values())),
            votes=self._votes(records, known.witnesses),
            masking=signs,
        )

    def _votes(self, records: Sequence[AttackRecord], witnesses: Witnesses) -> VoteCounts | None:
        if self.vote is None:
            return None
        return count_votes(self.job, self.vote, records, witnesses, self.request, self.options.time_limit)

    def _example(self, record: AttackRecord, witnesses: Witnesses) -> AdversarialExample:
        index = record.index
        assert record.adversarial is not None
        point, distance = witnesses[index]
        original = self.job.points(range(index, index + 1))[0].numpy()
        return AdversarialExample(index, original, point, distance, record.head.label, record.adversarial)

    def _gallery(self, examples: Sequence[AdversarialExample]) -> tuple[Exhibit, ...]:
        """Return the first counterexamples, those within epsilon first, with the confidences before and after."""
        first = sorted(examples, key=lambda e: (e.distance > self.request.epsilon, e.index))[:GALLERY]
        shown = sorted(first, key=lambda e: e.index)
        if not shown:
            return ()
        before, after = (
            confidences(self.job.subject.execute(np.stack(points)))
            for points in ([e.original for e in shown], [e.point for e in shown])
        )
        return tuple(Exhibit(e, float(before[i, e.label]), float(after[i, e.prediction])) for i, e in enumerate(shown))
