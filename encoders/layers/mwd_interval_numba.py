"""Compiled kernels of `IntervalSquares` on the CPU: the batch is the innermost loop, so that it vectorises.

Fast maths and an approximate exp (eight squarings of 1 + a/256, off by less than 1 % where the share exceeds 1 %):
for training only.
"""

from typing import Any

import numpy as np
import torch
from numba import njit
from torch import Tensor

Array = np.ndarray[Any, np.dtype[Any]]
Arrays = tuple[Array, ...]


@njit(cache=True, fastmath=True)
def _forward(lower: Array, upper: Array, u: Array, w: Array, near: Array, far: Array) -> None:
    """Fill near and far `(units, batch)` with squared distances; ends are `(inputs, batch)`."""
    for j in range(u.shape[0]):
        for i in range(u.shape[1]):
            weight, attractor = u[j, i], w[j, i]
            for b in range(lower.shape[1]):
                above, below = (lower[i, b] - attractor) * weight, (upper[i, b] - attractor) * weight
                near[j, b] = max(near[j, b], max(above, -below))
                far[j, b] = max(far[j, b], max(below, -above))
        for b in range(lower.shape[1]):
            near[j, b] *= near[j, b]
            far[j, b] *= far[j, b]


@njit(cache=True, fastmath=True)
def _backward(ends: Arrays, u: Array, w: Array, units: Arrays, grads: Arrays, constants: tuple[Any, Any]) -> None:
    """Add the pseudogradients; arrays over the batch are `(inputs or units, batch)`.

    units: near and far, and what comes for each. grads: by lower, upper, u, w. constants: 0 and 1/256 in their dtype.
    """
    (lower, upper), (near, far, to_near, to_far), (zero, scale) = ends, units, constants
    grad_lower, grad_upper, grad_u, grad_w = grads
    for j in range(u.shape[0]):
        for i in range(u.shape[1]):
            weight, attractor = u[j, i], w[j, i]
            double = weight * weight
            double += double
            sum_u, sum_w = zero, zero
            for b in range(lower.shape[1]):
                above, below = lower[i, b] - attractor, upper[i, b] - attractor
                near_i, far_i = max(max(above, -below), zero), max(below, -above)
                a = 1 + ((weight * near_i) * (weight * near_i) - near[j, b]) * scale
                c = 1 + ((weight * far_i) * (weight * far_i) - far[j, b]) * scale
                a, c = max(a, zero), max(c, zero)
                a, c = a * a, c * c
                a, c = a * a, c * c
                a, c = a * a, c * c
                a, c = a * a, c * c
                a, c = a * a, c * c
                a, c = a * a, c * c
                a, c = a * a, c * c
                a, c = a * a, c * c
                near_step, far_step = a * to_near[j, b] * near_i * double, c * to_far[j, b] * far_i * double
                sum_u += near_step * near_i + far_step * far_i
                near_left = near_step if above >= -below else zero
                far_right = far_step if below >= -above else zero
                grad_lower[i, b] += near_left - (far_step - far_right)
                grad_upper[i, b] += far_right - (near_step - near_left)
                sum_w += near_left - (near_step - near_left) + far_right - (far_step - far_right)
            # near_step carries 2 u^2 d; the derivative by u is 2 u d^2.
            grad_u[j, i] += sum_u / weight if weight > zero else zero
            grad_w[j, i] -= sum_w


def _columns(x: Tensor) -> Array:
    """Return the tensor with the batch innermost, as a contiguous array."""
    result: Array = x.detach().t().contiguous().numpy()
    return result


def squares(lower: Tensor, upper: Tensor, u: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
    """Return (near^2, far^2), each `(batch, units)`."""
    near = np.zeros((u.shape[0], lower.shape[0]), dtype=_columns(lower).dtype)
    far = np.zeros_like(near)
    weight, attractor = (t.detach().contiguous().numpy() for t in (u, w))
    _forward(_columns(lower), _columns(upper), weight, attractor, near, far)
    return torch.from_numpy(near).t().contiguous(), torch.from_numpy(far).t().contiguous()


def backward(
    lower: Tensor, upper: Tensor, u: Tensor, w: Tensor, near: Tensor, far: Tensor, to_near: Tensor, to_far: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the pseudogradients by lower, upper, u and w."""
    ends = tuple(_columns(t) for t in (lower, upper))
    weight, attractor = (t.detach().contiguous().numpy() for t in (u, w))
    units = tuple(_columns(t) for t in (near, far, to_near, to_far))
    grads = tuple(np.zeros_like(part) for part in (*ends, weight, weight))
    scalar = weight.dtype.type
    _backward(ends, weight, attractor, units, grads, (scalar(0), scalar(1 / 256)))
    grad_lower, grad_upper, grad_u, grad_w = (torch.from_numpy(g) for g in grads)
    return grad_lower.t().contiguous(), grad_upper.t().contiguous(), grad_u, grad_w
