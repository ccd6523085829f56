"""Certification by interval propagation, and the certified radius by bisection."""

from collections.abc import Sequence

import torch

from encoders.region import NORMS, BallRegion
from verifier.answers import Decision
from verifier.batch import Batch
from verifier.bounds.interval import proves
from verifier.budget import Budget
from verifier.methods.base import Findings, Method
from verifier.methods.bisection import bisect_brackets

# The certified radius is known to 2^-16 of the reach.
BISECTION_STEPS = 16


class IntervalMethod(Method):
    """Proves by intervals alone; finds nothing. In the 2- and 1-norm it bounds the box around the ball."""

    name = "interval"
    proves = True
    finds = False
    norms = NORMS

    def decide(self, batch: Batch, region: BallRegion, budget: Budget) -> Decision:
        if budget.exhausted:
            return Decision(torch.zeros(len(batch), dtype=torch.bool))
        return Decision(proves(batch.subject.network, region.enclosure(), batch.classes).cpu())

    def bracket(self, batch: Batch, epsilons: Sequence[float], findings: Findings, budget: Budget) -> None:
        """Decide each requested radius and the whole reach, then bisect between proved and not proved."""
        bisect_brackets(self, batch, [0.0, *epsilons, batch.reach], findings, budget, BISECTION_STEPS)
