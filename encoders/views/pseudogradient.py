"""Functions whose backward pass is another function's (BPDA: Athalye, Carlini, Wagner 2018)."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Function = Callable[[Tensor], Tensor]


def identity(x: Tensor) -> Tensor:
    """Return x: the stand-in of the straight-through estimator."""
    return x


def replace_backward(function: Function, stand_in: Function = identity) -> Function:
    """Return a function with the values of `function` and the derivative of `stand_in`, both at x."""

    def replaced(x: Tensor) -> Tensor:
        value: Tensor = _Replaced.apply(x, function, stand_in)  # type: ignore[no-untyped-call]
        return value

    return replaced


class _Replaced(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, function: Function, stand_in: Function) -> Tensor:
        ctx.save_for_backward(x)
        ctx.stand_in = stand_in
        value = function(x)
        # A view of x would be taken for x itself.
        return value.clone() if value is x else value

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (x,) = ctx.saved_tensors
        with torch.enable_grad():
            x = x.detach().requires_grad_(True)
            # As a sum: torch loads sympy for weights that are passed apart.
            (result,) = torch.autograd.grad((ctx.stand_in(x) * gradients[0]).sum(), x)
        return result, None, None
