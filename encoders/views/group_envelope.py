"""Linear functions around an op whose outputs depend on all units of their group, such as a softmax along an axis."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from encoders.box import Box, Shape
from encoders.rounding import gamma, unit_roundoff
from encoders.views.coefficients import Coefficients, dot_error, inflated, underflow_slack
from encoders.views.envelope import Below, Envelope
from encoders.views.relaxation import Relaxation, Rows, assembled


def to_groups(x: Tensor, axis: int) -> Tensor:
    """Return `(batch, groups, n)` of x `(batch, *shape)`: units along an axis of the shape lie in one group."""
    return x.movedim(axis + 1, -1).flatten(1, -2) if x.dim() > 2 else x.unsqueeze(1)


def from_groups(x: Tensor, axis: int, shape: Shape) -> Tensor:
    """Return `(batch, *shape)` of x `(batch, groups, n)`."""
    rest = [size for place, size in enumerate(shape) if place != axis]
    return x.reshape(x.shape[0], *rest, x.shape[-1]).movedim(-1, axis + 1)


@dataclass(frozen=True, eq=False)
class GroupLines:
    """Functions weight x + offset of each output.

    weight: `(batch, groups, n, n)`, [output, input]; offset: `(batch, groups, n)`.
    """

    weight: Tensor
    offset: Tensor

    def where_finite(self, end: Tensor) -> GroupLines:
        """Return the functions; where one has numbers that are not finite, an end of the output's range."""
        fine = self.weight.isfinite().all(dim=-1) & self.offset.isfinite()
        weight = torch.where(fine.unsqueeze(-1), self.weight, torch.zeros_like(self.weight))
        return GroupLines(weight, torch.where(fine, self.offset, end))


@dataclass(frozen=True, eq=False)
class GroupEnvelope(Envelope):
    """lower.weight x + lower.offset <= op(x) <= upper.weight x + upper.offset for x in a box, in each group.

    box: of the input; axis: of its shape, along which the units of a group lie. Offsets are rounded outward.
    """

    lower: GroupLines
    upper: GroupLines
    box: Box
    axis: int

    def below(self, coefficients: Coefficients) -> Below:
        """Take the lower function where a coefficient is positive and the upper one where it is negative."""
        shape = self.box.shape
        full = coefficients.full(shape)
        batch, rows = full.shape[:2]
        values = to_groups(full.flatten(0, 1), self.axis)
        grouped = values.reshape(batch, rows, *values.shape[1:])
        positive, negative = grouped.clamp(min=0), grouped.clamp(max=0)
        result = torch.einsum("brgo,bgoi->brgi", positive, self.lower.weight)
        result = result + torch.einsum("brgo,bgoi->brgi", negative, self.upper.weight)
        constant = torch.einsum("brgo,bgo->br", positive, self.lower.offset)
        constant = constant + torch.einsum("brgo,bgo->br", negative, self.upper.offset)
        constant = constant - abs(Coefficients(full)).dot(self._error) - self._slack
        inputs = from_groups(result.flatten(0, 1), self.axis, shape).reshape(batch, rows, *shape)
        return (Coefficients(inputs),), constant

    @cached_property
    def _error(self) -> Tensor:
        """What roundings can move a bound by for each output: those of the coefficients, times |x|, and of the sum."""
        reach = to_groups(torch.maximum(self.box.lower.abs(), self.box.upper.abs()), self.axis)
        size = self.lower.weight.detach().abs() + self.upper.weight.detach().abs()
        # Infinite inputs leave no weight; times zero they would be NaN.
        moved = (size * torch.where(reach.isfinite(), reach, 0.0).unsqueeze(2)).sum(dim=-1)
        share = gamma(2 * size.shape[-1] + 16, size.dtype) * (1.0 + 4.0 * size.shape[-1] * unit_roundoff(size.dtype))
        error = from_groups(moved * share, self.axis, self.box.shape)
        offsets = self.lower.offset.detach().abs() + self.upper.offset.detach().abs()
        return inflated(error + 2.0 * dot_error(from_groups(offsets, self.axis, self.box.shape)))

    @cached_property
    def _slack(self) -> Tensor:
        """What underflows can move a bound by, `(batch, 1)`."""
        reach = torch.maximum(self.box.lower.abs(), self.box.upper.abs()).flatten(1)
        total = torch.where(reach.isfinite(), reach, 0.0).sum(dim=1, keepdim=True) + 1.0
        return total * underflow_slack(self.box.shape, self.box.dtype)


def group_relaxation(envelope: GroupEnvelope) -> Relaxation:
    """Return the functions below and above each output as rows, for one box (batch 1)."""
    shape = envelope.box.shape
    count = envelope.box.lower.numel()
    places = to_groups(torch.arange(count).reshape(1, *shape), envelope.axis)[0].numpy()
    size = places.shape[1]
    output, row = places.reshape(-1), np.arange(count)
    rows, columns = np.repeat(row, size), np.repeat(places, size, axis=0).reshape(-1)
    blocks = []
    for lines, below in ((envelope.lower, True), (envelope.upper, False)):
        weight, offset = (part[0].detach().double().cpu().numpy().reshape(-1) for part in (lines.weight, lines.offset))
        entries = [(rows, columns, -weight), (row, count + output, np.ones(count))]
        blocks.append(Rows(count, entries, offset if below else -np.inf, np.inf if below else offset))
    return Relaxation(*assembled(blocks, 2 * count))
