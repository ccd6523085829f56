"""Points replayed: run in the user's model, and the network's real outputs compared there."""

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from verifier.batch import Batch
from verifier.bounds.interval import refute_at


@dataclass(frozen=True, eq=False)
class Replay:
    """What replaying points shows: masks `(batch,)`.

    executed: the user's model gives another class a value at least as large. real: so it is in real arithmetic,
    by an enclosure or in rational numbers. tie: the user's model gives equal values. undecided: by row, why the order
    in real arithmetic is not known.
    """

    executed: Tensor
    real: Tensor
    tie: Tensor
    undecided: dict[int, str] = field(default_factory=dict)


def replay(batch: Batch, points: Tensor) -> Replay:
    """Run points `(batch, *shape)` in the user's model, and compare the network's real outputs there."""
    classes = batch.classes.cpu().numpy()
    outputs = batch.subject.execute(points)
    own = outputs[np.arange(len(outputs)), classes]
    others = outputs.copy()
    others[np.arange(len(outputs)), classes] = -np.inf
    best_other = others.max(axis=1)
    order = refute_at(batch.subject.network, points, batch.classes)
    # A NaN compares as false: such a point is no witness.
    executed, tie = torch.from_numpy(best_other >= own), torch.from_numpy(best_other == own)
    return Replay(executed, order.refuted.cpu(), tie, order.undecided)
