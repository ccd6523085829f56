"""Verdicts of methods about a drawn case, called in one process and held against exact oracles: thousands a minute.

Balls of the three norms and boxes with rows, in real arithmetic and in float32. What is claimed of real numbers is held
against `tests.oracles.exact_radius` where the network is rational and of two inputs at most, against samples where it
is not; what is claimed of executions is held against that too, and against executions drawn by
`tests.oracles.executions`. Certificates go to both checkers.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction

import numpy as np
import torch
from torch import Tensor

from encoders.arithmetic import ARITHMETICS
from encoders.box import Box
from encoders.passes.class_scores import class_scores
from encoders.passes.execution_margins import execution_errors, execution_refusal
from encoders.property import Property
from encoders.region import NORMS
from tests.networks.random_properties import random_property
from tests.oracles.definitions import DECIMALS, value_at
from tests.oracles.exact_checker import holds_exactly
from tests.oracles.exact_radius import ORDERED, ExactOracle
from tests.oracles.executions import execution
from tests.oracles.polygons import clipped, unsafe_corners
from tests.whole_runs.cases import AROUND, RADII, Case, draw_case, floats_at
from tests.whole_runs.runs import Claims, Tally
from verifier.answers import Answer
from verifier.batch import Batch
from verifier.bounds.certify import certificate_of
from verifier.budget import Budget
from verifier.certificates.certificate import Certificate
from verifier.certificates.error import CertificateError
from verifier.commands.executed import Executions
from verifier.methods import METHODS
from verifier.methods.base import Method
from verifier.methods.grouped import by_groups
from verifier.properties import PropertyWitness, ask
from verifier.subject import Subject
from verifier.surroundings import Surroundings

F64 = torch.float64
REAL, EXECUTED = "real", "float32"
# Inputs of a question about balls, boxes of a question about rows, and how often of ten cases a method is asked: what
# takes long is asked seldom, and about few.
EFFORT = {
    "interval": (240, 4, 10), "lipschitz": (240, 0, 5), "contraction": (60, 3, 6), "crown": (240, 4, 10),
    "alpha-crown": (120, 2, 3), "lp": (6, 2, 2), "input-split": (8, 3, 5), "exact": (12, 3, 5), "auto": (12, 2, 2),
    "milp": (2, 1, 1), "restriction": (4, 0, 1), "planes": (16, 2, 2),
}  # fmt: skip
# Inputs of a case: many, because what is asked of a batch costs little more for each further input.
INPUTS = 240
# Share of the questions that are about brackets of radii, each some twelve verdicts, and inputs of such a question.
BRACKETS, BRACKETED = 0.2, 40
# Seconds of a question about one input, which on such networks only what has gone wrong takes.
SECONDS = 5.0
# Certificates of a question that are made again and given to the checkers.
CERTIFICATES = 2
# Points of a ball that is claimed, and executions of each.
POINTS, EXECUTIONS = 12, 4
# Inputs of a case that only samples judge: each takes a search of its own.
SAMPLED = 6


@dataclass
class Counts:
    """Verdicts by (kind, method, arithmetic, word); wrong: what does not hold; trusted: solvers' words that do not."""

    verdicts: Counter[tuple[str, ...]] = field(default_factory=Counter)
    certificates: Counter[str] = field(default_factory=Counter)
    executions: int = 0
    wrong: list[str] = field(default_factory=list)
    trusted: list[str] = field(default_factory=list)

    @property
    def cases(self) -> int:
        """How many questions (network, property, method, arithmetic) were asked and judged."""
        return sum(self.verdicts.values())


