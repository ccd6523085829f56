"""Ascent on a device of what lies on the processor: the numbers of subproblems go there and back, steps stay there.

A subproblem's numbers are a few rows, a step passes all weights forth and back, so that what is carried is little. What
comes back are proposals, as those of the processor are.
"""

from __future__ import annotations

from dataclasses import fields

import torch
from torch import Tensor

from verifier.bounds.split.dual_ascent import DualAscent, Evaluation, Lines
from verifier.bounds.split.form import AffineStage, HingeNetwork


class DeviceAscent(DualAscent):
    """An ascent that takes and gives tensors of the processor. network: on the processor, of which a copy is made."""

    def __init__(self, network: HingeNetwork, lower: Tensor, upper: Tensor, device: torch.device) -> None:
        super().__init__(network, lower, upper)
        self._there = DualAscent(network.to(network.dtype, device), lower, upper)

    def bound(
        self, stage: AffineStage, rows: Tensor, lines: Lines, slopes: Tensor, multipliers: Tensor | None
    ) -> Tensor:
        given = self._carried(rows, lines, slopes, multipliers)
        return self._there.bound(self._twin(stage), *given).cpu()

    def evaluate(
        self, stage: AffineStage, rows: Tensor, lines: Lines, slopes: Tensor, multipliers: Tensor | None
    ) -> Evaluation:
        found = self._there.evaluate(self._twin(stage), *self._carried(rows, lines, slopes, multipliers))
        return Evaluation(*(getattr(found, field.name).cpu() for field in fields(Evaluation)))

    def ascend(
        self,
        stage: AffineStage,
        rows: Tensor,
        lines: Lines,
        slopes: Tensor,
        multipliers: Tensor | None,
        steps: int,
        goal: float,
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        given = self._carried(rows, lines, slopes, multipliers)
        bounds, best, moved = self._there.ascend(self._twin(stage), *given, steps, goal)
        return bounds.cpu(), best.cpu(), None if moved is None else moved.cpu()

    def _twin(self, stage: AffineStage) -> AffineStage:
        """Return what a stage of the network is in the copy."""
        here, there = self.network, self._there.network
        pairs = zip((*here.hinges, here.output), (*there.hinges, there.output), strict=True)
        return next(twin for own, twin in pairs if own is stage)

    def _carried(
        self, rows: Tensor, lines: Lines, slopes: Tensor, multipliers: Tensor | None
    ) -> tuple[Tensor, Lines, Tensor, Tensor | None]:
        device = self._there.device
        return (
            rows.to(device),
            lines.to(device),
            slopes.to(device),
            None if multipliers is None else multipliers.to(device),
        )


def ascent_on(device: torch.device, network: HingeNetwork, lower: Tensor, upper: Tensor) -> DualAscent:
    """Return the ascent of a network on the processor over a box, computed on a device."""
    if device.type == "cpu":
        return DualAscent(network, lower, upper)
    return DeviceAscent(network, lower, upper, device)
