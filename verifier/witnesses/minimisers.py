"""Points where a relaxation's bound is least, tried as attacks: the surest first, until one is confirmed."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from encoders.region import BallRegion
from verifier.answers import Answer, merged
from verifier.batch import Batch
from verifier.witnesses.confirm import confirm

# Minimisers of an input that are replayed, one after the other, until one is confirmed.
CANDIDATES = 4


def try_points(batch: Batch, region: BallRegion, points: Tensor, rows: Sequence[int], method: str) -> list[Answer]:
    """Return what the points `(batch, count, *shape)` of the given rows show, an answer for each of these.

    method: the name that goes with the witnesses.
    """
    candidates = [_surest(batch, region, points, row) for row in rows]
    answers = [Answer()] * len(rows)
    for number in range(CANDIDATES):
        places = [i for i, tried in enumerate(candidates) if number < len(tried) and answers[i].witness is None]
        if not places:
            break
        index = torch.tensor([rows[i] for i in places], device=points.device)
        stacked = torch.stack([candidates[i][number] for i in places])
        shown = confirm(batch.at(index), region[index], stacked, method)
        # Why a point is none does not matter: the bound that it belongs to is why the region is open.
        answers = merged(answers, places, [replace(answer, reason=None) for answer in shown])
    return answers


def _surest(batch: Batch, region: BallRegion, points: Tensor, row: int) -> Tensor:
    """Return the points of a row, moved into its region, that another class wins or ties in the network's dtype.

    The surest first: those behind it may be unsafe where it is so by rounding only.
    """
    network = batch.subject.network
    index = torch.full((points.shape[1],), row, device=points.device)
    inside = region[index].clip(points[row], network.dtype)
    scores = network.scores(inside).to(torch.float64)
    own = int(batch.classes[row])
    rivals = torch.cat([scores[:, :own], scores[:, own + 1 :]], dim=1).amax(dim=1)
    lead = rivals - scores[:, own]
    surest = lead.nan_to_num(-torch.inf, torch.inf, -torch.inf).argsort(descending=True)[:CANDIDATES]
    return inside[surest[lead[surest] >= 0]]
