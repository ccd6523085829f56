"""Training of l_inf-distance networks on margins (Zhang, Jiang, He, Wang 2022, "Boosting the certified robustness of
L-infinity distance nets"), with a slower end.

No output of such a network moves by more than its input does, so that a margin above 2 epsilon is a certificate: no box
is propagated. With the margin m of the label over the best other class and r = 1.5 epsilon:

    clamp(1 - m / (2 r), 0, 1) + share * cross-entropy(SCALE * outputs)

share falls from the first to the last of `SHARES` while the p of the norm doubles from 2^3 to 2^10, between the two
times of `RISE`; after that the norm is the inf-norm. The cross-entropy moves inputs that the clamp has given up.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from encoders.layers.distance import Distance
from verifier.training.regimes import Described

# Beyond the radius that is asked for: what is just certified in training is not on other inputs.
BEYOND = 1.5
SQUARINGS = (3, 10)
RISE = (0.35, 0.9)
SHARES = (0.05, 0.01)
# Theirs is trained; it came to lie between 5 and 6.
SCALE = 5.7


@dataclass(frozen=True, repr=False)
class Margins(Described):
    """Losses of margins for a radius epsilon in the inf-norm; TypeError for a network without distance layers."""

    epsilon: float

    def __call__(self, module: nn.Module, x: Tensor, y: Tensor, progress: float) -> Iterator[Tensor]:
        """Yield the loss of the batch."""
        layers = [layer for layer in module.modules() if isinstance(layer, Distance)]
        if not layers:
            raise TypeError("margins certify networks whose layers are all distances: the network distance")
        for layer in layers:
            layer.squarings = squarings_at(progress)
        outputs = module(x)
        own = functional.one_hot(y, outputs.shape[1]).bool()
        best = outputs.masked_fill(own, -torch.inf).amax(dim=1)
        short = (1 - (outputs[own] - best) / (2 * BEYOND * self.epsilon)).clamp(0, 1)
        yield short.mean() + share_at(progress) * functional.cross_entropy(SCALE * outputs, y)


def risen(progress: float) -> float:
    """Return the part of the rise that is over."""
    return min(1.0, max(0.0, (progress - RISE[0]) / (RISE[1] - RISE[0])))


def squarings_at(progress: float) -> int | None:
    """Return log2 of the p of a time, None for the inf-norm."""
    part = risen(progress)
    return None if part == 1 else SQUARINGS[0] + round(part * (SQUARINGS[1] - SQUARINGS[0]))


def share_at(progress: float) -> float:
    """Return the weight of the cross-entropy, which falls by equal factors."""
    return float(SHARES[0] * (SHARES[1] / SHARES[0]) ** risen(progress))
