"""The part of the data that is held back, and the score on it that chooses the epoch to keep."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from encoders import Box
from encoders.formats.torch_export import from_module
from verifier.attacks.descent import Descent
from verifier.attacks.steps import Steepest
from verifier.bounds.interval import proves
from verifier.training.adversaries import Adversary

# Inputs of the training part that validation holds back.
VALIDATION_SHARE = 1 / 12
# What judges an epoch of training against attacks, whichever these are: training on few steps alone can make a network
# that only these do not break (Wong, Rice, Kolter 2020).
JUDGE = Descent(10, Steepest(0.25), loss="cross-entropy")
ROWS = 500


def split(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return (held-out, kept) rows, a seeded split."""
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    held_out = max(1, round(count * VALIDATION_SHARE))
    return order[:held_out], order[held_out:]


@dataclass(frozen=True, eq=False)
class Score:
    """The validation score: accuracy, under an adversary or certified by intervals where there is a radius.

    epsilon: of the boxes that intervals certify, 0 for none. adversary: None for none.
    """

    inputs: Tensor
    labels: Tensor
    epsilon: float
    domain: tuple[float, float] | None
    adversary: Adversary | None = None

    def __call__(self, module: nn.Module) -> float:
        """Return the share of held-out inputs; torch's global generator is left as it is."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            right = torch.cat([self._right(module, *part) for part in self._parts()])
        if not self.epsilon:
            return float(right.double().mean())
        network = from_module(module.cpu(), tuple(self.inputs.shape[1:]))
        module.to(self.inputs.device)
        # float32 bounds are enough to choose an epoch; a certificate is computed anew in float64.
        ends = (self.inputs - self.epsilon, self.inputs + self.epsilon)
        if self.domain is not None:
            ends = (ends[0].clamp(min=self.domain[0]), ends[1].clamp(max=self.domain[1]))
        masks = [
            proves(network, Box(low, high), label)
            for low, high, label in zip(ends[0].split(ROWS), ends[1].split(ROWS), self.labels.split(ROWS), strict=True)
        ]
        return float((torch.cat(masks) & right).double().mean())

    def _parts(self) -> list[tuple[Tensor, Tensor]]:
        return list(zip(self.inputs.split(ROWS), self.labels.split(ROWS), strict=True))

    def _right(self, module: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        points = x if self.adversary is None else self.adversary(module, x, y)
        with torch.no_grad():
            right: Tensor = (module(points).argmax(dim=1) == y) & (module(x).argmax(dim=1) == y)
        return right
