"""Max of weighted distance in plain torch, in bounded memory: what the compiled kernels are compared with.

A unit with attractor w and weights u >= 0 has t_i = u_i (x_i - w_i) and z = max_i |t_i|. Nothing here makes the
tensor batch x units x inputs as a whole: it is cut into pieces of `PIECE_ELEMENTS`. Each t is rounded twice, after
the subtraction and after the product; every kernel keeps to that, so that values agree bit for bit.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

# A piece of t fits the second-level cache in float64 (2 MiB); 2^15 to 2^18 measured alike.
PIECE_ELEMENTS = 1 << 18

# Gradients by x, u and w; None where not needed.
Gradients = tuple[Tensor | None, Tensor | None, Tensor | None]
Needs = tuple[bool, bool, bool]


def pieces(batch: int, units: int, inputs: int) -> Iterator[tuple[slice, slice]]:
    """Yield (rows of the batch, units) whose product with `inputs` stays within PIECE_ELEMENTS, or 1 by 1."""
    unit_step = max(1, min(units, PIECE_ELEMENTS // max(1, inputs), 32))
    batch_step = max(1, PIECE_ELEMENTS // max(1, inputs * unit_step))
    for row in range(0, batch, batch_step):
        for unit in range(0, units, unit_step):
            yield slice(row, row + batch_step), slice(unit, unit + unit_step)


def _scaled_differences(x: Tensor, u: Tensor, w: Tensor, rows: slice, units: slice) -> Tensor:
    """Return t of shape `(rows, units, inputs)`."""
    return (x[rows, None] - w[units]).mul_(u[units])


def scaled_difference_range(x: Tensor, u: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
    """Return (min_i t_i, max_i t_i), each `(batch, units)`. Relative error of each entry at most 2 roundings.

    x: `(batch, inputs)`; u, w: `(units, inputs)`. Not differentiable.
    """
    least = x.new_empty(x.shape[0], u.shape[0])
    greatest = torch.empty_like(least)
    for rows, units in pieces(x.shape[0], u.shape[0], x.shape[1]):
        t = _scaled_differences(x, u, w, rows, units)
        torch.amin(t, dim=-1, out=least[rows, units])
        torch.amax(t, dim=-1, out=greatest[rows, units])
    return least, greatest


def distance_range(lower: Tensor, upper: Tensor, u: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
    """Return (near, far) of z over the boxes [lower, upper], each `(batch, units)`, rounded to nearest.

    near = max(0, max_i u_i (lower_i - w_i), max_i u_i (w_i - upper_i)), far = max_i max(u_i (upper_i - w_i),
    u_i (w_i - lower_i)), for u >= 0. Both are NaN where a term is.
    """
    least_low, greatest_low = scaled_difference_range(lower, u, w)
    least_high, greatest_high = scaled_difference_range(upper, u, w)
    near = torch.maximum(greatest_low, -least_high).clamp(min=0)
    far = torch.maximum(greatest_high, -least_low)
    return near, far


def weighted_distance(x: Tensor, u: Tensor, w: Tensor) -> Tensor:
    """Return z = max_i |t_i|, `(batch, units)`. Not differentiable."""
    z = x.new_empty(x.shape[0], u.shape[0])
    for rows, units in pieces(x.shape[0], u.shape[0], x.shape[1]):
        torch.amax(_scaled_differences(x, u, w, rows, units).abs_(), dim=-1, out=z[rows, units])
    return z


def max_square_backward(
    x: Tensor, u: Tensor, w: Tensor, z: Tensor, grad: Tensor, pseudo: bool, needs: Needs
) -> Gradients:
    """Return the gradients of s = max_i t_i^2, contracted with its feedback `grad` of shape `(batch, units)`.

    The share of input i in the feedback is exp(t_i^2 - s) for the pseudogradient, otherwise 1 over the number of
    maximal inputs if it is one of them, else 0.
    """
    grad_x = torch.zeros_like(x) if needs[0] else None
    grad_u = torch.zeros_like(u) if needs[1] else None
    grad_w = torch.zeros_like(w) if needs[2] else None
    for rows, units in pieces(x.shape[0], u.shape[0], x.shape[1]):
        difference = x[rows, None] - w[units]
        t = difference * u[units]
        if pseudo:
            share = torch.exp(t * t - (z * z)[rows, units, None])
        else:
            share = (t.abs() == z[rows, units, None]).to(t.dtype)
            share = share / share.sum(dim=-1, keepdim=True)
        # d(t^2)/dx = 2 t u, /dw = -2 t u, /du = 2 t (x - w)
        common = share.mul_(t).mul_(2.0 * grad[rows, units, None])
        if grad_u is not None:
            grad_u[units] += (common * difference).sum(dim=0)
        if grad_x is not None or grad_w is not None:
            towards_x = common * u[units]
            if grad_x is not None:
                grad_x[rows] += towards_x.sum(dim=1)
            if grad_w is not None:
                grad_w[units] -= towards_x.sum(dim=0)
    return grad_x, grad_u, grad_w
