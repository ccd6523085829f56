"""What votes of draws say of the inputs of an attack: where it broke the mean behind the point that did, else at them.

Counterexamples are pulled to the boundary of the mean, where draws are of two minds; behind it, on the border of the
ball, they are not. An attack of the mean is no strong attack of the draws: that a vote is kept there says little, that
it is broken much.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from encoders.network import Network
from encoders.region import Norm
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
    job: DataJob, draws: int, records: Sequence[AttackRecord], witnesses: Witnesses, epsilon: float, norm: Norm
) -> VoteCounts | None:
    """Return the votes over correctly classified inputs; None where there are none."""
    asked = [record for record in records if record.correct]
    if not asked:
        return None
    centres = torch.cat([job.points(range(record.index, record.index + 1)) for record in asked])
    points = centres.to(torch.float64)
    for row, record in enumerate(asked):
        if record.distance and record.distance <= epsilon:
            away = torch.from_numpy(witnesses[record.index][0]).to(points) - points[row]
            points[row] += away * (epsilon / record.distance)
    ball = job.surroundings.region(
        centres.to(torch.float64), torch.full((len(asked),), epsilon, dtype=torch.float64), norm
    )
    points = ball.clip(points, centres.dtype)
    labels = torch.tensor([record.head.label for record in asked])
    votes = votes_at(job.subject.network, points, draws, job.seed)
    outcomes = votes.outcomes(labels)
    kept, broken, still_open = (int((outcomes == word).sum()) for word in (KEPT, BROKEN, OPEN))
    return VoteCounts(draws, kept, broken, still_open, votes.share(labels))
