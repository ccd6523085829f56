"""Certification by interval propagation, and the certified radius by bisection."""

from collections.abc import Sequence

from encoders.region import NORMS, BallRegion
from verifier.answers import Answer
from verifier.batch import Batch
from verifier.bounds.interval import proves
from verifier.budget import Budget
from verifier.methods.base import Method
from verifier.methods.bisection import bisect_brackets

# The certified radius is known to 2^-16 of the reach.
BISECTION_STEPS = 16


class IntervalMethod(Method):
    """Proves by intervals alone; finds nothing. In the 2- and 1-norm it bounds the box around the ball."""

    name = "interval"
    scales = True
    proves = True
    finds = False
    norms = NORMS

    def decide(self, batch: Batch, region: BallRegion, budget: Budget) -> list[Answer]:
        if budget.exhausted:
            return [Answer()] * len(batch)
        return self.proofs(proves(batch.subject.network, region.enclosure(), batch.classes), region.radius)

    def bracket(
        self, batch: Batch, epsilons: Sequence[float], answers: Sequence[Answer], budget: Budget
    ) -> list[Answer]:
        """Decide each requested radius and the whole reach, then bisect between proved and not proved."""
        return bisect_brackets(self, batch, [0.0, *epsilons, batch.reach], answers, budget, BISECTION_STEPS)
