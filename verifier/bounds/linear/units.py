"""Bounds of single units by backward passes: rows of +1 and -1, many in one pass.

Maps are cut into tiles of positions, whose patches of the input are small, and rows into pieces whose coefficients
stay in a processor's cache.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from encoders.box import Box
from encoders.network import Node
from encoders.rounding import unit_roundoff
from encoders.views.coefficients import Coefficients
from verifier.bounds.linear.backward import BackwardPass

# Positions of a map whose units share one pass, along each axis: few keep the windows small.
TILE = 1

# A part of a node's shape: a slice along each axis.
Window = tuple[slice, ...]


def bounded_units(passes: BackwardPass, node: Node, is_open: Tensor, piece_bytes: int) -> tuple[Box, int]:
    """Return (the node's box where linear bounds of the units of a mask are written in if tighter, the widest row).

    piece_bytes: what the coefficients of one pass may take. A pass bounds as many units of each input as the one with
    the most open units has in the piece. The ends may cross in float32.
    """
    box = passes.boxes[node.name]
    lower, upper = box.lower.clone(), box.upper.clone()
    widest, batch = 0, len(is_open)
    for window, units in _windows(is_open):
        start = 0
        while start < units.shape[1]:
            # How wide a row grows on its way back is known after the first piece.
            width = widest or max(math.prod(shape) for shape in passes.network.shapes.values())
            piece = units[:, start : start + max(1, piece_bytes // (8 * width * 2 * batch))]
            count = piece.shape[1]
            start += count
            minimum, width = _unit_minimum(passes, node, piece, window)
            widest = max(widest, width)
            for ends, values, tighter in (
                (lower, minimum[:, :count], torch.maximum),
                (upper, -minimum[:, count:], torch.minimum),
            ):
                view = ends[(slice(None), *window)]
                flat = view.reshape(batch, -1).clone()
                flat = flat.scatter(1, piece, tighter(flat.gather(1, piece), values))
                ends[(slice(None), *window)] = flat.view(view.shape)
    return Box.unchecked(lower, upper), widest


def _windows(is_open: Tensor) -> Iterator[tuple[Window, Tensor]]:
    """Yield (window, indices `(batch, rows)` of open units in the flattened window).

    Every input gets as many rows as the one with the most open units; the indices of an input are distinct, and those
    that it does not need bound other units.
    """
    shape = is_open.shape[1:]
    windows: list[Window] = [tuple(slice(0, n) for n in shape)]
    if len(shape) == 3:
        windows = [
            (slice(0, shape[0]), slice(y, min(y + TILE, shape[1])), slice(x, min(x + TILE, shape[2])))
            for y in range(0, shape[1], TILE)
            for x in range(0, shape[2], TILE)
        ]
    for window in windows:
        mask = is_open[(slice(None), *window)].unsqueeze(-1).flatten(1)
        count = int(mask.sum(dim=1).max()) if len(mask) else 0
        if count:
            # Sorting the mask puts the open units first.
            yield window, mask.to(torch.uint8).topk(count, dim=1).indices


def _unit_minimum(passes: BackwardPass, node: Node, units: Tensor, window: Window) -> tuple[Tensor, int]:
    """Return (the least values `(batch, 2 rows)` of the units and of their negatives, the widest row)."""
    stored = node.op.unit_rows(units) if len(window) == 1 else None
    if stored is not None:
        # The first step back from a single unit picks a row of the weights, which rounds nothing.
        weight, bias = stored
        coefficients = Coefficients(torch.cat([weight, -weight], dim=1))
        minimum = passes.minimise(node.inputs[0], coefficients, target=node.name)
        if bias is None:
            return minimum.bound, minimum.width
        constant = torch.cat([bias, -bias], dim=1)
        total = minimum.bound + constant
        error = (minimum.bound.abs() + constant.abs()) * (2.0 * unit_roundoff(total.dtype))
        return total - error, minimum.width
    batch, count = units.shape
    sizes = [s.stop - s.start for s in window]
    corner = (window[1].start, window[2].start) if len(window) == 3 else None
    rows = torch.zeros(batch, 2 * count, math.prod(sizes), dtype=passes.dtype, device=units.device)
    rows[:, :count].scatter_(2, units.unsqueeze(2), 1.0)
    rows[:, count:].scatter_(2, units.unsqueeze(2), -1.0)
    coefficients = Coefficients(rows.reshape(batch, 2 * count, *sizes), corner)
    minimum = passes.minimise(node.name, coefficients, target=node.name)
    return minimum.bound, minimum.width
