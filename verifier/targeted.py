"""Counterexamples of one class: a target is reached where it wins or ties in the user's model and wins in real numbers.

The same as `methods.falsify`, which asks only that some other class wins.
"""

import dataclasses

import torch
from torch import Tensor

from encoders.box import Box
from encoders.region import BallRegion
from verifier.attacks import Attack, Search
from verifier.bounds.interval import proves
from verifier.budget import Budget
from verifier.methods import Batch, Decision, Witness
from verifier.methods.falsify import SEGMENT_STEPS, replay


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
    if len(rows):
        witnesses = _shorten(part.at(rows), within[rows], wanted[rows], points[rows])
        decision.witnesses.update(zip(hits[rows].tolist(), witnesses, strict=True))
    return decision


def reaches(batch: Batch, points: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Return masks `(batch,)`: the target wins or ties in the user's model; it wins in real arithmetic."""
    left = replay(batch, points)
    behind = replay(dataclasses.replace(batch, classes=targets), points)
    # A NaN output leaves nothing, and is no target either.
    executed = left.executed & (~behind.executed | behind.tie)
    box = Box.point(points.to(torch.float64))
    return executed, left.real & proves(batch.subject.network, box, targets).cpu()


def _shorten(batch: Batch, region: BallRegion, targets: Tensor, points: Tensor) -> list[Witness]:
    """Return witnesses on the segments from the inputs to confirmed points, as near as bisection gets them."""
    best, unsafe = points.clone(), torch.ones(len(points), dtype=torch.float64, device=points.device)
    safe = torch.zeros_like(unsafe)
    for _ in range(SEGMENT_STEPS):
        share = (safe + unsafe) / 2
        shaped = share.reshape(-1, *[1] * (points.dim() - 1))
        middle = region.clip(region.centre + shaped * (points.to(torch.float64) - region.centre), points.dtype)
        executed, real = reaches(batch, middle, targets)
        hit = (executed & real).to(points.device)
        best[hit] = middle[hit]
        unsafe, safe = torch.where(hit, share, unsafe), torch.where(hit, safe, share)
    tie = replay(batch, best).tie
    distances = region.distance(best).tolist()
    return [Witness(best[i].cpu(), distances[i], bool(tie[i])) for i in range(len(best))]