class Judged:
    """A drawn case, its subject, and what its verdicts are held against."""

    def __init__(self, seed: int) -> None:
        self.case: Case = draw_case(seed, INPUTS)
        self.rng, self.counts, self.tally = random.Random(f"verdicts {seed}"), Counts(), Tally()
        network = self.case.network
        self.claims = Claims(self.case, self.tally)
        subject = Subject("drawn", network, lambda x: _run(network, x), torch.device("cpu"))
        scores = class_scores(network)
        self.subject = replace(subject, network=scores.network, classifier=scores) if scores.note else subject
        self.x = torch.from_numpy(self.case.x)
        predictions = self.subject.execute(self.x).argmax(axis=1)
        self.rows = np.flatnonzero(predictions == self.case.y).tolist()
        if self.case.oracle is None:
            self.rows = self.rows[:SAMPLED]

    def run(self) -> Counts:
        """Return what all questions about the case came to."""
        for method, (inputs, boxes, often) in EFFORT.items():
            if self.rng.randrange(10) >= often:
                continue
            for arithmetic in (REAL, EXECUTED):
                self._guarded(self.balls, method, inputs, "inf", arithmetic)
            norms = [norm for norm in NORMS if norm in METHODS[method].norms and norm != "inf"]
            if norms and self.rng.random() < 0.3:
                self._guarded(self.balls, method, inputs, self.rng.choice(norms), self.rng.choice([REAL, EXECUTED]))
            for _ in range(boxes):
                self._guarded(self.rows_of_outputs, method)
        self._guarded(self.errors)
        self._guarded(self.claims.settle)
        self.counts.trusted += self.tally.false_trust
        return self.counts

    def _guarded(self, ask: object, *arguments: object) -> None:
        """Ask, and keep what does not hold; whatever else is raised is wrong, too."""
        try:
            ask(*arguments)  # type: ignore[operator]
        except Exception as error:
            where = " ".join(str(argument) for argument in arguments)
            self.counts.wrong.append(f"seed {self.case.seed} {where}: {type(error).__name__}: {error}")

    # -------------------------------------------------------------------------------------------------------- balls

    def balls(self, method: str, inputs: int, norm: str, arithmetic: str) -> None:
        """Ask for verdicts about balls of some inputs, of a radius each or of brackets of radii, and judge them."""
        rows = self.rng.sample(self.rows, min(inputs, len(self.rows)))
        asked = METHODS[method]
        brackets = self.rng.random() < BRACKETS
        if brackets:
            rows = rows[:BRACKETED]
        if not rows or norm not in asked.norms or asked.refusal(self.subject.network) is not None:
            return
        shared = sorted(set(self.case.radii(self.rng, norm)))
        radii = [shared if brackets else [self._radius(row, norm)] for row in rows]
        batch = self._batch(rows, norm)
        if arithmetic == REAL:
            answers, batches = self._answers(asked, batch, radii, brackets), [batch.one(i) for i in range(len(rows))]
        else:
            found = self._of_executions(asked, batch, radii, arithmetic, brackets)
            if found is None:
                return
            answers, batches = found
        for row, answer, each in zip(rows, answers, radii, strict=True):
            self._judge_ball(row, answer, each, norm, (method, arithmetic))
        if arithmetic != REAL:
            self._judge_executions(rows, batch, answers, f"{method} {norm}")
        if norm == "inf":
            self._judge_certificates(batches, answers, method, arithmetic)

    @staticmethod
    def _answers(method: Method, batch: Batch, radii: Sequence[list[float]], brackets: bool) -> list[Answer]:
        """Return answers about brackets of the same radii, or about a ball each, of the only radius given for it."""
        budget = Budget(SECONDS * len(batch))
        if brackets:
            return method.bracket(batch, radii[0], [Answer()] * len(batch), budget)
        return method.decide(batch, batch.region(torch.tensor([radius for (radius,) in radii], dtype=F64)), budget)

    def _of_executions(
        self, method: Method, batch: Batch, radii: Sequence[list[float]], arithmetic: str, brackets: bool
    ) -> tuple[list[Answer], list[Batch]] | None:
        """Return answers about executions and what was asked, or none where executions have no bound."""
        if execution_refusal(self.subject.network, ARITHMETICS[arithmetic]) is not None:
            return None
        executions = Executions(self.subject, ARITHMETICS[arithmetic], max(max(each) for each in radii))
        try:
            groups = executions.groups(batch, [()] * len(batch))
        except ValueError as error:
            assert "which of its inputs its execution still tells apart is not known" in str(error), error
            return None
        grouped = by_groups(method, groups, batch)
        if grouped.refusal(self.subject.network) is not None:
            return None
        if brackets:
            answers = self._answers(grouped, batch, radii, brackets)
        else:
            answers = [Answer()] * len(batch)
            for group in groups:
                own = self._answers(method, group.batch, [radii[place] for place in group.places], brackets)
                for place, answer in zip(group.places, own, strict=True):
                    answers[place] = answer
        placed = {place: group.batch.one(i) for group in groups for i, place in enumerate(group.places)}
        return [executions.limited(answer) for answer in answers], [placed[i] for i in range(len(batch))]

    def _radius(self, row: int, norm: str) -> float:
        """Return a radius to ask about: half of the time the exact one of the input, or a float beside it."""
        exact = None
        if self.case.oracle is not None and self.rng.random() < 0.5:
            exact = self.case.distance(row, int(self.case.y[row]), norm)
        return self.rng.choice(RADII if exact is None else floats_at(exact, norm))

    def _judge_ball(self, row: int, answer: Answer, radii: Sequence[float], norm: str, asked: tuple[str, str]) -> None:
        bracket, label = answer.bracket, int(self.case.y[row])
        words = {str(bracket.at(radius)) for radius in radii}
        word = "both" if len(words - {"open"}) > 1 else next(iter(sorted(words - {"open"})), "open")
        self.counts.verdicts[f"ball-{norm}", *asked, word] += 1
        where = f"{' '.join(asked)} {norm}"
        if asked[1] == REAL:
            self.claims.take(row, label, norm, bracket, where)
            if answer.witness is not None:
                self.claims.take_witness(row, label, norm, answer.witness.point.numpy(), bracket.upper, where)
            return
        # A witness of executions may be safe in real arithmetic; what is certified may not be unsafe there.
        proofs = replace(bracket, upper=math.inf, upper_method="")
        self.claims.take(row, label, norm, proofs, where)
        if answer.witness is not None:
            outputs = self.subject.execute(answer.witness.point[None])[0]
            unsafe = max(np.delete(outputs, label)) >= outputs[label]
            assert unsafe, f"{where}, input {row}: the witness is executed safely"

    def _batch(self, rows: Sequence[int], norm: str) -> Batch:
        centres, domain = self.x[rows].to(F64), self.case.domain
        around = Surroundings(tuple(self.x.shape[1:]), domain)
        reach = around.reach(float(self.x.min()), float(self.x.max()), norm)  # type: ignore[arg-type]
        classes = torch.from_numpy(self.case.y[rows])
        return Batch(self.subject, centres, classes, tuple(rows), domain, reach, norm)  # type: ignore[arg-type]

    def _judge_executions(self, rows: Sequence[int], batch: Batch, answers: Sequence[Answer], where: str) -> None:
        """Execute points of balls that are claimed, in orders that are drawn."""
        proved = [i for i, answer in enumerate(answers) if answer.bracket.lower >= 0]
        if not proved:
            return
        part = batch.at(torch.tensor(proved))
        region = part.region(torch.tensor([answers[i].bracket.lower for i in proved], dtype=F64))
        box = region.enclosure()
        generator = torch.Generator().manual_seed(self.rng.randrange(2**31))
        steps = torch.rand(POINTS, *box.lower.shape, generator=generator, dtype=F64)
        # Half of them at corners, where margins are least.
        steps[::2] = steps[::2].round()
        if self.case.oracle is not None:
            # The way to unsafe points, as far as the ball reaches.
            for number, i in enumerate(proved):
                polygons = self.case.oracle.unsafe(int(part.classes[number]))  # type: ignore[attr-defined]
                for draw in range(POINTS // 3 if polygons else 0):
                    corner = self.rng.choice(self.rng.choice(polygons))[: self.x[rows[i]].numel()]
                    target = torch.tensor([float(c) for c in corner], dtype=F64).reshape(box.lower.shape[1:])
                    width = (box.upper[number] - box.lower[number]).clamp(min=1e-300)
                    steps[draw, number] = ((target - box.lower[number]) / width).clamp(0.0, 1.0)
        for step in steps:
            points = region.clip(box.lower + step * (box.upper - box.lower), torch.float32)
            inside = region.contains(points)
            for _ in range(EXECUTIONS):
                outputs = self._executed(points)
                own = outputs[torch.arange(len(points)), part.classes]
                others = outputs.scatter(1, part.classes[:, None], -math.inf).amax(dim=1)
                wrong = torch.nonzero(inside & ~(own > others)).flatten().tolist()
                if wrong:
                    i = proved[wrong[0]]
                    lower, point = answers[i].bracket.lower, points[wrong[0]].flatten().tolist()
                    raise AssertionError(
                        f"{where}: UNSOUND, an execution at {point} changes the class of input {rows[i]}, for which "
                        f"{lower!r} is certified"
                    )
                self.counts.executions += int(inside.sum())

    def _executed(self, points: Tensor) -> Tensor:
        """Return scores `(batch, classes)` of an execution of the whole model."""
        outputs = execution(self.case.network, points, self.rng)
        classifier = self.subject.classifier
        return outputs if classifier is None else torch.from_numpy(classifier.read(outputs.numpy()))

    def errors(self) -> None:
        """Hold drawn executions against the values of definitions and the errors that are stated at points."""
        network = self.case.network
        if execution_refusal(network, ARITHMETICS[EXECUTED]) is not None:
            return
        points = self.x[self.rng.sample(range(len(self.x)), 4)]
        _, stated = execution_errors(network, Box.point(points.to(F64)), ARITHMETICS[EXECUTED])
        for row, point in enumerate(points):
            exact = value_at(DECIMALS, network, point)
            for _ in range(EXECUTIONS):
                outputs = execution(network, point[None], self.rng)[0].tolist()
                for value, real, error in zip(outputs, exact, stated[row].tolist(), strict=True):
                    # What may overflow has no bound.
                    far = math.isfinite(error) and not abs(real - value) <= error
                    assert not far, f"errors: UNSOUND, {value!r} for {real}, within {error!r} as stated"
                self.counts.executions += 1

    # -------------------------------------------------------------------------------------------------- certificates

    def _judge_certificates(
        self, batches: Sequence[Batch], answers: Sequence[Answer], method: str, arithmetic: str
    ) -> None:
        """Give certificates to both checkers: those that the method made, and some that are made of what it proved."""
        given = 0
        for one, answer in zip(batches, answers, strict=True):
            lower = answer.bracket.lower
            if lower < 0 or given == CERTIFICATES:
                continue
            made: Certificate | str | None = answer.certificate
            if made is None:
                made = certificate_of(one, lower, Budget(SECONDS), answer.bracket.lower_method)
            if isinstance(made, str):
                self.counts.certificates["none"] += 1
                continue
            given += 1
            try:
                made.check(one.subject.network)
            except CertificateError as error:
                raise AssertionError(f"{method} {arithmetic}: the check refuses a certificate: {error}") from None
            exact = holds_exactly(made, one.subject.network)
            assert exact is not False, f"{method} {arithmetic}: the exact checker refuses a certificate"
            self.counts.certificates["by both" if exact else "by the fast one alone"] += 1

    # ---------------------------------------------------------------------------------------------------------- rows

    def rows_of_outputs(self, method: str) -> None:
        """Ask about a box and an unsafe set of rows, and judge the verdict."""
        network, last = self.case.network, self.case.network.output.op
        rational = not isinstance(last, ORDERED) and not (last.kind == "mwd" and last.link is None)  # type: ignore[attr-defined]
        if self.case.oracle is None or not rational:
            return
        ends = self.case.domain or (-AROUND, 1.0 + AROUND)
        asked = random_property(network, self.rng.randrange(2**31), within=ends)
        subject = replace(self.subject, network=network, classifier=None)
        question = ask(subject, asked, self.case.seed)
        prover = METHODS[method]
        if question.region.norm not in prover.norms or prover.refusal(question.network) is not None:
            return
        (answer,) = prover.decide(question.batch, question.region, Budget(SECONDS))
        safe = answer.bracket.lower >= float(question.region.radius[0])
        found = None if answer.witness is None else question.confirm(answer.witness.point)
        word = "unsat" if safe else "sat" if isinstance(found, PropertyWitness) else "open"
        self.counts.verdicts["rows", method, REAL, word] += 1
        if word == "open":
            return
        corners = unsafe_corners(self._pieces_in(asked), asked.unsafe)
        where = f"{method} rows {asked.name}"
        assert not (safe and corners), f"{where}: UNSOUND, unsafe at {[str(c) for c in corners[:1]]}"
        if isinstance(found, PropertyWitness):
            assert corners, f"{where}: a witness where nothing is unsafe"
            assert asked.contains(found.point, torch.from_numpy(found.outputs)), f"{where}: the witness is none"

    def _pieces_in(self, asked: Property) -> list[tuple[list, Sequence]]:
        """Return the pieces of the network on the box of a property."""
        least, greatest = float(asked.lower.min()), float(asked.upper.max())
        pieces = ExactOracle.of(self.case.network, least, greatest).pieces
        lower, upper = asked.lower.flatten().tolist(), asked.upper.flatten().tolist()
        found = []
        for polygon, planes in pieces:
            part = list(polygon)
            for axis, (a, b) in enumerate(zip(lower, upper, strict=True)):
                slopes = (Fraction(axis == 0), Fraction(axis == 1))
                for sign, end in ((1, a), (-1, b)):
                    plane = (sign * slopes[0], sign * slopes[1], -sign * Fraction(end))
                    part = clipped(part, plane) if part else part
            if part:
                found.append((part, planes))
        return found


def judge(seed: int) -> Counts:
    """Return what all questions about the case of a seed came to."""
    return Judged(seed).run()


def _run(network: object, x: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return network.evaluate(torch.from_numpy(x)).numpy()  # type: ignore[attr-defined]
