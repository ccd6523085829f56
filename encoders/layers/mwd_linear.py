"""MWD units with a linear link: l_inf-distance neurons for training, with true gradients and pseudogradients.

A unit has z = max_i u_i |x_i - w_i|, as every MWD unit, and the output bias - z, or bias + z if negated: as with the
Gaussian link a plain unit is greatest at its attractor. With u = 1 and all units negated this is the neuron
||x - w||_inf + b of Zhang, Cai, Lu, He, Wang (2021), "Towards certifying l-infinity robustness using neural networks
with l_inf-dist neurons".
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from encoders.layers.mwd_kernels import max_square_backward, weighted_distance


class Distance(torch.autograd.Function):
    """z = max_i |u_i (x_i - w_i)|, with the blend pseudo_share * pseudo + (1 - pseudo_share) * true of gradients.

    Both are those of z^2 (`MaxSquare`) over 2 z: shared among the maximal inputs, or in shares exp(t_i^2 - z^2).
    Where z = 0, the least value, both are 0, a subgradient.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, u: Tensor, w: Tensor, pseudo_share: float) -> Tensor:
        z = weighted_distance(x, u, w)
        ctx.save_for_backward(x, u, w, z)
        ctx.pseudo_share = pseudo_share
        return z

    @staticmethod
    def backward(ctx: Any, *feedback: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        if torch.is_grad_enabled():  # create_graph: the kernels' results would pass for constants
            raise RuntimeError("gradients of MWD units cannot be differentiated again; leave out create_graph")
        x, u, w, z = ctx.saved_tensors
        towards_square = torch.where(z > 0, feedback[0] / (2.0 * z), 0.0)
        needs, share = ctx.needs_input_grad[:3], ctx.pseudo_share
        parts = [
            (part, max_square_backward(x, u, w, z, towards_square, pseudo, needs))
            for part, pseudo in ((share, True), (1.0 - share, False))
            if part
        ]
        total: list[Tensor | None] = [None, None, None]
        for part, gradients in parts:
            for k, gradient in enumerate(gradients):
                if gradient is not None:
                    before = total[k]
                    total[k] = part * gradient if before is None else before + part * gradient
        return total[0], total[1], total[2], None


# What autograd differentiates, typed; torch's own `apply` is not.
distance: Callable[[Tensor, Tensor, Tensor, float], Tensor] = Distance.apply


def linear_link(z: Tensor, negated: Tensor, bias: Tensor | None) -> Tensor:
    """Return bias - z, or bias + z where `negated`, a mask `(units,)`; bias `(units,)` or None for 0."""
    signed = torch.where(negated, z, -z)
    return signed if bias is None else signed + bias


def linear_mwd(
    x: Tensor, u: Tensor, w: Tensor, negated: Tensor, bias: Tensor | None, pseudo_share: float = 0.0
) -> Tensor:
    """Return the outputs of a layer with the linear link, `(batch, units)`; pseudo_share as in `mwd`."""
    if not 0.0 <= pseudo_share <= 1.0:
        raise ValueError(f"pseudo_share must lie in [0, 1], got {pseudo_share}")
    return linear_link(distance(x, u, w, pseudo_share), negated, bias)
