"""Exact answers: branch and bound over signs for networks of relus, contraction with branching for MWD networks."""

import math
from collections.abc import Sequence
from functools import partial

import torch

from encoders.network import Network
from encoders.passes import expand_max_pools
from encoders.region import BallRegion
from verifier.answers import Answer, merged
from verifier.batch import Batch
from verifier.bounds.split.search import BallSearch
from verifier.budget import Budget
from verifier.certificates.distance_chain import chain_refusal
from verifier.certificates.scope import MOST_MULTIPLICATIONS, multiplications, stage_sizes, too_large
from verifier.certificates.split_program import split_refusal
from verifier.methods.base import Method
from verifier.methods.bisection import bisect_brackets
from verifier.methods.contraction import ContractionMethod
from verifier.methods.one_by_one import Tried, one_by_one
from verifier.methods.paused import Paused
from verifier.restriction.pull import Programs

# Boxes that contraction examines for each class: in practice until it is done.
CONTRACTION_NODES = 1_000_000


class ExactMethod(Method):
    """Proves and finds until nothing is open but ties within rounding, if the time lasts.

    subproblems: of a ball, for each class; gap: brackets with a witness are closed to this width, in units of the
    inputs' size (`Batch.units`), by at most `refinements` further decisions. hinges: a network with more hinge units or
    of MWD layers is refused; None takes any. That is for a portfolio, where contraction has done its work and a large
    network would take minutes an input.
    """

    name = "exact"
    # Works input by input, some of which take a hundred times as long as others: 64 together leave one of eight workers
    # alone at the end (busy for 0.86 of the time by counting; 0.94 with 16).
    batch_size = 16
    scales = True
    proves = True
    finds = True

    def __init__(
        self, subproblems: int = 200_000, gap: float = 1e-4, refinements: int = 4, hinges: int | None = None
    ) -> None:
        self.subproblems, self.gap, self.refinements, self.hinges = subproblems, gap, refinements, hinges
        self._contraction = ContractionMethod(CONTRACTION_NODES, 60 if refinements else 0, gap)
        self._programs = Programs()

    def refusal(self, network: Network) -> str | None:
        if chain_refusal(network, self.name) is None:
            return None if self.hinges is None else "contraction decides networks of MWD layers"
        node = split_refusal(network)
        if node is not None:
            return (
                f"method {self.name!r} takes networks of affine ops with relu, leaky-relu, abs and max pools, or of "
                f"MWD layers; node {node.name!r} is {node.op.kind}"
            )
        plain = expand_max_pools(network)
        units = stage_sizes(plain)[0]
        if self.hinges is not None and units > self.hinges:
            return f"{units} hinge units are more than the {self.hinges} of a portfolio"
        if multiplications(plain) > MOST_MULTIPLICATIONS:
            return f"method {self.name!r} {too_large(plain)}"
        return None

    def decide(self, batch: Batch, region: BallRegion, budget: Budget) -> list[Answer]:
        if chain_refusal(batch.subject.network, self.name) is None:
            return self._contraction.decide(batch, region, budget)
        return one_by_one(partial(self._decide_one, None), batch, region, budget)

    def go_on(self, batch: Batch, region: BallRegion, budget: Budget, paused: Paused) -> list[Answer]:
        """Return what `decide` does of a batch of one; contraction has no more nodes the second time than the first."""
        if chain_refusal(batch.subject.network, self.name) is not None:
            return one_by_one(partial(self._decide_one, paused), batch, region, budget)
        answer = paused.take(self._contraction.name, Answer)
        if answer is None:
            (answer,) = self._contraction.decide(batch, region, budget)
        paused.keep(self._contraction.name, answer)
        return [answer]

    def bracket(
        self, batch: Batch, epsilons: Sequence[float], answers: Sequence[Answer], budget: Budget
    ) -> list[Answer]:
        """Decide the requested radii that are open in rising order, then close the brackets that have a witness.

        Each witness is pulled to the nearest of its linear region first: mostly the ball just short of it is safe then,
        so that one decision closes the bracket, and a counterexample brings a nearer witness. The middle is asked
        about, after that, until the lower end is half of the upper one, and where just short is too hard: proofs of
        larger balls take most of the time, and only the last counts.
        """
        if chain_refusal(batch.subject.network, self.name) is None:
            return self._contraction.bracket(batch, epsilons, answers, budget)
        known = bisect_brackets(self, batch, [0.0, *epsilons], answers, budget, 0)
        failed = torch.full((len(batch),), math.inf, dtype=torch.float64)
        pulled: dict[int, float] = {}
        gaps = self.gap * batch.units
        for number in range(self.refinements):
            known = self._pull_in(batch, pulled, known, budget)
            ends = [(answer.bracket.lower, answer.bracket.upper) for answer in known]
            lower, upper = torch.tensor(ends, dtype=torch.float64).unbind(1)
            end = torch.minimum(upper, failed)
            rows = torch.nonzero((lower >= 0.0) & upper.isfinite() & (end - lower > gaps)).squeeze(1)
            if not len(rows) or budget.exhausted:
                break
            short = upper - 0.99 * gaps
            ask_short = (short < end) & ((2.0 * lower >= upper) | (number % 2 == 0))
            radii = torch.where(ask_short, short, (lower + end) / 2)[rows]
            part = batch.at(rows.to(batch.centres.device))
            decided = self.decide(part, part.region(radii.to(batch.centres.device)), budget)
            known = merged(known, rows.tolist(), decided)
            for row, radius, answer in zip(rows.tolist(), radii.tolist(), decided, strict=True):
                if not answer.vouched_safe(radius):
                    failed[row] = min(float(failed[row]), radius)
        return known

    def _pull_in(self, batch: Batch, pulled: dict[int, float], answers: list[Answer], budget: Budget) -> list[Answer]:
        """Return the answers with each witness that is new pulled in; pulled: the distances of those that are not."""
        known = list(answers)
        for row, answer in enumerate(answers):
            # The programs measure without a scale.
            if (
                batch.scale is not None
                or answer.witness is None
                or pulled.get(row) == answer.distance
                or answer.bracket.lower < 0.0
            ):
                continue
            witness = self._programs.pull_within(batch.one(row), answer.witness, math.inf, budget)
            if witness is not None:
                known[row] = answer.merge(Answer.broken(witness, self.name))
            pulled[row] = known[row].distance
        return known

    def _decide_one(self, paused: Paused | None, one: Batch, region: BallRegion, budget: Budget) -> Answer:
        attack, ball = Tried(one, region, self.name), region.on_processor()
        search = None if paused is None else paused.take(self.name, BallSearch)
        search = search or BallSearch(one.subject.network, ball, int(one.classes[0]))
        found = search.run(attack, budget, self.subproblems)
        if found.certificate is not None:
            counted = Answer.open(open_units=found.open_units)
            return counted.merge(Answer.proved(float(ball.radius[0]), self.name, self.strength, found.certificate))
        if paused is not None and search.under_way:
            paused.keep(self.name, search)
        reason = None if found.falsified else found.reason
        return attack.shown.merge(Answer.open(reason, open_units=found.open_units, telling=found.telling))
