"""The bracket of a method that decides regions: the requested radii first, then halvings of what is left."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from verifier.answers import Decision
from verifier.batch import Batch
from verifier.budget import Budget
from verifier.methods.base import Findings, Method
from verifier.verdict import Strength


def bisect_brackets(
    method: Method, batch: Batch, radii: Sequence[float], findings: Findings, budget: Budget, steps: int
) -> None:
    """Decide the balls of the given radii, then halve the gap between proved and not proved `steps` times.

    A proof at a radius holds for every smaller one; where a method fails it is not asked about larger ones, and where
    it proves every given radius no other is tried. The ball of a domain's whole reach is the domain: no witness exists
    beyond it. A method whose proofs are only trusted goes on from what is trusted, any other from what is proved.
    """
    trusts = method.strength is Strength.TRUSTED
    ends = [max(b.lower, b.trusted) if trusts else b.lower for b in findings.brackets]
    proved = torch.tensor(ends, dtype=torch.float64)
    failed = torch.full_like(proved, math.inf)
    for radius in sorted(set(radii)):
        _try(method, batch, torch.full_like(proved, radius), proved, failed, findings, budget)
    for _ in range(steps):
        if budget.exhausted:
            break
        upper = torch.tensor([b.upper for b in findings.brackets], dtype=torch.float64)
        end = torch.minimum(failed, upper)
        middle = torch.where((proved >= 0) & (proved < end) & end.isfinite(), (proved + end) / 2, proved)
        _try(method, batch, middle, proved, failed, findings, budget)
    if batch.domain is not None and method.proves:
        whole = torch.nonzero(proved >= batch.reach).squeeze(1).tolist()
        findings.add(whole, [math.inf] * len(whole), Decision(torch.ones(len(whole), dtype=torch.bool)), method)


def _try(
    method: Method,
    batch: Batch,
    radius: Tensor,
    proved: Tensor,
    failed: Tensor,
    findings: Findings,
    budget: Budget,
) -> None:
    """Decide the given radii where they lie strictly between `proved` and `failed`; update both in place."""
    upper = torch.tensor([b.upper for b in findings.brackets], dtype=torch.float64)
    rows = torch.nonzero((radius > proved) & (radius < failed) & (radius < upper)).squeeze(1)
    if not len(rows) or budget.exhausted:
        return
    part = batch.at(rows.to(batch.centres.device))
    decision = method.decide(part, part.region(radius[rows].to(batch.centres.device)), budget)
    findings.add(rows.tolist(), radius[rows].tolist(), decision, method)
    proved[rows[decision.certified]] = radius[rows[decision.certified]]
    failed[rows[~decision.certified]] = radius[rows[~decision.certified]]
