"""Robust linear and logistic models in closed form: the greatest loss over balls of a norm, cut to the domain.

With z = W x + b, class c, and d_k = w_k - w_c, a linear function is greatest over a ball where Hoelder's inequality is
tight: max_r <d_k, r> = epsilon ||d_k||_*. The loss is

    log sum_k exp(z_k - z_c + max_r <d_k, r>),   for two classes log(1 + exp(-y h(x) + epsilon ||w||_*)),

h(x) = z_1 - z_0 and y = +-1 (Pallaprolu, Madala 2020, section 2, who print -epsilon ||w||_1, which is not even convex).
It is the maximum of the cross-entropy for two classes, an upper bound of it for more; that a class wins everywhere is
decided exactly for any number. In a domain r is cut to it: the maximiser is `steepest`'s, whose value has the gradient
of <d_k, r> with r held fixed (Danskin).
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from encoders.region import Norm, domain_ends
from verifier.attacks.geometry import steepest
from verifier.training.adversaries import Domain
from verifier.training.regimes import Described


@dataclass(frozen=True, repr=False)
class RobustLinear(Described):
    """The worst logistic loss of a linear model over balls of radius `epsilon`."""

    epsilon: float
    norm: Norm = "inf"
    domain: Domain = None

    def __call__(self, module: nn.Module, x: Tensor, y: Tensor, progress: float) -> Iterator[Tensor]:
        """Yield the loss of the batch; ValueError if the module is not one linear layer."""
        margins = worst_margins(linear_layer(module), x.flatten(1), y, self.epsilon, self.norm, self.domain)
        yield margins.logsumexp(dim=1).mean()


def linear_layer(module: nn.Module) -> nn.Linear:
    """Return the linear layer that a module consists of, beside flattening."""
    layers = [layer for layer in module.children() if not isinstance(layer, nn.Flatten)]
    if len(layers) != 1 or not isinstance(layers[0], nn.Linear):
        kinds = ", ".join(type(layer).__name__ for layer in layers)
        raise ValueError(f"robust-linear trains one linear layer, the network linear; this one has {kinds}")
    return layers[0]


def worst_margins(layer: nn.Linear, x: Tensor, y: Tensor, epsilon: float, norm: Norm, domain: Domain = None) -> Tensor:
    """Return the greatest z_k - z_y over the balls around x `(batch, n)` in the domain, `(batch, classes)`.

    In the dtype of the weights, not rounded outward; 0 for the own class. Differentiable by the weights.
    """
    rows = layer.weight[None] - layer.weight[y][:, None]
    margins = torch.einsum("bkn,bn->bk", rows, x)
    if layer.bias is not None:
        margins = margins + layer.bias[None] - layer.bias[y][:, None]
    with torch.no_grad():
        least, greatest = domain_ends(domain, x)
        flat = rows.flatten(0, 1)
        room = torch.where(rows > 0, (greatest - x)[:, None], (x - least)[:, None]).clamp(min=0).flatten(0, 1)
        radii = x.new_full((len(flat),), epsilon)
        moves = steepest(-flat, radii, norm, room).reshape(rows.shape)
    return margins + (rows * moves).sum(dim=2)
