"""Counterexamples of one class: a target is reached where it wins or ties in the user's model and in real numbers.

The same as `witnesses.confirm`, which asks only that some other class wins.
"""

import dataclasses

import torch
from torch import Tensor

from encoders.region import BallRegion
from verifier.answers import Answer
from verifier.attacks import Attack, Search
from verifier.batch import Batch
from verifier.bounds.interval import reaches_at
from verifier.budget import Budget
from verifier.witnesses.pursuit import pursue
from verifier.witnesses.replay import replay
from verifier.witnesses.shorten import shorten


def find_targeted(
    attack: Attack, batch: Batch, region: BallRegion, targets: Tensor, method: str, budget: Budget
) -> list[Answer]:
    """Return what an attack finds of the target classes `(batch,)`, confirmed and pulled towards the inputs."""
    search = Search(batch.subject.network, region, batch.classes, batch.seeds, budget, targets)

    def confirm(hits: Tensor, points: Tensor) -> list[Answer]:
        return confirm_targets(batch.at(hits), region[hits], targets[hits], points, method)

    return pursue(attack, search, confirm)


def confirm_targets(batch: Batch, region: BallRegion, targets: Tensor, points: Tensor, method: str) -> list[Answer]:
    """Return what points of the regions show: witnesses that reach the targets, each pulled towards its input."""
    answers = [Answer()] * len(batch)
    executed, real = reaches(batch, points, targets)
    inside = region.contains(points).cpu()
    distances = region.distance(points).tolist()
    for row in torch.nonzero(executed & ~real & inside).flatten().tolist():
        answers[row] = Answer.open(execution_only=distances[row])
    rows = torch.nonzero(executed & real & inside).squeeze(1).to(points.device)
    there, aims = batch.at(rows), targets[rows]

    def reached(index: Tensor, at: Tensor) -> Tensor:
        where = index.to(points.device)
        return torch.stack(reaches(there.at(where), at, aims[where])).all(dim=0)

    for row, witness in zip(rows.tolist(), shorten(there, region[rows], points[rows], reached), strict=True):
        if witness is not None:
            answers[row] = Answer.broken(witness, method)
    return answers


def reaches(batch: Batch, points: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Return masks `(batch,)`: the target wins or ties in the user's model; it does so in real arithmetic."""
    leaving = replay(batch, points)
    aiming = replay(dataclasses.replace(batch, classes=targets), points)
    # A NaN output leaves nothing, and is no target either.
    executed = leaving.executed & (~aiming.executed | aiming.tie)
    return executed, leaving.real & reaches_at(batch.subject.network, points, targets).cpu()
