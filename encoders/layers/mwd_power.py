"""Distances in a p-norm in place of the inf-norm, for training: z = (sum_i |x_i - w_i|^p)^(1/p).

A maximum sends its feedback to one input. Distances whose p rises from 8 to infinity in the course of a training are
the relaxation of Zhang, Cai, Lu, He, Wang (2021), "Towards certifying l-infinity robustness using neural networks with
l_inf-dist neurons", section 5. What is certified has p infinite. Feedback is shared as sign(t) |t|^(p + 1) with
t = (x_i - w_i) / z: two powers beyond the derivative's, as a square then serves both passes. Compiled loops where they
pay, plain torch elsewhere.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from encoders.layers.mwd_kernels import LEAST_GRADIENT_ELEMENTS, choose, weighted_distance

# Exponents of 2 that the least powers may have: denormal numbers take a hundred times as long.
_LEAST_EXPONENT = -80.0
_LEAST_DISTANCE = 1e-12
# What plain torch holds at once.
_ELEMENTS = 1 << 20


class PowerDistance(torch.autograd.Function):
    """z of x `(batch, inputs)` and w `(units, inputs)` for p = 2^squarings, with the shares above."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor, squarings: int) -> Tensor:
        x, w = x.detach().contiguous(), w.detach().contiguous()
        greatest = weighted_distance(x, torch.ones_like(w), w).clamp(min=_LEAST_DISTANCE)
        z = greatest * _sums(x, w, greatest.reciprocal(), squarings).pow(0.5**squarings)
        ctx.save_for_backward(x, w, z)
        ctx.squarings = squarings
        return z

    @staticmethod
    def backward(ctx: Any, *feedback: Tensor) -> tuple[Tensor, Tensor, None]:
        if torch.is_grad_enabled():  # create_graph: the loops' results would pass for constants
            raise RuntimeError("gradients of p-norm distances cannot be differentiated again; leave out create_graph")
        x, w, z = ctx.saved_tensors
        return *_shares(x, w, z.reciprocal(), feedback[0].contiguous(), ctx.squarings), None


power_distance: Callable[[Tensor, Tensor, int], Tensor] = PowerDistance.apply


def _floor(squarings: int) -> float:
    """Return what squares are raised to."""
    return float(2.0 ** (_LEAST_EXPONENT / 2 ** (squarings - 1)))


def _sums(x: Tensor, w: Tensor, a: Tensor, squarings: int) -> Tensor:
    if choose(x, w, w) == "numba":
        from encoders.layers import mwd_numba_power as loops
        from encoders.layers.mwd_numba import share_out

        sums, arrays = torch.empty_like(a), [value.numpy() for value in (x, w, a)]
        floor, loop = arrays[0].dtype.type(_floor(squarings)), loops.power_sum_loop(squarings)
        share_out(lambda part: loop(*arrays, floor, sums.numpy(), part), len(w), 2, x.numel() * len(w))
        return sums
    rows = _rows_at_once(w)
    parts = zip(x.split(rows), a.split(rows), strict=True)
    return torch.cat([_powers(*part, w, squarings)[0].sum(2) for part in parts])


def _shares(x: Tensor, w: Tensor, a: Tensor, g: Tensor, squarings: int) -> tuple[Tensor, Tensor]:
    grad_x, grad_w = torch.zeros_like(x), torch.zeros_like(w)
    if choose(x, w, w, LEAST_GRADIENT_ELEMENTS) == "numba":
        from encoders.layers import mwd_numba_power as loops
        from encoders.layers.mwd_numba import CACHE_LINE, share_out

        arrays, grads = [value.numpy() for value in (x, w, a, g)], (grad_x.numpy(), grad_w.numpy())
        floor, loop = arrays[0].dtype.type(_floor(squarings)), loops.power_feedback_loop(squarings)
        share_out(lambda part: loop(*arrays, floor, *grads, part), x.shape[1], CACHE_LINE, x.numel() * len(w))
        return grad_x, grad_w
    for start in range(0, len(x), _rows_at_once(w)):
        part = slice(start, start + _rows_at_once(w))
        powers, t = _powers(x[part], a[part], w, squarings)
        terms = powers * t * g[part, :, None]
        grad_x[part] = terms.sum(1)
        grad_w -= terms.sum(0)
    return grad_x, grad_w


def _rows_at_once(w: Tensor) -> int:
    """Return how many inputs plain torch takes together."""
    return max(1, _ELEMENTS // w.numel())


def _powers(x: Tensor, a: Tensor, w: Tensor, squarings: int) -> tuple[Tensor, Tensor]:
    """Return (|t|^p, t), both `(batch, units, inputs)`."""
    t = (x[:, None] - w[None]) * a[:, :, None]
    powers = (t * t).clamp(min=_floor(squarings))
    for _ in range(squarings - 1):
        powers = powers * powers
    return powers, t
