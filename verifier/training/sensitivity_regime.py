"""Training with a penalty on the Lipschitz constants of the outputs, the cheap way to certified radii.

loss = clean loss + cost * mean over classes of the sensitivity of `verifier.bounds.mwd.lipschitz`, here with gradients
and in float32. The idea is the sensitivity cost in the code of Agrawal et al. (2019). Feedback of each maximum is
shared among its inputs in proportion to exp(SHARPNESS (term - maximum)), for the true gradient would lower one of
hundreds of nearly equal weights a step.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from encoders.layers import Mwd, MwdConv2d
from verifier.bounds.mwd.lipschitz import GREATEST_SLOPE
from verifier.training.regimes import Loss

SHARPNESS = 10.0


@dataclass(frozen=True)
class Sensitivity:
    """The clean loss plus `cost` times the mean sensitivity of the outputs."""

    loss: Loss
    cost: float

    def __call__(self, module: nn.Module, x: Tensor, y: Tensor, progress: float) -> Iterator[Tensor]:
        """Yield the loss of the batch."""
        yield self.loss(module(x), y) + self.cost * output_sensitivity(module).mean()

    def __repr__(self) -> str:
        return f"Sensitivity({self.loss.__name__}, {self.cost})"


def output_sensitivity(module: nn.Module) -> Tensor:
    """Return the sensitivities of the outputs `(units,)` of a chain of MWD layers; TypeError names any other layer.

    A channel of a convolutional layer has one sensitivity for all its positions: the greatest.
    """
    s = torch.ones(1)
    for layer in module.children():
        if isinstance(layer, nn.Flatten | nn.Unflatten):
            continue
        if not isinstance(layer, Mwd | MwdConv2d):
            raise TypeError(f"sensitivity training takes a chain of MWD layers, got {type(layer).__name__}")
        u = layer.u.flatten(2).amax(dim=2) if isinstance(layer, MwdConv2d) else layer.u
        s = s.to(u).repeat_interleave(u.shape[1] // len(s))
        slope = GREATEST_SLOPE if isinstance(layer, MwdConv2d) or layer.bias is None else 1.0
        s = slope * _shared_maximum(u * s)
    return s


def _shared_maximum(terms: Tensor) -> Tensor:
    """Return the maxima along the last axis; their feedback is shared among all terms."""
    greatest = terms.detach().amax(dim=-1, keepdim=True)
    shares = torch.softmax(SHARPNESS * (terms.detach() - greatest), dim=-1)
    soft = (shares * terms).sum(dim=-1)
    return soft + (greatest.squeeze(-1) - soft).detach()
