"""The part of the data that is held back, and the score on it that chooses the epoch to keep."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from encoders import Box
from encoders.formats.torch_export import from_module
from verifier.bounds.interval import proves

# Inputs of the training part that validation holds back.
VALIDATION_SHARE = 1 / 12


def split(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return (held-out, kept) rows, a seeded split."""
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    held_out = max(1, round(count * VALIDATION_SHARE))
    return order[:held_out], order[held_out:]


@dataclass(frozen=True, eq=False)
class Score:
    """The validation score: accuracy, or accuracy certified by intervals where an epsilon is given."""

    inputs: Tensor
    labels: Tensor
    epsilon: float
    domain: tuple[float, float] | None

    def __call__(self, module: nn.Module) -> float:
        """Return the share of held-out inputs."""
        with torch.no_grad():
            predictions = torch.cat([module(rows).argmax(dim=1) for rows in self.inputs.split(500)])
        right = predictions == self.labels
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
            for low, high, label in zip(ends[0].split(500), ends[1].split(500), self.labels.split(500), strict=True)
        ]
        return float((torch.cat(masks) & right).double().mean())
