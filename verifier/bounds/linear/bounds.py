"""Boxes of the nodes of a network over a batch of balls, tightened by linear bounds, and what follows from them.

Boxes of units are computed where intervals leave a question open and intersected with the interval, so they are never
looser. They prove in float64 only; float32 guides a search.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from encoders.box import Box
from encoders.network import INPUT, Network, Node
from encoders.region import BallRegion
from encoders.rounding import check_gradual_underflow
from encoders.views.coefficients import Coefficients
from verifier.bounds.linear.backward import BackwardPass, Minimum, Seen, Slopes
from verifier.bounds.linear.region_minimum import RegionMinimum
from verifier.bounds.linear.units import bounded_units

# Bytes that the coefficients of one backward pass may take: pieces that stay in a processor's cache run fastest.
CPU_PIECE_BYTES = 2 * 2**20
DEVICE_PIECE_BYTES = 512 * 2**20


def bounds_refusal(network: Network, method: str) -> str | None:
    """Return why a method cannot have linear bounds of a network, or None if it can."""
    for node in network.nodes:
        if "envelope" not in node.op.views():
            where = f"node {node.name!r} ({node.op.kind})"
            return f"method {method!r} needs linear bounds of every op; {where} has none"
    changing = [node for node in network.nodes if not node.op.keeps_values]
    if all(node.op.bounded_by_box and len(network.shapes[node.name]) == 1 for node in changing):
        return f"method {method!r} gains nothing over intervals on a network of MWD layers alone"
    return None


@dataclass(frozen=True, eq=False)
class LinearBounds:
    """What linear bounds prove: the boxes of all nodes, and through `passes` least values of functions of the output.

    network: in the dtype of the bounds. widths: of the nodes whose units were bounded, the greatest number of
    coefficients of a row on its way back.
    """

    network: Network
    region: BallRegion
    boxes: Mapping[str, Box]
    passes: BackwardPass
    widths: Mapping[str, int]

    def minimise(self, rows: Tensor, *, with_points: bool = False, seen: Seen | None = None) -> Minimum:
        """Return the least values of rows `(batch, rows, *output_shape)` of the output; seen: filled in."""
        return self.passes.minimise(self.network.output.name, Coefficients(rows), with_points, seen=seen)

    def pass_bytes(self) -> dict[str, int]:
        """Return the bytes of coefficients that bounding each node's still open units again would take."""
        size, readers = torch.finfo(self.passes.dtype).bits // 8, _readers(self.network)
        counts = {name: int(_open_units(self.boxes[name], readers[name]).sum()) for name in self.widths}
        return {name: 2 * count * self.widths[name] * size for name, count in counts.items() if count}


def linear_bounds(
    network: Network,
    region: BallRegion,
    *,
    slopes: Slopes | None = None,
    boxes: Mapping[str, Box] | None = None,
    tighten: Sequence[str] | None = None,
    piece_bytes: int | None = None,
    dtype: torch.dtype = torch.float64,
) -> LinearBounds:
    """Return the linear bounds of any graph whose ops have envelopes, over balls of any norm.

    slopes: the lower slopes to use instead of each op's own choice; bounds are differentiable in them. boxes: of nodes,
    known before; only units that they leave open are bounded again. tighten: the nodes whose units are bounded, None:
    all that gain. piece_bytes: what the coefficients of one pass may take.
    """
    check_gradual_underflow()
    device = region.centre.device
    cast, region_minimum = network.cast(dtype, device), RegionMinimum(region, dtype)
    piece_bytes = piece_bytes or (CPU_PIECE_BYTES if device.type == "cpu" else DEVICE_PIECE_BYTES)
    known, readers = boxes or {}, _readers(cast)
    # A pass reads the boxes of nodes before its own, which are done.
    proved: dict[str, Box] = {INPUT: _meet(region_minimum.box, known.get(INPUT))}
    passes = BackwardPass(cast, region_minimum, proved, dict(slopes or {}))
    widths: dict[str, int] = {}
    without_value = torch.zeros(proved[INPUT].batch, dtype=torch.bool, device=device)
    for node in cast.nodes:
        proved[node.name] = _box_of(node, proved, known.get(node.name), without_value)
        if node.name not in tighten if tighten is not None else not _gains(cast, node, readers[node.name], region):
            continue
        is_open = _open_units(proved[node.name], readers[node.name])
        if bool(is_open.any()):
            tighter, widths[node.name] = bounded_units(passes, node, is_open, piece_bytes)
            proved[node.name] = _meet(proved[node.name], tighter)
    return LinearBounds(cast, region, proved, passes, widths)


def _box_of(node: Node, boxes: Mapping[str, Box], known: Box | None, without_value: Tensor) -> Box:
    """Return the box of a node by those before it, met with what is known; all numbers where there may be no value.

    Whoever compares boxes, the last op or a program, then sees no more than is proved. without_value: `(batch,)`, which
    regions hold a point where an op so far has no value; this one's are marked too.
    """
    inputs = [boxes[name] for name in node.inputs]
    mask = node.op.undefined(*inputs)
    if mask is not None:
        without_value.logical_or_(mask)
    box = _meet(node.op.interval(*inputs), known)
    return box.unbounded_at(without_value) if bool(without_value.any()) else box


def _readers(network: Network) -> dict[str, list[Node]]:
    """Return the nodes that read each node."""
    readers: dict[str, list[Node]] = {name: [] for name in network.shapes}
    for node in network.nodes:
        for name in node.inputs:
            readers[name].append(node)
    return readers


def _open_units(box: Box, readers: Sequence[Node]) -> Tensor:
    """Return a mask of a node's units whose box matters to a reader."""
    is_open = torch.zeros_like(box.lower, dtype=torch.bool)
    for reader in readers:
        is_open |= reader.op.open_units(box)
    return is_open


def _gains(network: Network, node: Node, readers: Sequence[Node], region: BallRegion) -> bool:
    """Return whether a backward pass from the node can beat its interval, and somebody reads the gain.

    Outputs of functions of one unit gain nothing over the interval of their tightened input. The first op that mixes
    inputs has an exact interval over a box, so in the inf-norm a pass must cross two.
    """
    if not (node.op.linear or node.op.gains_from_lines) or all(reader.op.linear for reader in readers):
        return False
    return region.norm != "inf" or _mixing_depth(network, node.name) > 1


def _mixing_depth(network: Network, name: str) -> int:
    """Return the greatest number of ops between the input and the node that are not functions of single units."""
    depth = {INPUT: 0}
    for node in network.nodes:
        one_to_one = len(node.inputs) == 1 and node.op.linear and node.op.one_to_one
        depth[node.name] = max(depth[i] for i in node.inputs) + (0 if one_to_one else 1)
        if node.name == name:
            break
    return depth[name]


def _meet(first: Box, second: Box | None) -> Box:
    """Return the intersection of two boxes around the same values.

    Both were proved, so an empty one is a bug that must not pass for a proof. In float32 rounding may empty it.
    """
    if second is None:
        return first
    lower, upper = torch.maximum(first.lower, second.lower), torch.minimum(first.upper, second.upper)
    if bool((lower > upper).any()):
        if lower.dtype == torch.float64:
            raise RuntimeError("bounds of the same units contradict each other: please report this with the model")
        lower, upper = torch.minimum(lower, upper), torch.maximum(lower, upper)
    return Box.unchecked(lower, upper)
