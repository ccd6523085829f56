"""Exact answers: branch and bound over signs for networks of relus, contraction with branching for MWD networks."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from encoders.network import Network
from encoders.passes import expand_max_pools
from encoders.region import BallRegion
from verifier.answers import Decision
from verifier.batch import Batch
from verifier.bounds.mwd.chain import chain_refusal
from verifier.bounds.split.search import decide_ball
from verifier.budget import Budget
from verifier.certificates.certificate import Certificate
from verifier.certificates.scope import MOST_ENTRIES, certificate_refusal, stage_sizes, too_large
from verifier.certificates.split_program import split_refusal
from verifier.methods.base import Findings, Method
from verifier.methods.bisection import bisect_brackets
from verifier.methods.contraction import ContractionMethod
from verifier.methods.crown import try_points
from verifier.methods.restriction import RestrictionMethod

# Boxes that contraction examines for each class: in practice until it is done.
CONTRACTION_NODES = 1_000_000
# Subproblems that a certificate of what another method proved may take.
CERTIFICATE_SUBPROBLEMS = 20_000


class ExactMethod(Method):
    """Proves and finds until nothing is open but ties within rounding, if the time lasts.

    subproblems: of a ball, for each class; gap: brackets with a witness are closed to this width, in units of the
    inputs' size (`Batch.units`), by at most `refinements` further decisions. hinges: a network with more hinge units or
    of MWD layers is refused; None takes any. That is for a portfolio, where contraction has done its work and a large
    network would take minutes an input.
    """

    name = "exact"
    proves = True
    finds = True

    def __init__(
        self, subproblems: int = 200_000, gap: float = 1e-4, refinements: int = 4, hinges: int | None = None
    ) -> None:
        self.subproblems, self.gap, self.refinements, self.hinges = subproblems, gap, refinements, hinges
        self._contraction = ContractionMethod(CONTRACTION_NODES, 60 if refinements else 0, gap)
        self._pull = RestrictionMethod()

    def refusal(self, network: Network) -> str | None:
        if chain_refusal(network, self.name) is None:
            return None if self.hinges is None else "contraction decides networks of MWD layers"
        node = split_refusal(network)
        if node is not None:
            return (
                f"method {self.name!r} takes networks of affine ops with relu, leaky-relu, abs and max pools, or of "
                f"MWD layers; node {node.name!r} is {node.op.kind}. Methods for such networks: milp, lp, crown, auto"
            )
        units, entries = stage_sizes(expand_max_pools(network))
        if self.hinges is not None and units > self.hinges:
            return f"{units} hinge units are more than the {self.hinges} of a portfolio"
        if entries > MOST_ENTRIES:
            others = "Methods for such networks: crown, alpha-crown, auto"
            return f"method {self.name!r} {too_large(units, entries)}. {others}"
        return None

    def decide(self, batch: Batch, region: BallRegion, budget: Budget) -> Decision:
        decision = Decision(torch.zeros(len(batch), dtype=torch.bool))
        network = batch.subject.network
        if chain_refusal(network, self.name) is None:
            return self._contraction.decide(batch, region, budget)
        for row in range(len(batch)):
            if budget.exhausted:
                break
            index = torch.tensor([row], device=batch.centres.device)
            # What easy inputs leave of their time goes to the later ones.
            share = Budget(budget.remaining / (len(batch) - row) if math.isfinite(budget.seconds) else math.inf)
            decision.take(row, self._decide_one(batch.at(index), region[index], share))
        return decision

    def bracket(self, batch: Batch, epsilons: Sequence[float], findings: Findings, budget: Budget) -> None:
        """Decide the requested radii that are open in rising order, then close the brackets that have a witness.

        Each witness is pulled to the nearest of its linear region first: mostly the ball just short of it is safe then,
        so that one decision closes the bracket. Where it is not, that and the middle are asked about in turn.
        """
        if chain_refusal(batch.subject.network, self.name) is None:
            self._contraction.bracket(batch, epsilons, findings, budget)
            return
        bisect_brackets(self, batch, [0.0, *epsilons], findings, budget, 0)
        failed = torch.full((len(batch),), math.inf, dtype=torch.float64)
        pulled: dict[int, float] = {}
        gaps = self.gap * batch.units
        for number in range(self.refinements):
            self._pull_in(batch, pulled, findings, budget)
            ends = [(bracket.lower, bracket.upper) for bracket in findings.brackets]
            lower, upper = torch.tensor(ends, dtype=torch.float64).unbind(1)
            end = torch.minimum(upper, failed)
            rows = torch.nonzero((lower >= 0.0) & upper.isfinite() & (end - lower > gaps)).squeeze(1)
            if not len(rows) or budget.exhausted:
                return
            short = upper - 0.99 * gaps
            ask_short = (short < end) & (number % 2 == 0)
            radii = torch.where(ask_short, short, (lower + end) / 2)[rows]
            part = batch.at(rows.to(batch.centres.device))
            decision = self.decide(part, part.region(radii.to(batch.centres.device)), budget)
            findings.add(rows.tolist(), radii.tolist(), decision, self)
            failed[rows] = torch.where(decision.certified, failed[rows], torch.minimum(failed[rows], radii))

    def _pull_in(self, batch: Batch, pulled: dict[int, float], findings: Findings, budget: Budget) -> None:
        """Pull every witness that is new since the last time; pulled: the distances of those that are not."""
        for row, witness in list(findings.witnesses.items()):
            if pulled.get(row) == witness.distance or findings.brackets[row].lower < 0.0:
                continue
            found = self._pull.pull_row(batch, row, findings, math.inf, budget)
            if found is not None:
                shown = Decision(torch.zeros(1, dtype=torch.bool), {0: found})
                findings.add([row], [math.inf], shown, self)
            pulled[row] = findings.witnesses[row].distance

    def _decide_one(self, one: Batch, region: BallRegion, budget: Budget) -> Decision:
        shown = Decision(torch.zeros(1, dtype=torch.bool))
        ball = BallRegion(region.centre.cpu(), region.radius.cpu(), region.domain, region.norm)

        def attack(points: Tensor) -> bool:
            try_points(one, region, points.unsqueeze(0).to(region.centre), shown)
            return bool(shown.witnesses)

        answer = decide_ball(one.subject.network, ball, int(one.classes[0]), attack, budget, self.subproblems)
        if answer.certificate is not None:
            return Decision(
                torch.ones(1, dtype=torch.bool), certificates={0: answer.certificate}, open_units={0: answer.open_units}
            )
        shown.open_units[0] = answer.open_units
        if not answer.found:
            shown.reasons[0] = answer.reason
        return shown


def certificate_of(batch: Batch, row: int, radius: float, budget: Budget) -> Certificate | str:
    """Return a certificate of one input's ball for whatever proved it; or the reason why there is none.

    The proof is done again in the form that can be checked: mostly the whole ball is one leaf.
    """
    refusal = certificate_refusal(batch.subject.network, batch.norm)
    if refusal is not None:
        return refusal
    one = batch.at(torch.tensor([row], device=batch.centres.device))
    # With a domain nothing lies beyond its reach; without one every radius is meant.
    region = one.region(radius if batch.domain is None else min(radius, batch.reach))
    ball = BallRegion(region.centre.cpu(), region.radius.cpu(), region.domain, region.norm)
    answer = decide_ball(
        batch.subject.network, ball, int(one.classes[0]), lambda _: False, budget, CERTIFICATE_SUBPROBLEMS
    )
    return answer.reason if answer.certificate is None else answer.certificate
