"""The bracket of a method that decides regions: the requested radii first, then halvings of what is left."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from verifier.answers import Answer, merged
from verifier.batch import Batch
from verifier.budget import Budget
from verifier.methods.base import Method
from verifier.verdict import Outcome, Strength


def bisect_brackets(
    method: Method, batch: Batch, radii: Sequence[float], answers: Sequence[Answer], budget: Budget, steps: int
) -> list[Answer]:
    """Return the answers after the balls of the given radii, and `steps` halvings of the gap to what is not proved.

    A proof at a radius holds for every smaller one; where a method fails it is not asked about larger ones, and where
    it proves every given radius no other is tried. The ball of a domain's whole reach is the domain: no witness exists
    beyond it. A method whose proofs are only trusted goes on from what is trusted, any other from what is proved.
    """
    trusts = method.strength is Strength.TRUSTED
    ends = [max(a.bracket.lower, a.bracket.trusted) if trusts else a.bracket.lower for a in answers]
    proved = torch.tensor(ends, dtype=torch.float64)
    failed = torch.full_like(proved, math.inf)
    known = list(answers)
    for radius in sorted(set(radii)):
        known = _decide_between(method, batch, torch.full_like(proved, radius), proved, failed, known, budget)
    for _ in range(steps):
        if budget.exhausted:
            break
        end = torch.minimum(failed, _upper_ends(known))
        middle = torch.where((proved >= 0) & (proved < end) & end.isfinite(), (proved + end) / 2, proved)
        known = _decide_between(method, batch, middle, proved, failed, known, budget)
    if batch.bounded and method.proves:
        whole = proved >= batch.reach
        if trusts:
            # A witness beyond the reach can only be one whose distance was rounded up: it refutes no solver.
            whole &= _upper_ends(known).isinf()
        known = merged(known, range(len(batch)), method.proofs(whole, torch.full_like(proved, math.inf)))
    return known


def _decide_between(
    method: Method, batch: Batch, radius: Tensor, proved: Tensor, failed: Tensor, known: list[Answer], budget: Budget
) -> list[Answer]:
    """Return the answers after the given radii that lie between `proved` and `failed`, both updated in place."""
    rows = torch.nonzero((radius > proved) & (radius < failed) & (radius < _upper_ends(known))).squeeze(1)
    if not len(rows) or budget.exhausted:
        return known
    part = batch.at(rows.to(batch.centres.device))
    answers = method.decide(part, part.region(radius[rows].to(batch.centres.device)), budget)
    trusts = method.strength is Strength.TRUSTED
    pairs = zip(answers, radius[rows].tolist(), strict=True)
    # A solver's word among the answers of a method that proves is no proof of that method's.
    is_safe = [answer.vouched_safe(r) if trusts else answer.at(r) is Outcome.CERTIFIED for answer, r in pairs]
    certified = torch.tensor(is_safe, dtype=torch.bool)
    proved[rows[certified]] = radius[rows[certified]]
    failed[rows[~certified]] = radius[rows[~certified]]
    return merged(known, rows.tolist(), answers)


def _upper_ends(answers: Sequence[Answer]) -> Tensor:
    return torch.tensor([answer.bracket.upper for answer in answers], dtype=torch.float64)
