"""Whole runs of a case as a user starts them, and what the oracles say of every bracket and witness they leave."""

from __future__ import annotations

import json
import math
import random
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tests.oracles.definitions import FRACTIONS, value_at
from tests.oracles.exact_radius import ORDERED
from tests.oracles.sampled import DECIDED, away, margin_at, numbers_of, unsafe_point, within
from tests.whole_runs.cases import AROUND, INPUTS, Case, draw_case
from tests.whole_runs.files import FORMS, model_of
from verifier import attack, certify, check, compare, robustness
from verifier.attacks import ATTACKS
from verifier.methods import METHODS
from verifier.verdict import Bracket

PAIRS = [(method, norm) for method in METHODS for norm in METHODS[method].norms]
# Inputs of a run, where each takes long, and seconds for each. Others take all inputs at once.
LIMITS = {
    "alpha-crown": 8,
    "planes": 8,
    "lp": 5,
    "restriction": 6,
    "exact": 8,
    "auto": 8,
    "input-split": 8,
    "milp": 2,
    "milp-cbc": 2,
}
SECONDS = {"milp": 5.0, "milp-cbc": 5.0, "input-split": 5.0}
# What looks whether an input ties before all else: a tie in reals and in execution is a counterexample at 0.
SEES_TIES = ("auto", "exact", "milp", "milp-cbc", "restriction")
# How often a pair is drawn: brackets that cost little are many.
OFTEN = [1 if method in LIMITS else 3 for method, _ in PAIRS]
# What a run may refuse, by the beginning of its message: a method that does not take an op.
REFUSALS = tuple(f"method {name!r} " for name in METHODS)
# Radii of the same ball in the norms: each of these is at most the next.
ORDER = ("inf", "2", "1")


@dataclass
class Tally:
    """What was checked: brackets, and which ops, methods (with the ends they moved), norms and forms took part."""

    brackets: int = 0
    witnesses: int = 0
    checked: int = 0
    resumed: int = 0
    ties: int = 0
    ops: set[str] = field(default_factory=set)
    pairs: set[tuple[str, str]] = field(default_factory=set)
    forms: Counter[str] = field(default_factory=Counter)
    words: Counter[tuple[str, str]] = field(default_factory=Counter)
    refusals: Counter[str] = field(default_factory=Counter)
    false_trust: list[str] = field(default_factory=list)


def run_case(
    seed: int, folder: Path, tally: Tally, runs: int = 4, pairs: Sequence[tuple[str, str]] = (), limit: int = INPUTS
) -> None:
    """Start some runs of the case of a seed and check all that they claim; AssertionError says what does not hold.

    pairs: (method, norm) of the runs, drawn if there are none. limit: inputs of a run at most.
    """
    case, rng = draw_case(seed), random.Random(f"runs {seed}")
    form, model = _model(case, rng, folder)
    data: Any = (case.x, case.y)
    if rng.random() < 0.7:
        data = folder / "data.npz"
        np.savez(data, x=case.x, y=case.y)
    claims = Claims(case, tally)
    for number, (method, norm) in enumerate(pairs or rng.choices(PAIRS, OFTEN, k=runs)):
        place = folder / f"run{number}"
        run = WholeRun(case, model, data, method, norm, place, min(limit, LIMITS.get(method, INPUTS)), claims, tally)
        if run.certify(case.radii(rng, norm)) and rng.random() < 0.4:
            run.again(case.radii(rng, norm))
        if isinstance(model, Path) and isinstance(data, Path) and place.exists() and rng.random() < 0.5:
            found = check(place, allow_uncertified=True)
            assert not found.refused, f"{method} {norm}: check refuses {found.refused}"
            tally.checked += 1
    _other_verbs(case, model, data, rng, claims)
    claims.settle()
    tally.forms[form] += 1


def _model(case: Case, rng: random.Random, folder: Path) -> tuple[str, Any]:
    form = rng.choices(FORMS, (5, 3, 2))[0]
    model = model_of(case.network, form, folder)
    return (form, model) if model is not None else ("native", model_of(case.network, "native", folder))


