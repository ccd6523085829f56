"""The part of the data that is held back, and the score on it that chooses the epoch to keep."""

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from encoders import Box
from encoders.formats.torch_export import from_module
from verifier.attacks.descent import Descent
from verifier.attacks.steps import Steepest
from verifier.bounds.interval import proves
from verifier.training.adversaries import Adversary
from verifier.training.backward_bounds import backward_scores
from verifier.training.intervals import Boxes, around, worst_scores

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
    """The validation score: accuracy, under an adversary or certified where there is a radius.

    epsilon: of the boxes to certify, 0 for none. adversary: None for none. backward: whether margins that are bounded
    backwards certify beside intervals, which networks trained on less than whole boxes need.
    """

    inputs: Tensor
    labels: Tensor
    epsilon: float
    domain: tuple[float, float] | None
    adversary: Adversary | None = None
    backward: bool = False

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
        boxes = around(self.inputs, self.inputs, self.epsilon, self.domain)
        parts = [*zip(*(part.split(ROWS) for part in (boxes.lower, boxes.upper, self.labels)), strict=True)]
        proved = torch.cat([proves(network, Box(low, high), label) for low, high, label in parts])
        if self.backward:
            proved = proved | torch.cat([proved_backwards(module, *part) for part in parts])
        return float((proved & right).double().mean())

    def _parts(self) -> list[tuple[Tensor, Tensor]]:
        return list(zip(self.inputs.split(ROWS), self.labels.split(ROWS), strict=True))

    def _right(self, module: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        points = x if self.adversary is None else self.adversary(module, x, y)
        with torch.no_grad():
            right: Tensor = (module(points).argmax(dim=1) == y) & (module(x).argmax(dim=1) == y)
        return right


def proved_backwards(module: nn.Module, lower: Tensor, upper: Tensor, y: Tensor) -> Tensor:
    """Return where margins that are bounded backwards through intervals show class y to win over boxes.

    In the dtype of the weights, not rounded: it chooses epochs. TypeError where a layer is not supported.
    """
    with torch.no_grad():
        start = Boxes.between(None, lower, upper)
        worst_scores(module, start, y)
        # The own class compares with itself, at 0.
        margins = backward_scores(module, start, y).scatter(1, y[:, None], -1.0)
        wins: Tensor = (margins < 0).all(dim=1)
    return wins


def bounded_backwards(module: nn.Module, x: Tensor, y: Tensor) -> bool:
    """Return whether all layers of a module support that, tried on inputs."""
    try:
        proved_backwards(copy.deepcopy(module).eval(), x, x, y)
    except TypeError:
        return False
    return True
