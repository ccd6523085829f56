"""Methods that work on one region at a time: what easy ones leave of their time goes to the later ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from encoders.region import BallRegion
from verifier.answers import Answer
from verifier.batch import Batch
from verifier.budget import Budget
from verifier.witnesses.minimisers import try_points

# Answers about the one region of a batch of one, in a time.
Decide = Callable[[Batch, BallRegion, Budget], Answer]


def one_by_one(decide: Decide, batch: Batch, region: BallRegion, budget: Budget) -> list[Answer]:
    """Return an answer about each region; those that the time does not reach stay open."""
    answers = [Answer()] * len(batch)
    for row in range(len(batch)):
        if budget.exhausted:
            break
        index = torch.tensor([row], device=batch.centres.device)
        answers[row] = decide(batch.one(row), region[index], budget.share(len(batch) - row))
    return answers


@dataclass
class Tried:
    """Points of one region that a search proposes, tried as counterexamples; shown: what they have shown so far."""

    one: Batch
    region: BallRegion
    method: str
    shown: Answer = field(default_factory=Answer)

    def __call__(self, points: Tensor) -> bool:
        """Try points `(count, *input_shape)`; true once one of them is a replayed counterexample."""
        (tried,) = try_points(self.one, self.region, points.unsqueeze(0).to(self.region.centre), [0], self.method)
        self.shown = self.shown.merge(tried)
        return self.shown.witness is not None
