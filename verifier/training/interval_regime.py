"""Certified training of MWD networks on the ends of the propagated intervals.

loss = (1 - kappa) clean + kappa worst, where worst is the squared error with every class at the end of its
interval that hurts most: the label's lower end, the others' upper ends. The scheme is interval bound propagation
training (Gowal et al. 2018); for MWD networks, with pseudogradients through both ends, no published use is known.
The radius rises linearly from `RAMP_START` of its final value over the first `RAMP` of training.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from encoders.layers import Mwd, MwdConv2d
from verifier.training.architectures import squared_error

RAMP = 0.6
RAMP_START = 0.5


@dataclass(frozen=True)
class IntervalEnds:
    """Half clean squared error, half squared error at the worst ends of intervals of radius `epsilon`."""

    epsilon: float
    kappa: float = 0.5
    domain: tuple[float, float] | None = None

    def __call__(self, module: nn.Module, x: Tensor, y: Tensor, progress: float) -> Iterator[Tensor]:
        """Yield the loss of the batch."""
        radius = self.epsilon * min(1.0, RAMP_START + (1.0 - RAMP_START) * progress / RAMP)
        lower, upper = x - radius, x + radius
        if self.domain is not None:
            lower, upper = lower.clamp(min=self.domain[0]), upper.clamp(max=self.domain[1])
        for layer in module.children():
            if isinstance(layer, nn.Flatten | nn.Unflatten):
                lower, upper = layer(lower), layer(upper)
            elif isinstance(layer, Mwd | MwdConv2d):
                lower, upper = layer.pseudo_interval(lower, upper)
            else:
                raise TypeError(f"interval training takes a chain of MWD layers, got {type(layer).__name__}")
        target = functional.one_hot(y, lower.shape[1]).to(x.dtype)
        worst = torch.where(target.bool(), lower, upper)
        clean = squared_error(module(x), y)
        yield (1 - self.kappa) * clean + self.kappa * ((worst - target) ** 2).sum(dim=1).mean()
