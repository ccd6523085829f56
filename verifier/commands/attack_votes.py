"""What votes of draws say of the inputs of an attack: where it broke the mean behind the point that did, else at them.

Counterexamples are pulled to the boundary of the mean, where draws are of two minds; behind it, on the border of the
ball, they are not. An attack of the mean is no strong attack of the draws: that a vote is kept there says little, that
it is broken much. So `auto` goes on from there on the votes themselves (`attacks.against_votes`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from encoders.network import Network
from verifier.attacks.against_votes import fewest_votes
from verifier.attacks.base import Search
from verifier.attacks.ensemble import Ensemble
from verifier.batch import BATCH_SIZE, Batch
from verifier.budget import Budget
from verifier.commands.attack_request import AttackRequest
from verifier.commands.job import DataJob
from verifier.runs.attack_record import AttackRecord
from verifier.runs.witness_files import Witnesses
from verifier.votes import BROKEN, KEPT, OPEN, check_vote, votes_at


@dataclass(frozen=True)
class VoteCounts:
    """How many votes for the label are kept, broken or open at 95 % each (see `verifier.votes`), of `draws` draws.

    single: the share of draws and points that give the label.
    """

    draws: int
    kept: int
    broken: int
    open: int
    single: float


def checked_vote(network: Network, draws: int | None) -> int | None:
    """Return the number of draws, None for no vote; ValueError where there is none to take."""
    if draws is not None:
        check_vote(network, draws)
    return draws


def count_votes(
    job: DataJob, draws: int, records: Sequence[AttackRecord], witnesses: Witnesses, request: AttackRequest,
    seconds: float,
) -> VoteCounts | None:  # fmt: skip
    """Return the votes over correctly classified inputs; None where there are none.

    seconds: of the descents with which `auto` goes on, for each of these inputs.
    """
    asked = [record for record in records if record.correct]
    if not asked:
        return None
    indices, epsilon = [record.index for record in asked], request.epsilon
    centres = torch.cat([job.points(range(index, index + 1)) for index in indices])
    labels = np.array([record.head.label for record in asked])
    batch = job.batch(centres, indices, labels, request.checked_norm)
    points = batch.centres.clone()
    for row, record in enumerate(asked):
        if record.distance and record.distance <= epsilon:
            away = torch.from_numpy(witnesses[record.index][0]).to(points) - points[row]
            points[row] += away * (epsilon / record.distance)
    points = batch.region(epsilon).clip(points, centres.dtype)
    if isinstance(request.attack, Ensemble) and request.target is None:
        points = _gone_on(batch, points, epsilon, Budget(seconds * len(asked)))
    votes = votes_at(job.subject.network, points, draws, job.seed)
    outcomes = votes.outcomes(batch.classes)
    kept, broken, still_open = (int((outcomes == word).sum()) for word in (KEPT, BROKEN, OPEN))
    return VoteCounts(draws, kept, broken, still_open, votes.share(batch.classes))


def _gone_on(batch: Batch, points: Tensor, epsilon: float, budget: Budget) -> Tensor:
    """Return points within epsilon that the vote of draws withstands less, in the dtype of the points."""
    found = points.clone()
    for rows in torch.arange(len(batch)).split(BATCH_SIZE):
        part = batch.at(rows)
        region = part.region(epsilon)
        search = Search(part.subject.network, region.inside, part.classes, part.seeds, budget)
        found[rows] = region.clip(fewest_votes(search, points[rows]), points.dtype)
    return found
