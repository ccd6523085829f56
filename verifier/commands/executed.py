"""Classes under every execution of a network in an arithmetic: what a user's machine may round is part of the question.

A method is asked about a network that lacks what rounding may take (`encoders.passes.execution_margins`), as bounded on
the largest ball that is asked about; so nothing is claimed beyond its radius. A witness is a point at which the user's
model gives another class, and whose margin in real arithmetic is no more than rounding may explain.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from encoders.arithmetic import ARITHMETICS, Arithmetic
from encoders.box import Box
from encoders.network import Network
from encoders.passes.execution_margins import class_errors, execution_refusal, handicapped
from verifier.answers import Answer
from verifier.batch import BATCH_SIZE, Batch, Group
from verifier.certificates.certificate import Certificate
from verifier.certificates.counterexample import ClaimError
from verifier.certificates.error import CertificateError
from verifier.certificates.files import CertificateFile
from verifier.commands.claims import Claims
from verifier.commands.job import DataJob, classified, job_fields
from verifier.commands.request import Request
from verifier.runs.certify_record import CertifyRecord
from verifier.runs.records import InputRecord
from verifier.subject import Subject

# Real numbers, which no machine executes.
REAL = "real"
# Errors are rounded up to so many bits: inputs of one class then mostly share a network.
BITS = 4
# Classes for which batches are made longer.
MOST_CLASSES = 10


def executed(subject: Subject, winner: int, errors: Sequence[float]) -> Subject:
    """Return the subject whose class `winner` wins a point exactly if it does whatever is rounded within errors."""
    network = handicapped(subject.network, winner, torch.tensor(errors, dtype=torch.float64))
    return dataclasses.replace(
        subject, network=network, agreement=None, classifier=None, sharper=None,
        runtime=lambda points: subject.outputs(points, ["a point that was tried"] * len(points)),
    )  # fmt: skip


def errors_on(subject: Subject, box: Box, arithmetic: Arithmetic) -> Tensor:
    """Return bounds of what rounding moves the scores by, `(batch, classes)`, over boxes of inputs."""
    return class_errors(subject.network, subject.classifier, box, arithmetic)


@dataclasses.dataclass(frozen=True, eq=False)
class Executions:
    """What is asked of executions of a subject; radius: of the largest balls. Subjects that were made are kept."""

    subject: Subject
    arithmetic: Arithmetic
    radius: float
    _known: dict[tuple[int, tuple[float, ...]], Subject] = dataclasses.field(default_factory=dict)

    def groups(self, plain: Batch, stated: Sequence[tuple[float, ...]]) -> list[Group]:
        """Return the inputs by their class, each with the greatest errors among them, or with those it stated before.

        stated: for each input the errors in its record, empty where there is none.
        """
        around = plain.region(self.radius)
        box = around.enclosure()
        farthest = torch.where(box.upper - around.centre > around.centre - box.lower, box.upper, box.lower)
        reach = max(plain.reach, float(around.distance(farthest).max()))
        pieces = torch.arange(len(plain), device=box.lower.device).split(BATCH_SIZE)
        errors = torch.cat([errors_on(self.subject, box[rows], self.arithmetic) for rows in pieces]).cpu()
        found = []
        for key, places in by_class(plain.classes.tolist(), errors, stated).items():
            if key not in self._known:
                self._known[key] = executed(self.subject, *key)
            index = torch.tensor(places, device=box.lower.device)
            mine = dataclasses.replace(plain.at(index), subject=self._known[key], domain=box[index], reach=reach)
            found.append(Group(tuple(places), mine, key[1]))
        return found

    def limited(self, answer: Answer) -> Answer:
        """Return the answer without what it says of balls beyond the largest, for which no errors are known."""
        bracket = answer.bracket
        lower, trusted = (min(end, self.radius) for end in (bracket.lower, bracket.trusted))
        return dataclasses.replace(answer, bracket=dataclasses.replace(bracket, lower=lower, trusted=trusted))


def by_class(
    classes: Sequence[int], errors: Tensor, stated: Sequence[tuple[float, ...]]
) -> dict[tuple[int, tuple[float, ...]], list[int]]:
    """Return places by (class, errors): the greatest of the class, or those that an input stated before.

    errors: what is enough for each input, `(batch, classes)`. What an input stated is kept, so that a run that is taken
    up again asks about the same network; where it is not enough it is not kept.
    """
    greatest = {winner: errors[[c == winner for c in classes]].amax(dim=0) for winner in set(classes)}
    found: dict[tuple[int, tuple[float, ...]], list[int]] = {}
    for place, (winner, before) in enumerate(zip(classes, stated, strict=True)):
        enough = len(before) == errors.shape[1] and bool((errors[place] <= errors.new_tensor(before)).all())
        key = (winner, before if enough else rounded_up(greatest[winner]))
        found.setdefault(key, []).append(place)
    return dict(sorted(found.items()))


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class ExecutedJob(DataJob):
    """Questions about executions."""

    executions: Executions

    def configuration(self, command: str) -> dict[str, Any]:
        asked = {"arithmetic": self.executions.arithmetic.name, "radius": self.executions.radius}
        return {**super().configuration(command), **asked}

    def together(self, wanted: int) -> int:
        """Return so many that there are about as many of each class as a method takes at once."""
        return wanted * min(self.subject.classes, MOST_CLASSES)

    @property
    def network(self) -> Network:
        return handicapped(self.subject.network, 0, torch.ones(self.subject.classes, dtype=torch.float64))

    def groups(self, plain: Batch, stated: Sequence[tuple[float, ...]]) -> list[Group]:
        return self.executions.groups(plain, stated)

    def limited(self, answer: Answer) -> Answer:
        return self.executions.limited(answer)


def load_executed_job(request: Request, arithmetic: str, radius: float) -> ExecutedJob:
    """Return the job; raise ValueError where nothing is known of such executions, and with what does not fit."""
    if arithmetic not in ARITHMETICS:
        raise ValueError(f"unknown arithmetic {arithmetic!r}; supported: {REAL}, {', '.join(ARITHMETICS)}")
    subject, dataset = classified(request, "certify")
    refusal = execution_refusal(subject.network, ARITHMETICS[arithmetic])
    if refusal is not None:
        raise ValueError(refusal)
    fields = job_fields(request, subject, dataset)
    return ExecutedJob(**fields, executions=Executions(fields["subject"], ARITHMETICS[arithmetic], radius))


@dataclasses.dataclass(frozen=True, eq=False)
class ExecutedClaims(Claims):
    """What a run about executions claims."""

    def asked(self, record: InputRecord) -> Subject:
        return executed(self.subject, record.head.label, self._errors(record))

    def _errors(self, record: InputRecord) -> tuple[float, ...]:
        errors = record.errors if isinstance(record, CertifyRecord) else ()
        if len(errors) != self.subject.classes:
            raise ClaimError(f"it states {len(errors)} errors of execution for {self.subject.classes} classes")
        return errors

    def _certificate(self, record: CertifyRecord, named: CertificateFile, lower: float) -> Certificate:
        """Return the certificate, once the errors that it allows for are seen to be enough on the whole ball."""
        arithmetic, radius = ARITHMETICS[self.configuration["arithmetic"]], float(self.configuration["radius"])
        refusal = execution_refusal(self.subject.network, arithmetic)
        if refusal is not None:
            raise CertificateError(refusal)
        if not lower <= radius:
            raise CertificateError(f"it claims radius {lower!r}, beyond {radius!r}, the largest of the run")
        box = self._around(self._centre(record.index)).with_radius(radius).enclosure()
        enough = class_errors(self.subject.network, self.subject.classifier, box, arithmetic)[0]
        stated = torch.tensor(self._errors(record), dtype=torch.float64)
        if not bool((enough <= stated).all()):
            place = int((enough > stated).nonzero()[0])
            raise CertificateError(
                f"class {place}: an execution may err by {float(enough[place]):.3g}, the record allows for "
                f"{float(stated[place]):.3g}"
            )
        return super()._certificate(record, named, lower)

    @property
    def _keeps_domain(self) -> bool:
        return False


def rounded_up(errors: Tensor) -> tuple[float, ...]:
    """Return numbers of at least 0 as ones of few bits that are not smaller."""
    mantissa, exponent = torch.frexp(errors.cpu())
    scale = 2.0**BITS
    return tuple(torch.ldexp((mantissa * scale).ceil() / scale, exponent).tolist())
