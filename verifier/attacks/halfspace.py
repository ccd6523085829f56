"""The nearest point of a half-space inside a box, in the norms inf, 2 and 1.

Without the box: the step r of least norm with <g, r> = -m has norm m / ||g||_q, 1/p + 1/q = 1 (Hoelder). In the box
each coordinate has room_i to move against the sign of g_i, and the step is t_i = min(s v_i, room_i) with v = 1 (inf)
or v = |g| (2), s the root of sum_i |g_i| min(s v_i, room_i) = m: that sum is linear between the breakpoints
room_i / v_i, so a sort and prefix sums give s (Croce and Hein 2020, section 3.3). In the 1-norm coordinates are used
up in falling order of |g_i|. A clipped quotient is not the answer: what one coordinate cannot do, others must.
"""

import torch
from torch import Tensor

# Longer steps of one coordinate are cut: products of two such numbers are still finite.
FARTHEST = 1e150

DUAL = {"inf": "1", "2": "2", "1": "inf"}


def dual_lengths(gradients: Tensor, norm: str) -> Tensor:
    """Return the dual norms of gradients over the last axis: how much a step of length 1 can change the value."""
    sizes: Tensor = torch.linalg.vector_norm(gradients, ord=float(DUAL[norm]), dim=-1)
    return sizes


def step_to_halfspace(gradients: Tensor, amounts: Tensor, below: Tensor, above: Tensor, norm: str) -> Tensor:
    """Return the shortest r `(batch, n)` with <g, r> <= -m and -below <= r <= above; for m < 0, <g, r> >= -m.

    gradients: g `(batch, n)`; amounts: m `(batch,)`; below, above: room of each coordinate, >= 0, may be infinite.
    Where the box does not reach the half-space, the corner that comes nearest to it. In the dtype of the gradients,
    computed in float64, rounded to nearest.
    """
    if norm not in DUAL:
        raise ValueError(f"no half-space step in the {norm}-norm; supported: {', '.join(DUAL)}")
    g = gradients.to(torch.float64) * torch.where(amounts < 0, -1.0, 1.0).to(torch.float64)[:, None]
    m = amounts.to(torch.float64).abs()[:, None]
    room = torch.where(g > 0, below, above).to(torch.float64)
    # No coordinate moves further than would do alone; this makes infinite rooms finite and skips zero gradients.
    alone = torch.where(g != 0, (m / g.abs().clamp(min=torch.finfo(torch.float64).tiny)).clamp(max=FARTHEST), 0.0)
    room = torch.minimum(room, alone)
    size = _largest_first(g.abs(), m, room) if norm == "1" else _water_level(g.abs(), m, room, norm)
    return (-g.sign() * size).to(gradients.dtype)


def _water_level(weights: Tensor, m: Tensor, room: Tensor, norm: str) -> Tensor:
    """Return t = min(s v, room) with sum |g| t = m, or the whole room where that is too little."""
    rate = torch.ones_like(weights) if norm == "inf" else weights
    level = torch.where(weights > 0, room / rate.clamp(min=torch.finfo(torch.float64).tiny), torch.inf)
    level, order = level.sort(dim=1)
    full = (weights * room).gather(1, order)
    slope = (weights * rate).gather(1, order)
    before = full.cumsum(1) - full
    rest = slope.flip(1).cumsum(1).flip(1)
    # Value of the sum at each breakpoint; where it reaches m first, that segment holds the root.
    value = torch.where(rest > 0, before + level * rest, before)
    first = (value < m).sum(dim=1, keepdim=True)
    reached = first < level.shape[1]
    first = first.clamp(max=level.shape[1] - 1)
    slope_there = rest.gather(1, first)
    level_there = (m - before.gather(1, first)).clamp(min=0) / slope_there.clamp(min=torch.finfo(torch.float64).tiny)
    partial = torch.minimum(level_there * rate, room)
    return torch.where(reached & (slope_there > 0), partial, room)


def _largest_first(weights: Tensor, m: Tensor, room: Tensor) -> Tensor:
    """Return t that uses up the coordinates in falling order of |g| until sum |g| t = m."""
    sorted_weights, order = weights.sort(dim=1, descending=True, stable=True)
    full = sorted_weights * room.gather(1, order)
    left = (m - (full.cumsum(1) - full)).clamp(min=0)
    used = torch.minimum(left / sorted_weights.clamp(min=torch.finfo(torch.float64).tiny), room.gather(1, order))
    used = torch.where(sorted_weights > 0, used, 0.0)
    return torch.zeros_like(room).scatter(1, order, used)
