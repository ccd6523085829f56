"""The stochastic delta rule: weights are drawn for every batch, and vary more the larger their gradients are.

With w = mean + deviation z and the gradient g of the loss at w (Hanson 1990; Frazier-Logue, Hanson 2018; Liu, Sha 2019)

    mean <- mean - step of the optimiser by g,    deviation <- deviation + beta |g|,    deviation <- zeta deviation.

When the second and third happen is a schedule: `printed` as the paper has it (beta after every batch, zeta twice an
epoch), under which deviations may grow without end (docs/REPRODUCTION.md); `published` as the authors' code has it
(both twice an epoch only); `batch` (both after every batch).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from verifier.training.random_layers import RandomLayer, random_layers
from verifier.training.regimes import Described, Loss

DECAYS_PER_EPOCH = 2


@dataclass(frozen=True)
class Schedule:
    """When deviations grow by beta and shrink by zeta: after every batch, or `DECAYS_PER_EPOCH` times an epoch."""

    spreads_every_batch: bool
    decays_every_batch: bool


SCHEDULES = {"batch": Schedule(True, True), "printed": Schedule(True, False), "published": Schedule(False, False)}


@dataclass(frozen=True, repr=False)
class DeltaRule(Described):
    """The loss at a draw; deviations move after each step. beta, zeta: of the module's docstring."""

    loss: Loss
    beta: float
    zeta: float
    schedule: str
    epochs: int

    def __call__(self, module: nn.Module, x: Tensor, y: Tensor, progress: float) -> Iterator[Tensor]:
        """Yield the loss of the batch at one draw of the weights."""
        yield self.loss(module(x), y)
        due = int(progress * self.epochs * DECAYS_PER_EPOCH)
        with torch.no_grad():
            for layer in random_layers(module):
                self._move(layer, due)

    def _move(self, layer: RandomLayer, due: int) -> None:
        """Move the deviations of a layer after a step; due: how many decays there should have been by now."""
        schedule, now = SCHEDULES[self.schedule], int(layer.decays) < due
        for deviation, gradient in layer.gradients():
            if schedule.spreads_every_batch or now:
                deviation += self.beta * gradient.abs()
            if schedule.decays_every_batch or now:
                deviation *= self.zeta
        layer.decays.fill_(due)
