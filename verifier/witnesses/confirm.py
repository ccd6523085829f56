"""Points confirmed as witnesses: inside their regions, replayed, and pulled towards their inputs."""

from itertools import chain

import torch
from torch import Tensor

from encoders.region import BallRegion
from verifier.answers import Answer, Witness
from verifier.batch import Batch
from verifier.devices.parts import OUT_OF_MEMORY, in_parts
from verifier.witnesses.replay import replay
from verifier.witnesses.shorten import shorten


def confirm(batch: Batch, region: BallRegion, points: Tensor, method: str) -> list[Answer]:
    """Return what points of the regions show: witnesses, each replayed and pulled towards its input.

    points: `(batch, *shape)` in the model's dtype, inside their regions. method: the name that goes with the witnesses.
    """
    answers = [Answer()] * len(batch)
    shown = replay(batch, points)
    inside = region.contains(points).cpu()
    distances = region.distance(points).tolist()
    apart = torch.nonzero((shown.executed != shown.real) & inside).squeeze(1).to(points.device)
    if len(apart):
        # Rounding may part them, or the graph is not the model: then there is nothing to say about it.
        batch.subject.outputs(points[apart], ["a point that an attack proposed"] * len(apart))
    for row in torch.nonzero(shown.executed & ~shown.real & inside).squeeze(1).tolist():
        answers[row] = Answer.open(_undecided(shown.undecided.get(row)), execution_only=distances[row])
    rows = torch.nonzero(shown.executed & shown.real & inside).squeeze(1)
    index = rows.to(points.device)
    part = batch.at(index)

    def unsafe(at: Tensor, where: Tensor) -> Tensor:
        seen = replay(part.at(at), where)
        return seen.executed & seen.real

    for row, witness in zip(rows.tolist(), shorten(part, region[index], points[index], unsafe), strict=True):
        # One that shows it in company only is no witness: the user will run it alone.
        alone = None if witness is None else Answer.broken(witness, method)
        answers[row] = alone or Answer.open(execution_only=distances[row])
    return answers


def own_ties(batch: Batch, method: str) -> list[Answer]:
    """Return which inputs are counterexamples themselves: another class has at least the same value.

    What the memory of a device does not hold is asked in parts; of an input that it does not hold alone nothing is
    said, with the reason.
    """
    everyone = torch.arange(len(batch), device=batch.centres.device)
    parts = in_parts(
        lambda part: _own_ties(batch.at(everyone[part]), method), len(batch), len(batch),
        lambda row: [Answer.open(OUT_OF_MEMORY)],
    )  # fmt: skip
    return list(chain(*parts))


def _own_ties(batch: Batch, method: str) -> list[Answer]:
    points = batch.region(0.0).clip(batch.centres, batch.subject.network.dtype)
    shown = replay(batch, points)
    answers = [Answer()] * len(batch)
    for row in torch.nonzero(shown.executed & shown.real).squeeze(1).tolist():
        answers[row] = Answer.broken(Witness(points[row].cpu(), 0.0, bool(shown.tie[row])), method)
    return answers


def _undecided(why: str | None) -> str | None:
    return None if why is None else f"a point is unsafe in the model's execution; in real arithmetic {why}"
