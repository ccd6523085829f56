"""Attacks as a method: search, replay every proposal, and pull each witness towards its input."""

from collections.abc import Sequence

import torch

from encoders.region import NORMS, BallRegion
from verifier.answers import Decision
from verifier.attacks import Attack
from verifier.batch import Batch
from verifier.budget import Budget
from verifier.methods.base import Findings, Method
from verifier.verdict import Outcome
from verifier.witnesses.confirm import own_ties
from verifier.witnesses.find import find_witnesses


class FalsifyMethod(Method):
    """Finds by attacks; proves nothing. Attacks run in the given order, each on what the others left."""

    proves = False
    finds = True
    norms = NORMS

    def __init__(self, name: str, attacks: Sequence[Attack]) -> None:
        self.name = name
        self.attacks = tuple(attacks)

    def decide(self, batch: Batch, region: BallRegion, budget: Budget) -> Decision:
        return find_witnesses(self.attacks, batch, region, budget)

    def bracket(self, batch: Batch, epsilons: Sequence[float], findings: Findings, budget: Budget) -> None:
        """Attack the requested radii in rising order, each where it is still open, after a look for ties at 0."""
        if not budget.exhausted:
            findings.add(range(len(batch)), [0.0] * len(batch), own_ties(batch), self)
        for epsilon in sorted(set(epsilons) - {0.0}):
            rows = [i for i, bracket in enumerate(findings.brackets) if bracket.at(epsilon) is Outcome.OPEN]
            if not rows or budget.exhausted:
                continue
            part = batch.at(torch.tensor(rows, device=batch.centres.device))
            findings.add(rows, [epsilon] * len(rows), self.decide(part, part.region(epsilon), budget), self)
