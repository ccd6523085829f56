"""The closed-form screen: a lower bound of the radius in each input's own region, for a batch, without any LP.

The bound is that of `first_step`, on networks frozen for the whole batch at once. It bounds the program of the own
region alone: not the radius of the network, nor the program at an attacked point.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from encoders.formulations.restrict import freeze
from encoders.network import Network
from encoders.region import Domain, domain_ends
from verifier.restriction.optimum import nearest_in_box


def screen(network: Network, x: Tensor, targets: Tensor, domain: Domain, reach: float) -> np.ndarray:
    """Return lower bounds `(batch,)` of the own-region radii of x `(batch, *shape)` towards targets `(batch,)`.

    Infinite where no step within reach brings the target level with the class that is farthest above it. 0 where the
    target is the class of the input.
    """
    x = x.detach().to(torch.float64)
    least, greatest = domain_ends(domain, x)
    below, above = ((x - least).clamp(max=reach).flatten(1), (greatest - x).clamp(max=reach).flatten(1))
    cast = network.cast(torch.float64, x.device)
    margin, gradient = _margins(cast.evaluate, x, targets)
    _, steps = nearest_in_box(gradient, margin.clamp(min=0), below, above)
    frozen = freeze(network, x, torch.from_numpy(steps).to(x.device).reshape_as(x))
    margin, gradient = _margins(frozen.evaluate, x, targets)
    radii, _ = nearest_in_box(gradient, margin.clamp(min=0), below, above)
    return np.where((margin <= 0).cpu().numpy(), 0.0, radii)


def _margins(evaluate: Callable[[Tensor], Tensor], x: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Return (max over k != t of score_k - score_t `(batch,)`, its gradients `(batch, n)`)."""
    point = x.clone().requires_grad_(True)
    with torch.enable_grad():
        outputs = evaluate(point)
        own = outputs.gather(1, targets[:, None]).squeeze(1)
        margin = outputs.scatter(1, targets[:, None], -torch.inf).amax(dim=1) - own
        (gradient,) = torch.autograd.grad(margin.sum(), point)
    return margin.detach(), gradient.flatten(1)
