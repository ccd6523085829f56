"""The linear program over convex rows as a method: `lp`, between linear bounds and exact answers."""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from encoders.network import Network
from encoders.region import BallRegion
from verifier.answers import Answer, merged
from verifier.batch import Batch
from verifier.bounds.linear.margins import in_pieces, margins_in_time
from verifier.bounds.programs.lp import lp_margins, size_refusal
from verifier.budget import Budget
from verifier.methods.base import Method
from verifier.methods.bisection import bisect_brackets
from verifier.witnesses.minimisers import try_points


class LpMethod(Method):
    """Proves by linear programs what linear bounds leave open, and tries the points where they end as attacks.

    refinements: bisections of a bracket beyond the requested radii.
    """

    name = "lp"
    scales = True
    proves = True
    finds = True

    def __init__(self, refinements: int = 4) -> None:
        self.refinements = refinements

    def refusal(self, network: Network) -> str | None:
        if network.output.op.bounded_by_box:
            return (
                f"method {self.name!r} gains nothing over intervals on the MWD layer {network.output.name!r}, which is "
                "compared by distances"
            )
        for node in network.nodes:
            if "relax" not in node.op.views() or "envelope" not in node.op.views():
                return (
                    f"method {self.name!r} needs convex rows of every op; node {node.name!r} ({node.op.kind}) has none"
                )
        return size_refusal(network, self.name)

    def decide(self, batch: Batch, region: BallRegion, budget: Budget) -> list[Answer]:
        if budget.exhausted or not len(batch):
            return [Answer()] * len(batch)
        work = partial(margins_in_time, search=None, budget=budget)
        margins = in_pieces(work, batch.subject.network, region, batch.classes)
        answers = self.proofs(margins.proved, region.radius)
        rows = torch.nonzero(~margins.proved).squeeze(1).tolist()
        if margins.points is not None:
            answers = merged(answers, rows, try_points(batch, region, margins.points, rows, self.name))
        for row in rows:
            if answers[row].witness is not None or budget.exhausted:
                continue
            rivals = torch.nonzero(~(margins.lower[row] > 0)).squeeze(1).cpu()
            index = torch.tensor([row], device=batch.centres.device)
            answers[row] = answers[row].merge(self._decide_one(batch.one(row), region[index], rivals, budget))
        return answers

    def _decide_one(self, one: Batch, region: BallRegion, rivals: Tensor, budget: Budget) -> Answer:
        bound = lp_margins(one.subject.network, region.on_processor(), int(one.classes[0]), rivals, budget)
        (answer,) = self.proofs(torch.tensor([bound.proved]), region.radius)
        answer = answer.merge(Answer.open(bound.reason, open_units=bound.open_units))
        if bound.points is None or bound.proved:
            return answer
        (shown,) = try_points(one, region, bound.points.unsqueeze(0).to(region.centre), [0], self.name)
        return answer.merge(shown)

    def bracket(
        self, batch: Batch, epsilons: Sequence[float], answers: Sequence[Answer], budget: Budget
    ) -> list[Answer]:
        """Decide the requested radii that are open in rising order, then bisect."""
        return bisect_brackets(self, batch, [0.0, *epsilons], answers, budget, self.refinements)
