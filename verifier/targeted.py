"""Counterexamples of one class: a target is reached where it wins or ties in the user's model and in real numbers.

The same as `methods.falsify`, which asks only that some other class wins.
"""

import dataclasses

import torch
from torch import Tensor

from encoders.region import BallRegion
from verifier.attacks import Attack, Search
from verifier.bounds.interval import reaches_at
from verifier.budget import Budget
from verifier.methods import Batch, Decision
from verifier.methods.falsify import replay, shorten


def decide_targeted(attack: Attack, batch: Batch, region: BallRegion, targets: Tensor, budget: Budget) -> Decision:
    """Return the confirmed points of the target classes `(batch,)`, pulled towards their inputs."""
    search = Search(batch.subject.network, region, batch.classes, batch.seeds, budget, targets)
    proposals = attack.run(search)
    decision = Decision(torch.zeros(len(batch), dtype=torch.bool))
    hits = torch.nonzero(proposals.unsafe).squeeze(1)
    if not len(hits):
        return decision
    part, within, wanted, points = batch.at(hits), region[hits], targets[hits], proposals.points[hits]
    executed, real = reaches(part, points, wanted)
    distances = within.distance(points).tolist()
    for position in torch.nonzero(executed & ~real).flatten().tolist():
        decision.execution_only[int(hits[position])] = distances[position]
    rows = torch.nonzero(executed & real).squeeze(1).to(hits.device)
    there, aims = part.at(rows), wanted[rows]

    def reached(index: Tensor, at: Tensor) -> Tensor:
        chosen = index.to(hits.device)
        return torch.stack(reaches(there.at(chosen), at, aims[chosen])).all(dim=0)

    for row, witness in zip(hits[rows].tolist(), shorten(there, within[rows], points[rows], reached), strict=True):
        if witness is not None:
            decision.witnesses[row] = witness
    return decision


def reaches(batch: Batch, points: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Return masks `(batch,)`: the target wins or ties in the user's model; it does so in real arithmetic."""
    left = replay(batch, points)
    behind = replay(dataclasses.replace(batch, classes=targets), points)
    # A NaN output leaves nothing, and is no target either.
    executed = left.executed & (~behind.executed | behind.tie)
    return executed, left.real & reaches_at(batch.subject.network, points, targets).cpu()
