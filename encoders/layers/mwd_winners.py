"""True gradients of s = max_i t_i^2 from the index of the maximal input, for the kernels that find it.

Almost always one input is maximal, so the gradient of a (row, unit) is one number at one place; the rare ties are
gone through input by input, in pieces.
"""

import torch
from torch import Tensor

from encoders.layers import mwd_reference
from encoders.layers.mwd_reference import Gradients, Needs


def scatter_winners(
    x: Tensor, u: Tensor, w: Tensor, z: Tensor, grad: Tensor, marks: Tensor, base: int, needs: Needs
) -> Gradients:
    """Return the true gradients by x, u and w, the feedback shared evenly among the maximal inputs.

    marks: `(batch, units)`, the sum of base + i over the inputs i < base with |t_i| = z: below 2 * base for a single
    winner. Sums that wrapped around are negative or at least 2 * base again, both ties.
    """
    tied = (marks < base) | (marks >= 2 * base)
    index = (marks - base).clamp_(0, x.shape[1] - 1).long()
    weight, attractor = u.gather(1, index.T).T, w.gather(1, index.T).T
    difference = x.gather(1, index) - attractor
    common = torch.where(tied, 0.0, 2.0 * grad * (difference * weight))
    grad_x = torch.zeros_like(x).scatter_add_(1, index, common * weight) if needs[0] else None
    grad_u = torch.zeros_like(u).scatter_add_(1, index.T, (common * difference).T) if needs[1] else None
    grad_w = torch.zeros_like(w).scatter_add_(1, index.T, (-common * weight).T) if needs[2] else None
    _add_ties(x, u, w, z, grad, tied, (grad_x, grad_u, grad_w))
    return grad_x, grad_u, grad_w


def _add_ties(x: Tensor, u: Tensor, w: Tensor, z: Tensor, grad: Tensor, tied: Tensor, gradients: Gradients) -> None:
    """Add the part of the (row, unit) pairs with several maximal inputs."""
    grad_x, grad_u, grad_w = gradients
    pairs = tied.nonzero()
    for rows, units in (part.unbind(1) for part in pairs.split(max(1, mwd_reference.PIECE_ELEMENTS // x.shape[1]))):
        difference = x[rows] - w[units]
        t = difference * u[units]
        share = (t.abs() == z[rows, units, None]).to(t.dtype)
        common = (share / share.sum(dim=-1, keepdim=True)).mul_(t).mul_(2.0 * grad[rows, units, None])
        if grad_u is not None:
            grad_u.index_add_(0, units, common * difference)
        if grad_x is not None:
            grad_x.index_add_(0, rows, common * u[units])
        if grad_w is not None:
            grad_w.index_add_(0, units, common * u[units], alpha=-1)
