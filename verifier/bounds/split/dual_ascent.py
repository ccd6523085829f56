"""Slopes and multipliers for the bound of `verifier.certificates.split_program`, by its ascent (Wang et al. 2021).

For fixed boxes the best slopes and multipliers give the optimum of the linear program over the triangles of the hinges
(Salman et al. 2019), at the price of one product with every weight forth and one back a step, for many subproblems at
once. The gradient is closed: the minimiser of the linear function of the input is carried forward through the lines in
use; where a hinge takes the line below, its slope gains cost times z; a multiplier gains the box's end less z. Only
multipliers of split units move (beta-CROWN): the boxes of others follow from the triangles before them, so that theirs
add nothing in the end, and on the way they hold ascent up. float32: proposals.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from verifier.bounds.split.dual_steps import DualSteps
from verifier.bounds.split.form import AffineStage, HingeNetwork
from verifier.bounds.split.plane_lines import PlaneLines
from verifier.devices.parts import Part, in_parts


@dataclass(frozen=True, eq=False)
class Lines:
    """What the lines of the hinges are on subproblems of the box; all `(batch or 1, units)` of all hinges side by side.

    lower, upper: the box of what the units read, width: its width before splits; slope, offset: of the line above. A
    line below has the slope least + span s for s in [0, 1]. planes: in place of the lines above open units of the first
    hinge, for each subproblem.
    """

    lower: Tensor
    upper: Tensor
    slope: Tensor
    offset: Tensor
    least: Tensor
    span: Tensor
    width: Tensor
    planes: PlaneLines | None = None

    @classmethod
    def on(cls, lower: Tensor, upper: Tensor, left: Tensor) -> Lines:
        """Return the lines on boxes, for hinges of the given left slopes `(units,)`."""
        is_open = (lower < 0) & (upper > 0)
        width = torch.where(is_open, upper - lower, 1.0)
        known = torch.where(lower >= 0, torch.ones_like(left), left)
        slope = torch.where(is_open, (upper - left * lower) / width, known)
        offset = torch.where(is_open, upper - slope * upper, 0.0)
        least, span = torch.where(is_open, left, known), torch.where(is_open, 1.0 - left, 0.0)
        return cls(lower, upper, slope, offset, least, span, width)

    def split(self, signs: Tensor, left: Tensor) -> Lines:
        """Return the lines on the subproblems of signs `(batch, units)`: of open units, or as boxes say."""
        right, whole = signs > 0, (signs == 0).to(self.slope.dtype)
        known = torch.where(right, 1.0, left)
        return Lines(
            torch.where(right, self.lower.clamp(min=0), self.lower),
            torch.where(signs < 0, self.upper.clamp(max=0), self.upper),
            torch.lerp(known, self.slope, whole), self.offset * whole, torch.lerp(known, self.least, whole),
            self.span * whole, self.width.expand_as(whole), self.planes,
        )  # fmt: skip

    def __getitem__(self, subproblems: Tensor | slice) -> Lines:
        """Return the lines on some subproblems."""
        planes = None if self.planes is None else self.planes[subproblems]
        return Lines(*self._each(lambda values: values[subproblems]), planes)

    def at(self, units: Tensor) -> Lines:
        """Return the lines of some units."""
        return Lines(*self._each(lambda values: values[:, units]))

    def to(self, device: torch.device) -> Lines:
        """Return the same on a device."""
        planes = None if self.planes is None else self.planes.to(device)
        return Lines(*self._each(lambda values: values.to(device)), planes)

    def _each(self, part: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Return a part of all values but the planes."""
        return (
            part(self.lower), part(self.upper), part(self.slope), part(self.offset), part(self.least), part(self.span),
            part(self.width),
        )  # fmt: skip


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The bound `(batch,)` at some slopes and multipliers, and what follows from it.

    points: minimisers `(batch, inputs)`. costs: of the hinges' values, slope_gain, multiplier_gain: gradients, all
    `(batch, units)`.
    """

    bound: Tensor
    points: Tensor
    costs: Tensor
    slope_gain: Tensor
    multiplier_gain: Tensor


class DualAscent:
    """The bound of one staged network over one input box `(inputs,)`, for rows of any stage."""

    def __init__(self, network: HingeNetwork, lower: Tensor, upper: Tensor) -> None:
        self.network = network
        self.dtype, self.device = network.dtype, network.device
        self.lower, self.upper = (end.to(self.device, self.dtype) for end in (lower, upper))
        sizes = [stage.size for stage in network.hinges]
        starts = torch.tensor([0, *sizes]).cumsum(0).tolist()
        self.units = [slice(start, start + size) for start, size in zip(starts[:-1], sizes, strict=True)]
        self.left = torch.cat(
            [
                torch.full((size,), stage.left, dtype=self.dtype, device=self.device)
                for stage, size in zip(network.hinges, sizes, strict=True)
            ]
            or [torch.zeros(0, dtype=self.dtype, device=self.device)]
        )

    def bound(
        self, stage: AffineStage, rows: Tensor, lines: Lines, slopes: Tensor, multipliers: Tensor | None
    ) -> Tensor:
        """Return the bounds `(batch,)` of rows `(batch, values)` of a stage."""
        given = (rows, lines, slopes, multipliers)
        return torch.cat(self._in_parts(lambda part: self._back(stage, *_at(part, *given))[0], len(rows)))

    def evaluate(
        self, stage: AffineStage, rows: Tensor, lines: Lines, slopes: Tensor, multipliers: Tensor | None
    ) -> Evaluation:
        """Return the bounds of rows of a stage, with their gradients."""
        given = (rows, lines, slopes, multipliers)
        parts = self._in_parts(lambda part: self._evaluate(stage, *_at(part, *given)), len(rows))
        return Evaluation(*(torch.cat([getattr(part, f.name) for part in parts]) for f in fields(Evaluation)))

    def _in_parts(self, work: Callable[[slice], Part], count: int) -> list[Part]:
        """Return what work returns of all subproblems, in pieces that the cache or a device's memory holds."""
        return in_parts(work, count, self.network.piece or count) if count else [work(slice(0, 0))]

    def _evaluate(
        self, stage: AffineStage, rows: Tensor, lines: Lines, slopes: Tensor, multipliers: Tensor | None
    ) -> Evaluation:
        """Return the bounds of rows of a stage, with their gradients."""
        bound, costs, used, cost_of_input = self._back(stage, rows, lines, slopes, multipliers)
        points = torch.where(cost_of_input > 0, self.lower, self.upper)
        z = torch.zeros_like(costs)
        above = costs <= 0
        shift = lines.offset * above

        def at_hinge(k: int, value: Tensor) -> Tensor:
            own = self.units[k]
            z[:, own] = value
            passed = torch.addcmul(shift[:, own], used[:, own], value)
            if k or lines.planes is None:
                return passed
            return torch.where(above[:, own] & (lines.offset[:, own] > 0), lines.planes.values(points), passed)

        self.network.forward(stage, points, at_hinge)
        slope_gain = (lines.span * costs * z).masked_fill_(above, 0.0)
        if multipliers is None:
            return Evaluation(bound, points, costs, slope_gain, torch.zeros_like(z))
        low, high = lines.lower - z, lines.upper - z
        # At a multiplier of 0 the gradient is one-sided: it pays to leave 0 only where z lies outside its box.
        outside = low.clamp(min=0) + high.clamp(max=0)
        multiplier_gain = torch.where(multipliers > 0, low, torch.where(multipliers < 0, high, outside))
        return Evaluation(bound, points, costs, slope_gain, multiplier_gain)

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
        """Return (bounds, slopes, multipliers), the best of some steps; early once all bounds pass the goal.

        multipliers: None for none; those of split units move, and then the goal is finite.
        """
        given = (rows, lines, slopes, multipliers)
        found = self._in_parts(lambda part: self._ascend(stage, *_at(part, *given), steps, goal), len(rows))
        multipliers_found = [part[2] for part in found if part[2] is not None]
        return (
            torch.cat([part[0] for part in found]),
            torch.cat([part[1] for part in found]),
            torch.cat(multipliers_found) if multipliers_found else None,
        )

    def _ascend(
        self,
        stage: AffineStage,
        rows: Tensor,
        lines: Lines,
        slopes: Tensor,
        multipliers: Tensor | None,
        steps: int,
        goal: float,
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        best = torch.full((len(rows),), -torch.inf, dtype=self.dtype, device=self.device)
        best_slopes, best_multipliers = slopes, multipliers
        moving = DualSteps(lines.span, lines.width, slopes, multipliers, goal)
        for step in range(steps + 1):
            evaluation = self._evaluate(stage, rows, lines, moving.slopes, moving.multipliers)
            better = evaluation.bound > best
            best = torch.where(better, evaluation.bound, best)
            best_slopes = torch.where(better[:, None], moving.slopes, best_slopes)
            if moving.multipliers is not None and best_multipliers is not None:
                best_multipliers = torch.where(better[:, None], moving.multipliers, best_multipliers)
            if step == steps or bool((best > goal).all()):
                break
            moving.move(evaluation.bound, evaluation.slope_gain, evaluation.multiplier_gain)
        return best, best_slopes, best_multipliers

    def _back(
        self, stage: AffineStage, rows: Tensor, lines: Lines, slopes: Tensor, multipliers: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return (bounds, the cost of each hinge's value, the slopes of the lines in use, the cost of the input)."""
        below = torch.addcmul(lines.least, lines.span, slopes)
        costs = torch.zeros(len(rows), len(self.left), dtype=self.dtype, device=self.device)
        used = torch.zeros_like(costs)

        def at_hinge(k: int, cost: Tensor) -> Tensor:
            own = self.units[k]
            costs[:, own] = cost
            line = torch.where(cost > 0, below[:, own], lines.slope[:, own])
            if k == 0 and lines.planes is not None:
                # A plane is passed to the inputs as a whole, below.
                line = torch.where((cost <= 0) & (lines.offset[:, own] > 0), 0.0, line)
            used[:, own] = line
            return cost * line if multipliers is None else cost * line - multipliers[:, own]

        total, cost = self.network.back(stage, rows, at_hinge)
        offset = lines.offset
        if lines.planes is not None and self.units:
            own = self.units[0]
            has_plane = offset[:, own] > 0
            cost = cost + lines.planes.back(costs[:, own].clamp(max=0) * has_plane)
            first = torch.where(has_plane, lines.planes.offsets, offset[:, own])
            offset = torch.cat([first, offset[:, own.stop :].expand(len(first), -1)], dim=1)
        total = total + (costs.clamp(max=0) * offset).sum(dim=1)
        if multipliers is not None:
            total = total + (multipliers.clamp(min=0) * lines.lower + multipliers.clamp(max=0) * lines.upper).sum(dim=1)
        total = total + cost.clamp(min=0) @ self.lower + cost.clamp(max=0) @ self.upper
        return total, costs, used, cost


def _at(
    part: slice, rows: Tensor, lines: Lines, slopes: Tensor, multipliers: Tensor | None
) -> tuple[Tensor, Lines, Tensor, Tensor | None]:
    """Return the arguments of some subproblems; lines on one box are those of all."""
    if len(lines.lower) > 1:
        lines = lines[part]
    elif lines.planes is not None:
        lines = replace(lines, planes=lines.planes[part])
    return rows[part], lines, slopes[part], None if multipliers is None else multipliers[part]
