"""Linear bound propagation, backward (CROWN: Zhang et al. 2018; on graphs: Xu et al. 2020).

A row of coefficients of a node's value is pushed back through the graph, at each op through the line below it (the line
above where a coefficient is negative), until it is a linear function of the input, whose least value over the region
is known. Rows of +1 and -1 for single units give boxes; rows of class differences give margins. Boxes of units are
computed where intervals leave a question open and intersected with the interval, so they are never looser.
Every rounding is bounded and moved past (see `encoders.views.envelope`): in float64 a bound is a proof.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from encoders.box import Box
from encoders.network import INPUT, Network, Node
from encoders.ops import Affine
from encoders.region import BallRegion
from encoders.rounding import check_gradual_underflow, tiny, unit_roundoff
from encoders.views.coefficients import BoxMinimum, Coefficients, dot_error, inflated
from encoders.views.envelope import Envelope, reach_of

# Bytes that the coefficients of one backward pass may take: pieces that stay in a processor's cache run fastest.
CPU_PIECE_BYTES = 2 * 2**20
DEVICE_PIECE_BYTES = 512 * 2**20
# Positions of a map whose units share one pass, along each axis: few keep the windows small.
TILE = 1

# Lower slopes of the ops that let one choose, by (node whose units are bounded, node of the op).
Slopes = Mapping[tuple[str, str], Tensor]


@dataclass(frozen=True, eq=False)
class Minimum:
    """Least values of rows over the region: bound `(batch, rows)`, rounded down, and points that attain it nearly.

    points: `(batch, rows, *input_shape)`, the minimisers of the linear functions below: proposals for an attack.
    """

    bound: Tensor
    points: Tensor | None = None


class LinearBounds:
    """Boxes of the nodes of a network over a batch of balls, tightened by linear bounds, and what follows from them.

    network: any graph whose ops have envelopes; region: balls of any norm. slopes: the lower slopes to use instead of
    each op's own choice; bounds are differentiable in them. boxes: of nodes, known before; only units that they
    leave open are bounded again. tighten: the nodes whose units are bounded, None: all that gain. piece_bytes: what the
    coefficients of one pass may take. Bounds prove in float64 only; float32 guides a search.
    """

    def __init__(
        self,
        network: Network,
        region: BallRegion,
        *,
        slopes: Slopes | None = None,
        boxes: Mapping[str, Box] | None = None,
        tighten: Sequence[str] | None = None,
        piece_bytes: int | None = None,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        check_gradual_underflow()
        device = region.centre.device
        self.network = network.cast(dtype, device)
        self.region = region
        self.dtype = dtype
        self.slopes = dict(slopes or {})
        self.piece_bytes = piece_bytes or (CPU_PIECE_BYTES if device.type == "cpu" else DEVICE_PIECE_BYTES)
        self._region_minimum = RegionMinimum(region, dtype)
        known = boxes or {}
        self.boxes: dict[str, Box] = {INPUT: self._meet(self._region_minimum.box, known.get(INPUT))}
        self._envelopes: dict[str, Envelope] = {}
        self._readers: dict[str, list[Node]] = {}
        # The greatest number of coefficients of a row in the passes from a node so far.
        self._widths: dict[str, int] = {}
        for node in self.network.nodes:
            for name in node.inputs:
                self._readers.setdefault(name, []).append(node)
        for node in self.network.nodes:
            box = node.op.interval(*(self.boxes[name] for name in node.inputs))
            self.boxes[node.name] = self._meet(box, known.get(node.name))
            if self._gains(node) if tighten is None else node.name in tighten:
                self._tighten(node)

    def minimise(self, coefficients: Tensor, *, with_points: bool = False) -> Minimum:
        """Return the least values of rows `(batch, rows, *output_shape)` of functions of the output."""
        return self._minimise(self.network.output.name, Coefficients(coefficients), with_points)

    def pass_bytes(self) -> dict[str, int]:
        """Return the bytes of coefficients that bounding each node's still open units again would take."""
        size = torch.finfo(self.dtype).bits // 8
        counts = {name: int(self._open_units(name).sum()) for name in self._widths}
        return {name: 2 * count * self._widths[name] * size for name, count in counts.items() if count}

    # ------------------------------------------------------------------------------------------ boxes of the units

    def _gains(self, node: Node) -> bool:
        """Return whether a backward pass from the node can beat its interval, and somebody reads the gain.

        Outputs of non-linear ops gain nothing over the interval of their tightened input. The first op that mixes
        inputs has an exact interval over a box, so in the inf-norm a pass must cross two.
        """
        if not node.op.linear or all(reader.op.linear for reader in self._readers.get(node.name, [])):
            return False
        return self.region.norm != "inf" or self._mixing_depth(node.name) > 1

    def _mixing_depth(self, name: str) -> int:
        """Return the greatest number of ops between the input and the node that are not functions of single units."""
        depth = {INPUT: 0}
        for node in self.network.nodes:
            one_to_one = len(node.inputs) == 1 and node.op.linear and node.op.one_to_one
            depth[node.name] = max(depth[i] for i in node.inputs) + (0 if one_to_one else 1)
            if node.name == name:
                break
        return depth[name]

    def _tighten(self, node: Node) -> None:
        """Replace the node's box by its intersection with linear bounds of the units that matter to a reader."""
        is_open = self._open_units(node.name)
        if not bool(is_open.any()):
            return
        box = self.boxes[node.name]
        lower, upper = box.lower.clone(), box.upper.clone()
        for window, units in self._pieces(is_open):
            self._bound_units(node, window, units, lower, upper)
        self.boxes[node.name] = self._meet(box, Box.unchecked(lower, upper))

    def _meet(self, first: Box, second: Box | None) -> Box:
        """Return the intersection of two boxes that were both proved."""
        return first if second is None else _intersection(first, second)

    def _open_units(self, name: str) -> Tensor:
        """Return a mask of the node's units whose box matters to a reader."""
        box = self.boxes[name]
        is_open = torch.zeros_like(box.lower, dtype=torch.bool)
        for reader in self._readers.get(name, []):
            is_open |= reader.op.open_units(box)
        return is_open

    def _pieces(self, is_open: Tensor) -> Iterator[tuple[tuple[slice, ...], Tensor]]:
        """Yield (part of the node's shape, indices `(batch, rows)` of open units in the flattened part).

        Maps are cut into tiles of positions, whose patches of the input are small. Every input gets as many rows as the
        one with the most open units; the indices of an input are distinct, and those that it does not need bound other
        units.
        """
        shape = is_open.shape[1:]
        parts: list[tuple[slice, ...]] = [tuple(slice(0, n) for n in shape)]
        if len(shape) == 3:
            parts = [
                (slice(0, shape[0]), slice(y, min(y + TILE, shape[1])), slice(x, min(x + TILE, shape[2])))
                for y in range(0, shape[1], TILE)
                for x in range(0, shape[2], TILE)
            ]
        for part in parts:
            mask = is_open[(slice(None), *part)].unsqueeze(-1).flatten(1)
            count = int(mask.sum(dim=1).max()) if len(mask) else 0
            if count:
                # Sorting the mask puts the open units first.
                yield part, mask.to(torch.uint8).topk(count, dim=1).indices

    def _bound_units(self, node: Node, part: tuple[slice, ...], units: Tensor, lower: Tensor, upper: Tensor) -> None:
        """Write the bounds of the given units into the node's ends where they are tighter."""
        sizes = [s.stop - s.start for s in part]
        corner = (part[1].start, part[2].start) if len(part) == 3 else None
        batch, start = units.shape[0], 0
        while start < units.shape[1]:
            # How wide a row grows on its way back is known after the first piece.
            width = self._widths.get(node.name, max(math.prod(shape) for shape in self.network.shapes.values()))
            rows = max(1, self.piece_bytes // (8 * width * 2 * batch))
            chosen = units[:, start : start + rows]
            rows = chosen.shape[1]
            start += rows
            minimum = self._unit_minimum(node, chosen, sizes, corner)
            for ends, values, tighter in (
                (lower, minimum[:, :rows], torch.maximum),
                (upper, -minimum[:, rows:], torch.minimum),
            ):
                view = ends[(slice(None), *part)]
                flat = view.reshape(batch, -1).clone()
                flat = flat.scatter(1, chosen, tighter(flat.gather(1, chosen), values))
                ends[(slice(None), *part)] = flat.view(view.shape)

    def _unit_minimum(self, node: Node, units: Tensor, sizes: list[int], corner: tuple[int, int] | None) -> Tensor:
        """Return the least values `(batch, 2 rows)` of the units and of their negatives."""
        if isinstance(node.op, Affine) and len(sizes) == 1:
            # The first step back from a single unit picks a row of the weights, which rounds nothing.
            weight, bias = node.op.weight[units], node.op.bias
            rows = torch.cat([weight, -weight], dim=1)
            minimum = self._minimise(node.inputs[0], Coefficients(rows), target=node.name).bound
            if bias is None:
                return minimum
            constant = torch.cat([bias[units], -bias[units]], dim=1)
            total = minimum + constant
            return total - (minimum.abs() + constant.abs()) * (2.0 * unit_roundoff(total.dtype))
        batch, count = units.shape
        rows = torch.zeros(batch, 2 * count, math.prod(sizes), dtype=self.dtype, device=units.device)
        rows[:, :count].scatter_(2, units.unsqueeze(2), 1.0)
        rows[:, count:].scatter_(2, units.unsqueeze(2), -1.0)
        return self._minimise(
            node.name, Coefficients(rows.reshape(*rows.shape[:2], *sizes), corner), target=node.name
        ).bound

    # ---------------------------------------------------------------------------------------------- the backward pass

    def _minimise(
        self, start: str, coefficients: Coefficients, with_points: bool = False, target: str | None = None
    ) -> Minimum:
        """Return the least values of rows of functions of a node's value.

        target: the node whose units are bounded, None where the rows are of the output.
        """
        pending = {start: coefficients}
        batch, rows = coefficients.rows
        total = torch.zeros(batch, rows, dtype=self.dtype, device=coefficients.values.device)
        size, best = torch.zeros_like(total), torch.full_like(total, -torch.inf)
        count = 2
        width = 1
        names = [node.name for node in self.network.nodes]
        last = names.index(start) if start != INPUT else -1
        for node in reversed(self.network.nodes[: last + 1]):
            part = pending.pop(node.name, None)
            if part is None:
                continue
            width = max(width, math.prod(part.values.shape[2:]))
            if target is None and not pending and not self.slopes:
                # All that is known so far is a function of this node: its box gives a bound too, so that the answer
                # is never looser than intervals through the layers behind it. It would hide the slopes' gradient.
                least = BoxMinimum(self.boxes[node.name])(part)
                best = torch.maximum(best, self._sum(total, size, least, count))
            inputs, constant = self._envelope(node, target or self.network.output.name).below(part)
            total, size, count = total + constant, size + constant.abs(), count + 1
            for name, given in zip(node.inputs, inputs, strict=False):
                if name not in pending:
                    pending[name] = given
                    continue
                # Two paths meet: their coefficients are added, each sum rounded once.
                error = reach_of(self.boxes[name]) * (2.0 * unit_roundoff(self.dtype))
                shape = self.network.shapes[name]
                both = abs(pending[name]).plus(abs(given), shape)
                pending[name] = pending[name].plus(given, shape)
                constant = -both.dot(inflated(error))
                total, size, count = total + constant, size + constant.abs(), count + 1
        points = None
        if target is not None:
            self._widths[target] = max(width, self._widths.get(target, 1))
        least = torch.zeros_like(total)
        if INPUT in pending:
            least = self._region_minimum(pending[INPUT])
            if with_points:
                points = _minimisers(self.region, self.region.enclosure(), pending[INPUT], self.network.input_shape)
        return Minimum(torch.maximum(best, self._sum(total, size, least, count)), points)

    def _sum(self, total: Tensor, size: Tensor, least: Tensor, count: int) -> Tensor:
        """Return total + least, rounded down; each of `count` sums so far was rounded relative to at most `size`."""
        size = (size + least.abs()) * (2.0 * (count + 1) * unit_roundoff(self.dtype))
        return (total + least - size - tiny(self.dtype)).nan_to_num(-torch.inf, -torch.inf, -torch.inf)

    def _envelope(self, node: Node, target: str) -> Envelope:
        slope = self.slopes.get((target, node.name))
        if slope is None and node.name in self._envelopes:
            return self._envelopes[node.name]
        envelope = node.op.envelope(*(self.boxes[name] for name in node.inputs), slope=slope)
        if slope is None:
            self._envelopes[node.name] = envelope
        return envelope


@dataclass(frozen=True, eq=False)
class RegionMinimum:
    """The least values of linear functions over balls, prepared once for many rows. Rounded down.

    Over the box around the ball, and in the 2- and 1-norm also c . centre - radius ||c|| in the dual norm.
    """

    region: BallRegion
    dtype: torch.dtype = torch.float64

    def __call__(self, coefficients: Coefficients) -> Tensor:
        """Return lower bounds `(batch, rows)`."""
        bound = self._over_box(coefficients)
        if self.region.norm == "inf":
            return bound
        u = unit_roundoff(self.dtype)
        reduction = self.region.radius.to(self.dtype).unsqueeze(1) * self._dual_norm(coefficients.values.flatten(2))
        value = coefficients.dot(self._centre) - abs(coefficients).dot(self._error)
        ball = value - reduction - (value.abs() + reduction) * (8.0 * u) - 8.0 * tiny(self.dtype)
        return torch.maximum(bound, ball.nan_to_num(nan=-torch.inf, posinf=-torch.inf, neginf=-torch.inf))

    @cached_property
    def box(self) -> Box:
        """The boxes around the balls."""
        box = self.region.enclosure()
        return box if self.dtype == torch.float64 else Box(box.lower.to(self.dtype), box.upper.to(self.dtype))

    def _dual_norm(self, rows: Tensor) -> Tensor:
        """Return upper bounds of the dual norms of rows `(batch, rows, inputs)`."""
        if self.region.norm == "1":
            return rows.abs().amax(dim=2)
        count = rows.shape[2]
        # Squares below the smallest normal number are lost: each may have hidden a coefficient of its root.
        lost = 2.0 * math.sqrt(count * tiny(self.dtype))
        relative = 1.0 + (2.0 * count + 32.0) * unit_roundoff(self.dtype)
        length: Tensor = torch.linalg.vector_norm(rows, dim=2)
        return length * relative + lost

    @cached_property
    def _over_box(self) -> BoxMinimum:
        return BoxMinimum(self.box)

    @cached_property
    def _centre(self) -> Tensor:
        return self.region.centre.to(self.dtype)

    @cached_property
    def _error(self) -> Tensor:
        return inflated(dot_error(self._centre))


def _minimisers(region: BallRegion, box: Box, coefficients: Coefficients, shape: tuple[int, ...]) -> Tensor:
    """Return points `(batch, rows, *shape)` near the least values of the functions; not always inside the region."""
    values = coefficients.full(shape)
    lower, upper, centre = (t.unsqueeze(1) for t in (box.lower, box.upper, region.centre))
    corners = torch.where(values > 0, lower, torch.where(values < 0, upper, centre))
    if region.norm == "inf":
        return corners
    flat = values.flatten(2)
    if region.norm == "2":
        away = flat / flat.norm(dim=2, keepdim=True).clamp(min=tiny(flat.dtype))
    else:
        best = flat.abs().argmax(dim=2, keepdim=True)
        away = torch.zeros_like(flat).scatter(2, best, flat.gather(2, best).sign())
    moved = centre - (away * region.radius[:, None, None]).view(values.shape)
    return torch.minimum(torch.maximum(moved, lower), upper)


def _intersection(first: Box, second: Box) -> Box:
    """Return the intersection of two boxes around the same values.

    Both were proved, so an empty one is a bug that must not pass for a proof. In float32 rounding may empty it.
    """
    lower, upper = torch.maximum(first.lower, second.lower), torch.minimum(first.upper, second.upper)
    if bool((lower > upper).any()):
        if lower.dtype == torch.float64:
            raise RuntimeError("bounds of the same units contradict each other: please report this with the model")
        lower, upper = torch.minimum(lower, upper), torch.maximum(lower, upper)
    return Box.unchecked(lower, upper)
