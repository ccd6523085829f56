"""Max-of-weighted-distance units for training: values, true gradients and pseudogradients.

A unit with attractor w and weights u >= 0 has t_i = u_i (x_i - w_i), s = max_i t_i^2 and the output
U = exp(-s), or 1 - U if negated (Agrawal, de Alfaro, Helmbold 2019, section 3). The maximum and its gradients are
kernels' matter (`mwd_kernels`); here they become functions that autograd knows.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from encoders.layers.mwd_kernels import max_square_backward, weighted_distance

__all__ = ["AttractorExp", "MaxSquare", "attractor_exp", "link", "max_square", "mwd"]


class MaxSquare(torch.autograd.Function):
    """s = max_i t_i^2, with the true gradient or the pseudogradient called SharedFeedbackMax.

    True: the feedback goes to the maximal inputs, shared evenly among ties. Pseudo: input i gets
    exp(sharpness (t_i^2 - s)) of it; the shares do not sum to one (Agrawal et al. 2019, section 3.1, with 1).
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, u: Tensor, w: Tensor, pseudo: bool, sharpness: float = 1.0) -> Tensor:
        z = weighted_distance(x, u, w)
        ctx.save_for_backward(x, u, w, z)
        ctx.pseudo, ctx.sharpness = pseudo, sharpness
        return z * z

    @staticmethod
    def backward(ctx: Any, *feedback: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None, None]:
        if torch.is_grad_enabled():  # create_graph: the kernels' results would pass for constants
            raise RuntimeError("gradients of MWD units cannot be differentiated again; leave out create_graph")
        x, u, w, z = ctx.saved_tensors
        needs, root = ctx.needs_input_grad[:3], ctx.sharpness**0.5
        if not ctx.pseudo or root == 1.0:
            return *max_square_backward(x, u, w, z, feedback[0], ctx.pseudo, needs), None, None
        # s is the square of weights root * u over the sharpness, whose shares are the sharp ones.
        towards = feedback[0] / ctx.sharpness
        grad_x, grad_u, grad_w = max_square_backward(x, u * root, w, z * root, towards, True, needs)
        return grad_x, None if grad_u is None else grad_u * root, grad_w, None, None


class AttractorExp(torch.autograd.Function):
    """`link(s, negated)` whose backward pass has -1 / sqrt(1 + s) in place of -exp(-s).

    Called LargeAttractorExp in Agrawal et al. 2019, section 3.1: the feedback stays large far from the attractor.
    """

    @staticmethod
    def forward(ctx: Any, s: Tensor, negated: Tensor) -> Tensor:
        ctx.save_for_backward(s, negated)
        return link(s, negated)

    @staticmethod
    def backward(ctx: Any, *feedback: Tensor) -> tuple[Tensor, None]:
        s, negated = ctx.saved_tensors
        slope = torch.rsqrt(1.0 + s)
        return feedback[0] * torch.where(negated, slope, -slope), None


# What autograd differentiates, typed; torch's own `apply` is not.
attractor_exp: Callable[[Tensor, Tensor], Tensor] = AttractorExp.apply


def max_square(x: Tensor, u: Tensor, w: Tensor, pseudo: bool, sharpness: float = 1.0) -> Tensor:
    """Return s = max_i t_i^2, `(batch, units)`, for autograd; see `MaxSquare`."""
    s: Tensor = MaxSquare.apply(x, u, w, pseudo, sharpness)  # type: ignore[no-untyped-call]
    return s


def link(s: Tensor, negated: Tensor) -> Tensor:
    """Return exp(-s), or 1 - exp(-s) without cancellation where `negated`, a mask `(units,)`."""
    return torch.where(negated, -torch.expm1(-s), torch.exp(-s))


def mwd(x: Tensor, u: Tensor, w: Tensor, negated: Tensor, pseudo_share: float = 0.0, sharpness: float = 1.0) -> Tensor:
    """Return the outputs of a layer, `(batch, units)`.

    pseudo_share: rho of the gradient rho * pseudo + (1 - rho) * true. 0 is the true gradient bit for bit, 1 the
    pseudogradient; the value does not depend on it. (The paper names the schedule and gives no formula.) sharpness: of
    the pseudogradient's shares; the greater, the more goes to the maximal inputs.
    """
    if not 0.0 <= pseudo_share <= 1.0:
        raise ValueError(f"pseudo_share must lie in [0, 1], got {pseudo_share}")
    if pseudo_share == 0.0:
        return link(max_square(x, u, w, False), negated)
    pseudo = attractor_exp(max_square(x, u, w, True, sharpness), negated)
    if pseudo_share == 1.0:
        return pseudo
    true = link(max_square(x, u, w, False), negated)
    blend = pseudo_share * pseudo + (1.0 - pseudo_share) * true
    return blend + (true - blend).detach()
