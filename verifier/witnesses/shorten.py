"""Witnesses pulled along the segment towards their inputs, by halvings of it."""

from collections.abc import Callable

import torch
from torch import Tensor

from encoders.region import BallRegion
from verifier.answers import Witness
from verifier.batch import Batch
from verifier.witnesses.replay import replay

# Halvings of the segment from an input to its witness: the distance is then within 2^-10 of its least there.
SEGMENT_STEPS = 10

# Whether points show what is asked of them, `(k,)`, given their places among the points in question.
Shows = Callable[[Tensor, Tensor], Tensor]


def shorten(batch: Batch, region: BallRegion, points: Tensor, shows: Shows) -> list[Witness | None]:
    """Return witnesses on the segments from the inputs to points that show what is asked, as near as bisection gets.

    Each is run once more alone: some runtimes round otherwise in a batch, and the user will run it alone. None where
    a point shows it in company only.
    """
    if not len(points):
        return []
    best = _nearest_on_segments(region, points, torch.arange(len(points)), shows)
    held = torch.ones(len(points), dtype=torch.bool)
    for row in range(len(points)):
        index = torch.tensor([row])
        if bool(shows(index, best[index])[0]):
            continue
        held[row] = bool(shows(index, points[index])[0])
        if held[row]:
            best[index] = _nearest_on_segments(region[index.to(points.device)], points[index], index, shows)
    tie = torch.cat(
        [replay(batch.at(index), best[index]).tie for index in torch.arange(len(points)).split(1)] or [held]
    )
    distances = region.distance(best).tolist()
    return [Witness(best[i].cpu(), distances[i], bool(tie[i])) if held[i] else None for i in range(len(best))]


def _nearest_on_segments(region: BallRegion, points: Tensor, index: Tensor, shows: Shows) -> Tensor:
    """Return the nearest points found by halving the segments from the centres; index: of the points, for `shows`."""
    best, unsafe = points.clone(), torch.ones(len(points), dtype=torch.float64, device=points.device)
    safe = torch.zeros_like(unsafe)
    exact = points.to(torch.float64)
    for _ in range(SEGMENT_STEPS if len(points) else 0):
        share = (safe + unsafe) / 2
        middle = region.clip(
            region.centre + share.reshape(-1, *[1] * (points.dim() - 1)) * (exact - region.centre), points.dtype
        )
        hit = shows(index, middle).to(points.device)
        best[hit] = middle[hit]
        unsafe, safe = torch.where(hit, share, unsafe), torch.where(hit, safe, share)
    return best
