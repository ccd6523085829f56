"""Certification by interval propagation, and the certified radius by bisection."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from encoders.region import BallRegion
from verifier.bounds.interval import proves
from verifier.budget import Budget
from verifier.methods.base import Batch, Decision, Findings, Method

# The certified radius is known to 2^-16 of the reach.
BISECTION_STEPS = 16


class IntervalMethod(Method):
    """Proves by intervals alone; finds nothing."""

    name = "interval"
    proves = True
    finds = False

    def decide(self, batch: Batch, region: BallRegion, budget: Budget) -> Decision:
        if budget.exhausted:
            return Decision(torch.zeros(len(batch), dtype=torch.bool))
        return Decision(proves(batch.subject.network, region.enclosure(), batch.classes).cpu())

    def bracket(self, batch: Batch, epsilons: Sequence[float], findings: Findings, budget: Budget) -> None:
        """Decide each requested radius and the whole reach, then bisect between proved and not proved."""
        proved = torch.tensor([b.lower for b in findings.brackets], dtype=torch.float64)
        failed = torch.full_like(proved, math.inf)
        for radius in sorted({0.0, *epsilons, batch.reach}):
            self._try(batch, torch.full_like(proved, radius), proved, failed, budget)
        for _ in range(BISECTION_STEPS):
            if budget.exhausted:
                break
            middle = torch.where(failed.isfinite() & (proved >= 0), (proved + failed) / 2, proved)
            self._try(batch, middle, proved, failed, budget)
        if batch.domain is not None:
            # The ball of this radius is the whole domain.
            proved = torch.where(proved >= batch.reach, math.inf, proved)
        decision = Decision(proved >= 0)
        findings.add(range(len(batch)), proved.tolist(), decision, self)

    def _try(self, batch: Batch, radius: Tensor, proved: Tensor, failed: Tensor, budget: Budget) -> None:
        """Decide the given radii where they lie strictly between `proved` and `failed`; update both in place."""
        rows = torch.nonzero((radius > proved) & (radius < failed)).squeeze(1)
        if not len(rows) or budget.exhausted:
            return
        part = batch.at(rows.to(batch.centres.device))
        certified = self.decide(part, part.region(radius[rows].to(batch.centres.device)), budget).certified
        proved[rows[certified]] = radius[rows[certified]]
        failed[rows[~certified]] = radius[rows[~certified]]
