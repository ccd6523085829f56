"""Linear bounds as methods: `crown` with each op's own slopes, `alpha-crown` with optimised ones."""

import math
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from encoders.network import Network
from encoders.region import NORMS, BallRegion
from verifier.answers import Decision
from verifier.batch import Batch
from verifier.bounds.linear.margins import Margins, in_pieces, linear_margins
from verifier.bounds.linear.slopes import SlopeSearch
from verifier.budget import Budget
from verifier.methods.base import Findings, Method
from verifier.methods.bisection import bisect_brackets
from verifier.witnesses.confirm import confirm

# Minimisers of an input that are replayed, one after the other, until one is confirmed.
CANDIDATES = 4


class CrownMethod(Method):
    """Proves by linear bounds, and tries the minimiser of each bound that fails as an attack.

    steps, reach: of the search for slopes (see `SlopeSearch`), 0 steps for none. refinements: bisections of a bracket
    beyond the requested radii.
    """

    proves = True
    finds = True
    norms = NORMS

    def __init__(self, name: str, steps: int = 0, refinements: int = 8, reach: float = math.inf) -> None:
        self.name = name
        self.steps = steps
        self.reach = reach
        self.refinements = refinements

    def refusal(self, network: Network) -> str | None:
        for node in network.nodes:
            if "envelope" not in node.op.views():
                return (
                    f"method {self.name!r} needs linear bounds of every op; node {node.name!r} ({node.op.kind}) has "
                    "none. Methods for such networks: interval, auto"
                )
        changing = [node for node in network.nodes if not node.op.keeps_values]
        if all(node.op.bounded_by_box and len(network.shapes[node.name]) == 1 for node in changing):
            return (
                f"method {self.name!r} gains nothing over intervals on a network of MWD layers alone. "
                "Methods for such networks: interval, contraction, auto"
            )
        return None

    def decide(self, batch: Batch, region: BallRegion, budget: Budget) -> Decision:
        if budget.exhausted or not len(batch):
            return Decision(torch.zeros(len(batch), dtype=torch.bool))
        search = SlopeSearch(self.steps, reach=self.reach, budget=budget) if self.steps else None
        work = partial(margins_in_time, search=search, budget=budget)
        margins = in_pieces(work, batch.subject.network, region, batch.classes)
        decision = Decision(margins.proved.cpu())
        if margins.points is not None:
            try_points(batch, region, margins.points, decision)
        return decision

    def bracket(self, batch: Batch, epsilons: Sequence[float], findings: Findings, budget: Budget) -> None:
        """Decide the requested radii that are open in rising order, then bisect."""
        bisect_brackets(self, batch, [0.0, *epsilons], findings, budget, self.refinements)


def margins_in_time(
    network: Network, region: BallRegion, classes: Tensor, wins: Tensor, search: SlopeSearch | None, budget: Budget
) -> Margins:
    """Return the margins of a piece; of one that the time does not reach, what intervals prove."""
    if budget.exhausted:
        return Margins(torch.where(wins, torch.inf, -torch.inf).to(torch.float64), None)
    return linear_margins(network, region, classes, search, wins)


def try_points(batch: Batch, region: BallRegion, points: Tensor, decision: Decision) -> None:
    """Try the points `(batch, rows, *shape)` of inputs that are not certified; put witnesses into the decision."""
    network = batch.subject.network
    tried: dict[int, Tensor] = {}
    for row in torch.nonzero(~decision.certified).squeeze(1).tolist():
        index = torch.full((points.shape[1],), row, device=points.device)
        inside = region[index].clip(points[row], network.dtype)
        scores = network.scores(inside).to(torch.float64)
        own = int(batch.classes[row])
        rivals = torch.cat([scores[:, :own], scores[:, own + 1 :]], dim=1).amax(dim=1)
        lead = rivals - scores[:, own]
        # The surest first: those behind it may be unsafe where it is so by rounding only.
        surest = lead.nan_to_num(-torch.inf, torch.inf, -torch.inf).argsort(descending=True)[:CANDIDATES]
        if float(lead[surest[0]]) >= 0:
            tried[row] = inside[surest[lead[surest] >= 0]]
    for number in range(CANDIDATES):
        left = [row for row, several in tried.items() if number < len(several) and row not in decision.witnesses]
        if not left:
            break
        rows = torch.tensor(left, device=points.device)
        shown = confirm(batch.at(rows), region[rows], torch.stack([tried[row][number] for row in left]))
        decision.witnesses.update({left[i]: witness for i, witness in shown.witnesses.items()})
        for i, distance in shown.execution_only.items():
            known = decision.execution_only.get(left[i], distance)
            decision.execution_only[left[i]] = min(distance, known)
