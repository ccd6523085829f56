"""The interval of an MWD layer as a differentiable function, for training on its ends.

Over [l, h] the squared distance of a unit ranges over [near^2, far^2] with near_i = u_i max(l_i - w_i, w_i - h_i, 0),
far_i = u_i max(h_i - w_i, w_i - l_i) and maxima over i. The backward pass gives input i the share
exp(sharpness (near_i^2 - near^2)), or the same of far, of the feedback: SharedFeedbackMax (Agrawal et al. 2019, with
sharpness 1) applied to both ends. It guides training; it proves nothing.
"""

from typing import Any

import torch
from torch import Tensor

from encoders.layers.mwd_reference import pieces
from encoders.layers.mwd_unit import AttractorExp


class IntervalSquares(torch.autograd.Function):
    """(near^2, far^2), each `(batch, units)`, of boxes [lower, upper] `(batch, inputs)`; u, w `(units, inputs)`."""

    @staticmethod
    def forward(
        ctx: Any, lower: Tensor, upper: Tensor, u: Tensor, w: Tensor, sharpness: float = 1.0
    ) -> tuple[Tensor, Tensor]:
        near, far = _squares(lower, upper, u, w)
        ctx.save_for_backward(lower, upper, u, w, near, far)
        ctx.sharpness = sharpness
        return near, far

    @staticmethod
    def backward(ctx: Any, *feedback: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, None]:
        lower, upper, u, w, near, far = ctx.saved_tensors
        # The squares are those of weights root * u over the sharpness, whose shares are the sharp ones.
        sharpness, root = ctx.sharpness, ctx.sharpness**0.5
        ends = (near * sharpness, far * sharpness, feedback[0] / sharpness, feedback[1] / sharpness)
        if _compiled(lower):
            from encoders.layers.mwd_interval_numba import backward

            grad_lower, grad_upper, grad_u, grad_w = backward(lower, upper, u * root, w, *ends)
        else:
            grad_lower, grad_upper, grad_u, grad_w = _reference_backward(lower, upper, u * root, w, *ends)
        return grad_lower, grad_upper, grad_u * root, grad_w, None


def pseudo_interval(
    lower: Tensor, upper: Tensor, u: Tensor, w: Tensor, negated: Tensor, sharpness: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Return the ends of the outputs' intervals, not rounded outward, with pseudogradients behind both."""
    near, far = IntervalSquares.apply(lower, upper, u, w, sharpness)  # type: ignore[no-untyped-call]
    at_near: Tensor = AttractorExp.apply(near, negated)  # type: ignore[no-untyped-call]
    at_far: Tensor = AttractorExp.apply(far, negated)  # type: ignore[no-untyped-call]
    return torch.where(negated, at_near, at_far), torch.where(negated, at_far, at_near)


def _compiled(x: Tensor) -> bool:
    """Return whether the compiled kernels can take the tensor: on the CPU, where numba is installed."""
    if x.is_cuda:
        return False
    try:
        import numba  # noqa: F401
    except ImportError:
        return False
    return True


def _squares(lower: Tensor, upper: Tensor, u: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
    if _compiled(lower):
        from encoders.layers.mwd_interval_numba import squares

        return squares(lower, upper, u, w)
    near = lower.new_empty(lower.shape[0], u.shape[0])
    far = torch.empty_like(near)
    for rows, units in pieces(lower.shape[0], u.shape[0], lower.shape[1]):
        above, below = _above(lower, w, rows, units), _above(upper, w, rows, units)
        near[rows, units] = (torch.maximum(above, -below).clamp_(min=0) * u[units]).amax(dim=-1)
        far[rows, units] = (torch.maximum(below, -above) * u[units]).amax(dim=-1)
    return near * near, far * far


def _above(end: Tensor, w: Tensor, rows: slice, units: slice) -> Tensor:
    return end[rows, None] - w[units]


def _reference_backward(
    lower: Tensor, upper: Tensor, u: Tensor, w: Tensor, near: Tensor, far: Tensor, to_near: Tensor, to_far: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    grad_lower, grad_upper = torch.zeros_like(lower), torch.zeros_like(upper)
    grad_u, grad_w = torch.zeros_like(u), torch.zeros_like(w)
    for rows, units in pieces(lower.shape[0], u.shape[0], lower.shape[1]):
        above, below = _above(lower, w, rows, units), _above(upper, w, rows, units)
        near_i, far_i = torch.maximum(above, -below).clamp(min=0), torch.maximum(below, -above)
        weight = u[units]
        # d(u^2 d^2)/dd = 2 u^2 d, d(u^2 d^2)/du = 2 u d^2, times the share of the feedback.
        near_share = torch.exp((weight * near_i) ** 2 - near[rows, units, None]) * to_near[rows, units, None]
        far_share = torch.exp((weight * far_i) ** 2 - far[rows, units, None]) * to_far[rows, units, None]
        grad_u[units] += (2 * weight * (near_share * near_i**2 + far_share * far_i**2)).sum(dim=0)
        near_step, far_step = 2 * weight**2 * near_i * near_share, 2 * weight**2 * far_i * far_share
        # near: at the lower end where l - w is the greater, else at the upper end with the other sign.
        left, right = above >= -below, below >= -above
        grad_lower[rows] += (near_step * left - far_step * ~right).sum(dim=1)
        grad_upper[rows] += (far_step * right - near_step * ~left).sum(dim=1)
        sign = near_step * (left.to(u.dtype) * 2 - 1) + far_step * (right.to(u.dtype) * 2 - 1)
        grad_w[units] -= sign.sum(dim=0)
    return grad_lower, grad_upper, grad_u, grad_w
