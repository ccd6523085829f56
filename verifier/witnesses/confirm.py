"""Points confirmed as witnesses: inside their regions, replayed, and pulled towards their inputs."""

import torch
from torch import Tensor

from encoders.region import BallRegion
from verifier.answers import Decision, Witness
from verifier.batch import Batch
from verifier.witnesses.replay import replay
from verifier.witnesses.shorten import shorten


def confirm(batch: Batch, region: BallRegion, points: Tensor) -> Decision:
    """Return the witnesses among points of the regions, each replayed and pulled towards its input.

    points: `(batch, *shape)` in the model's dtype, inside their regions.
    """
    decision = Decision(torch.zeros(len(batch), dtype=torch.bool))
    shown = replay(batch, points)
    inside = region.contains(points).cpu()
    distances = region.distance(points).tolist()
    apart = torch.nonzero((shown.executed != shown.real) & inside).squeeze(1).to(points.device)
    if len(apart):
        # Rounding may part them, or the graph is not the model: then there is nothing to say about it.
        batch.subject.outputs(points[apart], ["a point that an attack proposed"] * len(apart))
    for row in torch.nonzero(shown.executed & ~shown.real & inside).squeeze(1).tolist():
        decision.execution_only[row] = distances[row]
        if row in shown.undecided:
            decision.reasons[row] = (
                f"a point is unsafe in the model's execution; in real arithmetic {shown.undecided[row]}"
            )
    rows = torch.nonzero(shown.executed & shown.real & inside).squeeze(1)
    chosen = rows.to(points.device)
    part = batch.at(chosen)

    def unsafe(index: Tensor, at: Tensor) -> Tensor:
        seen = replay(part.at(index), at)
        return seen.executed & seen.real

    for row, witness in zip(rows.tolist(), shorten(part, region[chosen], points[chosen], unsafe), strict=True):
        if witness is None:
            decision.execution_only[row] = distances[row]
        else:
            decision.witnesses[row] = witness
    return decision


def own_ties(batch: Batch) -> Decision:
    """Return the inputs that are counterexamples themselves: another class has at least the same value."""
    points = batch.region(0.0).clip(batch.centres, batch.subject.network.dtype)
    shown = replay(batch, points)
    rows = torch.nonzero(shown.executed & shown.real).squeeze(1).tolist()
    witnesses = {row: Witness(points[row].cpu(), 0.0, bool(shown.tie[row])) for row in rows}
    return Decision(torch.zeros(len(batch), dtype=torch.bool), witnesses)