@dataclass
class WholeRun:
    """One run of `certify` in a folder."""

    case: Case
    model: Any
    data: Any
    method: str
    norm: str
    folder: Path
    limit: int
    claims: Claims
    tally: Tally
    radii: tuple[float, ...] = ()
    found: dict[int, Bracket] = field(default_factory=dict)

    def certify(self, radii: list[float]) -> bool:
        """Run it; whether it was not refused."""
        self.radii = (*self.radii, *radii)
        try:
            result = certify(
                self.model, self.data, self.radii, method=self.method, norm=self.norm, clip=self.case.domain,
                out=self.folder, seed=self.case.seed, limit=self.limit,
                time_limit=SECONDS.get(self.method, math.inf),
            )  # fmt: skip
        except ValueError as error:
            assert str(error).startswith(REFUSALS), f"{self.method} {self.norm}: {error}"
            self.tally.refusals[self.method] += 1
            return False
        self.tally.pairs.add((self.method, self.norm))
        self.tally.ops |= {node.op.kind for node in self.case.network.nodes}
        self._check_counts(result)
        self.found = result.brackets
        self._check_files(result)
        return True

    def again(self, more: list[float]) -> None:
        """Resume the run: the same radii change nothing, more of them lose nothing."""
        before = dict(self.found)
        self.certify([])
        # What the clock stopped is taken up again.
        assert self.found == before or self.method in SECONDS, f"{self.method} {self.norm}: resumed with other brackets"
        self.certify(more)
        for index, bracket in before.items():
            now = self.found[index]
            assert now.lower >= bracket.lower and now.upper <= bracket.upper, f"{index}: {bracket} became {now}"
        self.tally.resumed += 1

    def _check_counts(self, result: Any) -> None:
        assert result.inputs == self.limit
        for at in result.results:
            epsilon, brackets = at.epsilon, list(result.brackets.values())
            certified = sum(b.lower >= epsilon for b in brackets)
            falsified = sum(b.upper <= epsilon for b in brackets)
            counted = (at.certified, at.falsified, at.open)
            assert counted == (certified, falsified, len(brackets) - certified - falsified), f"{at}: {brackets}"
        for bracket in result.brackets.values():
            for epsilon in self.radii:
                word = "certified" if bracket.lower >= epsilon else "falsified" if bracket.upper <= epsilon else "open"
                self.tally.words[self.method, word] += 1

    def _check_files(self, result: Any) -> None:
        """Check the brackets, as returned and as recorded, and the witnesses."""
        records: dict[int, Any] = {}
        for line in (self.folder / "records.jsonl").read_text().splitlines():
            record = json.loads(line)
            records[record["index"]] = record
        assert records.keys() == set(range(result.inputs))
        witnesses = read_witnesses(self.folder)
        where = f"{self.method} {self.norm}"
        for index, record in records.items():
            assert record["correct"] is (index in result.brackets)
            self.claims.take_prediction(index, record["prediction"])
            if index not in result.brackets:
                continue
            bracket = result.brackets[index]
            ends = {"lower": bracket.lower, "upper": bracket.upper}
            assert {name: math.inf if record[name] is None else record[name] for name in ends} == ends
            self.claims.take(index, record["prediction"], self.norm, bracket, where)
            if self.method in SEES_TIES and self.case.ties(index):
                assert bracket.upper == 0.0, f"{where}, input {index} ties: {bracket}"
                self.tally.ties += 1
            if math.isfinite(bracket.upper):
                point, distance = witnesses[index]
                assert distance <= bracket.upper, f"{where}, input {index}: {distance} for {bracket}"
                self.claims.take_witness(index, record["prediction"], self.norm, point, distance, where)


def read_witnesses(folder: Path) -> Mapping[int, tuple[np.ndarray, float]]:
    path = folder / "witnesses.npz"
    if not path.exists():
        return {}
    with np.load(path) as arrays:
        columns = (arrays["index"].tolist(), arrays["x"], arrays["distance"].tolist())
        return {index: (x, distance) for index, x, distance in zip(*columns, strict=True)}


def _other_verbs(case: Case, model: Any, data: Any, rng: random.Random, claims: Claims) -> None:
    """Now and then ask the other verbs, whose references are the predicted classes."""
    draw, epsilon = rng.random(), max(case.radii(rng, "inf"))
    options: dict[str, Any] = {"clip": case.domain, "seed": case.seed}
    predictions = claims.predictions
    if draw < 0.08:
        norm = rng.choice(ORDER)
        result = compare(model, data, epsilon, methods=(), norm=norm, limit=3, time_limit=5.0, **options)
        violations = [v for v in result.violations if "milp" not in v[1]]
        assert not violations, f"compare {norm}: {violations}"
        for method, brackets in result.brackets.items():
            for index, bracket in zip(result.indices, brackets, strict=True):
                if index in predictions:
                    claims.take(index, predictions[index], norm, bracket, f"compare {method} {norm}")
    elif draw < 0.2:
        found = robustness(model, data, epsilon, limit=6, **options)
        for index, bracket in zip(found.indices, found.brackets, strict=True):
            if index in predictions:
                claims.take(index, predictions[index], "inf", bracket, "robustness")
    elif draw < 0.4:
        name = rng.choice(list(ATTACKS))
        norm = rng.choice([norm for norm in ORDER if norm in ATTACKS[name].norms] or ["inf"])
        try:
            attacked = attack(model, data, name, epsilon, norm=norm, limit=4, **options)
        except ValueError as error:
            assert "attack" in str(error), str(error)
            return
        for index, example in attacked.examples.items():
            claims.take_witness(index, example.label, norm, example.point, example.distance, f"attack {name} {norm}")


