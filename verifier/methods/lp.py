"""The linear program over convex rows as a method: `lp`, between linear bounds and exact answers."""

from collections.abc import Sequence
from functools import partial

import torch

from encoders.network import Network
from encoders.region import BallRegion
from verifier.answers import Decision
from verifier.batch import Batch
from verifier.bounds.linear.margins import in_pieces
from verifier.bounds.programs.lp import lp_margins, size_refusal
from verifier.budget import Budget
from verifier.methods.base import Findings, Method
from verifier.methods.bisection import bisect_brackets
from verifier.methods.crown import margins_in_time, try_points


class LpMethod(Method):
    """Proves by linear programs what linear bounds leave open, and tries the points where they end as attacks.

    refinements: bisections of a bracket beyond the requested radii.
    """

    name = "lp"
    proves = True
    finds = True

    def __init__(self, refinements: int = 4) -> None:
        self.refinements = refinements

    def refusal(self, network: Network) -> str | None:
        if network.output.op.bounded_by_box:
            return (
                f"method {self.name!r} gains nothing over intervals on the MWD layer {network.output.name!r}, which is "
                "compared by distances. Methods for such networks: interval, contraction, exact, auto"
            )
        for node in network.nodes:
            if "relax" not in node.op.views() or "envelope" not in node.op.views():
                return (
                    f"method {self.name!r} needs convex rows of every op; node {node.name!r} ({node.op.kind}) has "
                    "none. Methods for such networks: interval, auto"
                )
        return size_refusal(network, self.name)

    def decide(self, batch: Batch, region: BallRegion, budget: Budget) -> Decision:
        if budget.exhausted or not len(batch):
            return Decision(torch.zeros(len(batch), dtype=torch.bool))
        work = partial(margins_in_time, search=None, budget=budget)
        margins = in_pieces(work, batch.subject.network, region, batch.classes)
        decision = Decision(margins.proved.cpu())
        if margins.points is not None:
            try_points(batch, region, margins.points, decision)
        for row in torch.nonzero(~decision.certified).squeeze(1).tolist():
            if row in decision.witnesses or budget.exhausted:
                continue
            index = torch.tensor([row], device=batch.centres.device)
            one, within = batch.at(index), region[index]
            ball = BallRegion(within.centre.cpu(), within.radius.cpu(), within.domain, within.norm)
            rivals = torch.nonzero(~(margins.lower[row] > 0)).squeeze(1).cpu()
            answer = lp_margins(batch.subject.network, ball, int(batch.classes[row]), rivals, budget)
            shown = Decision(torch.tensor([answer.proved]), open_units={0: answer.open_units})
            if answer.points is not None:
                try_points(one, within, answer.points.unsqueeze(0).to(region.centre), shown)
            decision.take(row, shown)
        return decision

    def bracket(self, batch: Batch, epsilons: Sequence[float], findings: Findings, budget: Budget) -> None:
        """Decide the requested radii that are open in rising order, then bisect."""
        bisect_brackets(self, batch, [0.0, *epsilons], findings, budget, self.refinements)
