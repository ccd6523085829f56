"""Counterexamples of one class: a target is reached where it wins or ties in the user's model and in real numbers.

The same as `witnesses.confirm`, which asks only that some other class wins.
"""

import dataclasses

import torch
from torch import Tensor

from encoders.region import BallRegion
from verifier.answers import Decision
from verifier.attacks import Attack, Search
from verifier.batch import Batch
from verifier.bounds.interval import reaches_at
from verifier.budget import Budget
from verifier.witnesses.pursuit import pursue
from verifier.witnesses.replay import replay
from verifier.witnesses.shorten import shorten


def decide_targeted(attack: Attack, batch: Batch, region: BallRegion, targets: Tensor, budget: Budget) -> Decision:
    """Return the confirmed points of the target classes `(batch,)`, pulled towards their inputs."""
    search = Search(batch.subject.network, region, batch.classes, batch.seeds, budget, targets)
    return pursue(
        attack, search, lambda hits, points: confirm_targets(batch.at(hits), region[hits], targets[hits], points)
    )


def confirm_targets(batch: Batch, region: BallRegion, targets: Tensor, points: Tensor) -> Decision:
    """Return the witnesses among points of the regions that reach the targets, each pulled towards its input."""
    decision = Decision(torch.zeros(len(batch), dtype=torch.bool))
    executed, real = reaches(batch, points, targets)
    inside = region.contains(points).cpu()
    distances = region.distance(points).tolist()
    for position in torch.nonzero(executed & ~real & inside).flatten().tolist():
        decision.execution_only[position] = distances[position]
    rows = torch.nonzero(executed & real & inside).squeeze(1).to(points.device)
    there, aims = batch.at(rows), targets[rows]

    def reached(index: Tensor, at: Tensor) -> Tensor:
        chosen = index.to(points.device)
        return torch.stack(reaches(there.at(chosen), at, aims[chosen])).all(dim=0)

    for row, witness in zip(rows.tolist(), shorten(there, region[rows], points[rows], reached), strict=True):
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