class Claims:
    """All that the runs of a case claim, against the exact oracle at once, against samples in the end."""

    def __init__(self, case: Case, tally: Tally) -> None:
        self.case, self.tally = case, tally
        self.predictions: dict[int, int] = {}
        self.lower: dict[tuple[int, int, str], tuple[float, str]] = {}
        self.upper: dict[tuple[int, int, str], tuple[float, str]] = {}

    def take_prediction(self, index: int, prediction: int) -> None:
        """Check that no run calls an input otherwise than another did."""
        assert self.predictions.setdefault(index, prediction) == prediction, f"input {index} changes its class"

    def take(self, index: int, reference: int, norm: str, bracket: Bracket, where: str) -> None:
        """Check lower < rho <= upper."""
        self.tally.brackets += 1
        key, where = (index, reference, norm), f"{where}, input {index}"
        if self.case.oracle is not None:
            exact = self.case.distance(*key)
            beyond = math.inf if self.case.domain is not None else AROUND
            shown = "none" if exact is None else f"{float(exact)!r}{' (squared)' if norm == '2' else ''}"
            if bracket.lower >= 0 and exact is not None:
                assert not within(exact, bracket.lower, norm), f"{where}: UNSOUND, {bracket}, exact distance {shown}"
            if math.isfinite(bracket.upper):
                holds = within(exact, bracket.upper, norm) if exact is not None else bracket.upper > beyond
                assert holds, f"{where}: a witness nearer than any is, {bracket}, exact distance {shown}"
            if bracket.trusted >= 0 and exact is not None and within(exact, bracket.trusted, norm):
                self.tally.false_trust.append(f"seed {self.case.seed} {where}: {bracket}, exact distance {shown}")
        if bracket.lower > self.lower.get(key, (-1.0, ""))[0]:
            self.lower[key] = (bracket.lower, where)
        if bracket.upper < self.upper.get(key, (math.inf, ""))[0]:
            self.upper[key] = (bracket.upper, where)

    def take_witness(self, index: int, reference: int, norm: str, point: np.ndarray, radius: float, where: str) -> None:
        """Check that a point is unsafe in real arithmetic, in the domain, and where it is said to be."""
        self.tally.witnesses += 1
        network, where = self.case.network, f"{where}, input {index}"
        at, centre = numbers_of(point), numbers_of(self.case.x[index])
        assert within(away(at, centre, norm), radius, norm), f"{where}: the witness is not within {radius}"
        if self.case.domain is not None:
            assert self.case.domain[0] <= float(at.min()) and float(at.max()) <= self.case.domain[1], where
        last = network.output
        target = last.inputs[0] if isinstance(last.op, ORDERED) else last.name
        if self.case.oracle is not None and last.op.kind != "mwd":
            values = value_at(FRACTIONS, network, at, target)
            assert values[reference] <= max(np.delete(values, reference)), f"{where}: the witness is safe"
        else:
            assert margin_at(network, at, reference) <= DECIDED, f"{where}: the witness is safe"

    def settle(self) -> None:
        """Compare all runs with each other, and look for unsafe points in the largest balls that were proved safe."""
        for (index, reference, norm), (radius, where) in self.lower.items():
            for other in ORDER[ORDER.index(norm) :]:
                upper, finder = self.upper.get((index, reference, other), (math.inf, ""))
                assert radius < upper or math.isinf(upper), f"{where} proves {radius}, {finder} finds {upper}"
            if self.case.oracle is None and radius >= 0:
                centre = numbers_of(self.case.x[index])
                found = unsafe_point(self.case.network, centre, reference, norm, radius, self.case.domain)
                assert found is None, f"{where}: UNSOUND, {radius} proved, unsafe {found.tolist()}"


def fuzz(seeds: Iterable[int], brackets: float = math.inf, **settings: Any) -> tuple[Tally, dict[int, str]]:
    """Return what was checked, case by case until there are so many brackets, and what failed by seed.

    settings: of `run_case`.
    One case again: `python -c "from tests.whole_runs.runs import fuzz; print(fuzz([SEED])[1])"`.
    """
    tally, failures = Tally(), {}
    for seed in seeds:
        if tally.brackets >= brackets:
            break
        with tempfile.TemporaryDirectory() as folder:
            try:
                run_case(seed, Path(folder), tally, **settings)
            except Exception as error:
                # Whatever a run raises that it should not.
                failures[seed] = f"{type(error).__name__}: {error}"
    return tally, failures
