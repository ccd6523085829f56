"""MWD networks by contraction and branching: proofs and witnesses where intervals and attacks leave a gap."""

from collections.abc import Sequence

import numpy as np
import torch

from encoders.network import Network
from encoders.region import BallRegion
from verifier.bounds.interval import compare_classes
from verifier.bounds.mwd_chain import chain_refusal, dense_layers
from verifier.budget import Budget
from verifier.methods.base import Batch, Decision, Findings, Method
from verifier.methods.falsify import confirm
from verifier.verdict import Outcome


class ContractionMethod(Method):
    """Proves and finds. nodes: boxes examined for each class at most; refinements: bisections of a bracket."""

    name = "contraction"
    proves = True
    finds = True

    def __init__(self, nodes: int = 1000, refinements: int = 10) -> None:
        self.nodes = nodes
        self.refinements = refinements

    def refusal(self, network: Network) -> str | None:
        return chain_refusal(network, self.name)

    def decide(self, batch: Batch, region: BallRegion, budget: Budget) -> Decision:
        decision = Decision(torch.zeros(len(batch), dtype=torch.bool))
        if budget.exhausted or not len(batch):
            return decision
        box = region.enclosure()
        wins = compare_classes(batch.subject.network, box, batch.classes).wins.cpu().numpy()
        lower, upper = (end.flatten(1).cpu().numpy() for end in (box.lower, box.upper))
        search = _Search(batch.subject.network, self.nodes)
        points: dict[int, np.ndarray] = {}
        for row in range(len(batch)):
            rivals = np.flatnonzero(~wins[row])
            proved, point = search.decide(lower[row], upper[row], int(batch.classes[row]), rivals, budget)
            decision.certified[row] = proved
            if point is not None:
                points[row] = point
        if points:
            rows = torch.tensor(list(points), device=batch.centres.device)
            stacked = torch.from_numpy(np.stack(list(points.values()))).reshape(len(rows), *batch.centres.shape[1:])
            part, within = batch.at(rows), region[rows]
            found = confirm(part, within, within.clip(stacked.to(rows.device), batch.subject.network.dtype))
            decision.witnesses.update({int(rows[i]): witness for i, witness in found.witnesses.items()})
            decision.execution_only.update({int(rows[i]): value for i, value in found.execution_only.items()})
        return decision

    def bracket(self, batch: Batch, epsilons: Sequence[float], findings: Findings, budget: Budget) -> None:
        """Decide the requested radii in rising order where they are open, then bisect what is left."""
        for epsilon in sorted(set(epsilons)):
            rows = [i for i, b in enumerate(findings.brackets) if b.at(epsilon) is Outcome.OPEN]
            self._decide_at(batch, rows, [epsilon] * len(rows), findings, budget)
        for _ in range(self.refinements):
            ends = [(max(b.lower, 0.0), min(b.upper, batch.reach)) for b in findings.brackets]
            rows = [i for i, (low, high) in enumerate(ends) if findings.brackets[i].lower >= 0.0 and low < high]
            self._decide_at(batch, rows, [(ends[i][0] + ends[i][1]) / 2 for i in rows], findings, budget)

    def _decide_at(self, batch: Batch, rows: list[int], radii: list[float], findings: Findings, budget: Budget) -> None:
        if not rows or budget.exhausted:
            return
        part = batch.at(torch.tensor(rows, device=batch.centres.device))
        region = part.region(torch.tensor(radii, dtype=torch.float64, device=batch.centres.device))
        findings.add(rows, radii, self.decide(part, region, budget), self)


class _Search:
    """The compiled search over one network's weights, prepared once for a batch."""

    def __init__(self, network: Network, nodes: int) -> None:
        # numba is imported here, as compiling it takes a second that other methods need not pay.
        from verifier.bounds import contraction

        self.engine, self.nodes = contraction, nodes
        self.packed = contraction.pack(dense_layers(network, ContractionMethod.name))

    def decide(
        self, lower: np.ndarray, upper: np.ndarray, reference: int, rivals: np.ndarray, budget: Budget
    ) -> tuple[bool, np.ndarray | None]:
        """Return (whether every rival is refuted, the first point that looks unsafe or None)."""
        proved = True
        for rival in rivals:
            if budget.exhausted:
                return False, None
            answer = self.engine.search(self.packed, lower, upper, reference, int(rival), self.nodes)
            if answer.code == self.engine.FOUND:
                return False, answer.point
            proved = proved and answer.code == self.engine.REFUTED
        return proved, None
