"""Estimators of robust radii by name: each finds an upper bound, the distance of a replayed counterexample, or nothing.

    attack              short descents at the radius, and projections on the nearest boundary where they broke
    restriction         the linear program in the regions of what `attack` found (Bastani et al. 2016, moved there)
    restriction-second  the program in the input's own region, second label: the estimator of the paper
    restriction-all     the same for all labels
    any attack's name   that attack alone, at the radius (fgsm, pgd, lbfgs: the paper's baselines)

What an estimator does not find within the radius it counts as robust, which is no proof.
"""

from __future__ import annotations

import dataclasses
import math
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch

from encoders.network import Network
from verifier.answers import Answer, Witness
from verifier.attacks import ATTACKS
from verifier.batch import Batch
from verifier.budget import Budget
from verifier.devices.parts import OUT_OF_MEMORY, in_parts
from verifier.methods.falsify import FalsifyMethod
from verifier.methods.in_memory import bracketed
from verifier.methods.restriction import RestrictionMethod
from verifier.restriction.optimum import Outcome
from verifier.restriction.pull import BEYOND, Programs, Targets
from verifier.solvers import find_solver
from verifier.witnesses.nearest import NearestAttack

PROGRAMS = ("restriction", "restriction-second", "restriction-all")


@dataclasses.dataclass(frozen=True, eq=False)
class Estimate:
    """What an estimator says about one input: a witness or None, how it went, and the seconds it took.

    execution_only: the distance of a point that is unsafe by the rounding of the model's execution alone.
    """

    witness: Witness | None
    outcome: str
    seconds: float
    execution_only: float | None = None

    @property
    def radius(self) -> float:
        """The distance of the witness; infinite without one."""
        return math.inf if self.witness is None else self.witness.distance

    def answer(self, name: str) -> Answer:
        """Return what the estimator of this name says of the input."""
        seen = Answer.open(execution_only=self.execution_only)
        return seen if self.witness is None else seen.merge(Answer.broken(self.witness, name))


@dataclasses.dataclass(frozen=True)
class Estimators:
    """The chosen estimators and their settings: margin, grid and solver of the programs (`RestrictionMethod`)."""

    names: tuple[str, ...]
    alpha: float = 0.0
    levels: int | None = None
    solver: str = "highs"

    def __post_init__(self) -> None:
        known = ("attack", *PROGRAMS, *(name for name in ATTACKS if name != "auto"))
        unknown = [name for name in self.names if name not in known]
        if unknown or not self.names:
            raise ValueError(f"unknown estimator {', '.join(unknown) or 'list (empty)'}; supported: {', '.join(known)}")
        if not self.alpha >= 0 or not math.isfinite(self.alpha):
            raise ValueError(f"alpha must be a finite number that is not negative, got {self.alpha}")
        if self.levels is not None and self.levels < 1:
            raise ValueError(f"a grid needs at least 1 level, got {self.levels}")
        find_solver(self.solver)

    def refuse(self, network: Network, scaled: bool = False) -> None:
        """Raise ValueError if an estimator cannot take the network, or a scale, with those that can."""
        refusal = RestrictionMethod().refusal(network)
        if scaled:
            refusal = "the programs of the restriction measure without a scale for each coordinate"
        if refusal is not None and any(name in PROGRAMS for name in self.names):
            raise ValueError(f"{refusal}; estimators that apply: attack and the names of attacks")

    def run(self, batch: Batch, epsilon: float, budget: Budget) -> dict[str, list[Estimate]]:
        """Return an estimate for each input of the batch under each name."""
        results: dict[str, list[Estimate]] = {}
        base: list[Estimate] | None = None
        for name in self.names:
            if name in ("attack", "restriction") and base is None:
                base = self._attack(NearestAttack(), batch, [epsilon, BEYOND * epsilon], budget)
            if name == "attack":
                assert base is not None
                results[name] = base
            elif name == "restriction":
                assert base is not None
                results[name] = self._pulled(batch, epsilon, base, budget)
            elif name in PROGRAMS:
                results[name] = self._own(batch, name, epsilon, budget)
            else:
                method = FalsifyMethod(name, [ATTACKS[name]])
                results[name] = self._attack(method, batch, [epsilon], budget)
        return results

    def _attack(
        self, attack: FalsifyMethod | NearestAttack, batch: Batch, radii: Sequence[float], budget: Budget
    ) -> list[Estimate]:
        started = time.perf_counter()
        within = [min(radius, batch.reach) for radius in radii]
        answers = bracketed(attack, batch, within, [Answer()] * len(batch), budget)
        share = (time.perf_counter() - started) / len(batch)
        stopped = Outcome.STOPPED if budget.exhausted else Outcome.BEYOND
        return [Estimate(a.witness, str(_outcome(a, stopped)), share, a.execution_only) for a in answers]

    def _pulled(self, batch: Batch, epsilon: float, base: list[Estimate], budget: Budget) -> list[Estimate]:
        programs = self._programs()

        def one(row: int) -> Estimate:
            before, started = base[row], time.perf_counter()
            witness = None if self.levels is not None and before.radius > 0.0 else before.witness
            if not budget.exhausted:
                pulled = programs.pull_within(batch.one(row), before.witness, epsilon, budget)
                witness = pulled if pulled is not None else witness
            outcome = Outcome.FOUND if witness is not None else Outcome(before.outcome)
            if before.witness is not None and witness is None:
                outcome = Outcome.STOPPED if budget.exhausted else Outcome.BEYOND
            spent = before.seconds + time.perf_counter() - started
            return Estimate(witness, str(outcome), spent, before.execution_only)

        return in_threads(one, [dataclasses.replace(estimate, outcome=str(Outcome.FULL)) for estimate in base])

    def _programs(self) -> Programs:
        return Programs(alpha=self.alpha, levels=self.levels, solver=self.solver)

    def _own(self, batch: Batch, name: str, epsilon: float, budget: Budget) -> list[Estimate]:
        targets: Targets = "all" if name == "restriction-all" else "second"
        programs = self._programs()

        def one(row: int) -> Estimate:
            started = time.perf_counter()
            witness, outcome = None, Outcome.STOPPED
            if not budget.exhausted:
                witness, outcome = programs.own(batch.one(row), epsilon, targets, budget)
            word = "not replayed" if outcome is Outcome.FOUND and witness is None else str(outcome)
            return Estimate(witness, word, time.perf_counter() - started)

        return in_threads(one, [Estimate(None, Outcome.FULL, 0.0)] * len(batch))


def in_threads(work: Callable[[int], Estimate], full: Sequence[Estimate]) -> list[Estimate]:
    """Return work(0), work(1), ..., one thread for each core: solving an LP holds no lock.

    full: for each input what is said of it where a device's memory does not hold it.
    """
    workers, before = max(1, min(len(full), os.cpu_count() or 1)), torch.get_num_threads()

    def one(row: int) -> Estimate:
        return in_parts(lambda part: work(row), 1, 1, lambda place: full[row])[0]

    # Each thread computes on one core: torch's own threads would only wait for each other.
    with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        results = list(pool.map(one, range(len(full))))
    torch.set_num_threads(before)
    return results


def _outcome(answer: Answer, nothing: Outcome) -> Outcome:
    """Return what became of an attack; nothing: where it has found nothing, having ended."""
    if answer.witness is not None:
        return Outcome.FOUND
    return Outcome.FULL if answer.reason == OUT_OF_MEMORY else nothing
