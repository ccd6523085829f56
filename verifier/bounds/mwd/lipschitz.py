"""Lipschitz bounds of MWD networks in the inf-norm, and the radius that they certify in one forward pass.

|d/dz exp(-z^2)| <= sqrt(2/e), so if input i of a layer is s_i-Lipschitz, the distance z_j = max_i u_ji |x_i - w_ji| is
(max_i u_ji s_i)-Lipschitz and its output sqrt(2/e) times that (1 times with the linear link): the recursion that the
code of Agrawal et al. (2019) calls sensitivity. Two values that differ by m at x and are s_c- and s_k-Lipschitz keep
their order within every radius below m / (s_c + s_k) (Hein and Andriushchenko 2017).

The last layer's values are compared before its link where all its units are of one type, which never gives a smaller
radius. Everything is rounded outward in float64.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from encoders.box import Box
from encoders.network import Network
from encoders.rounding import next_down, tiny, unit_roundoff
from encoders.views.distances import DistanceLayer
from verifier.certificates.distance_chain import dense_layers

# sqrt(2/e) = 0.85776388496070679..., rounded up.
GREATEST_SLOPE = 0.857763884960707

_RELATIVE = 8.0 * unit_roundoff(torch.float64)


def distance_sensitivities(layers: Sequence[DistanceLayer]) -> Tensor:
    """Return upper bounds `(units,)` of the Lipschitz constants of the last layer's distances, in the inf-norm."""
    s = torch.ones(layers[0].weight.shape[1], dtype=torch.float64, device=layers[0].weight.device)
    for number, op in enumerate(layers):
        if number:
            s = s * link_slope(layers[number - 1])
        s = (op.weight.double() * s).amax(dim=1) * (1.0 + _RELATIVE) + tiny(torch.float64)
    return s


def link_slope(op: DistanceLayer) -> float:
    """Return an upper bound of how fast an output changes with its distance."""
    return 1.0 if op.has_linear_link else GREATEST_SLOPE


def lipschitz_radius(network: Network, points: Tensor, classes: Tensor) -> Tensor:
    """Return radii `(batch,)`, float64: class c strictly wins in the closed ball of that radius; -1: nothing proved.

    network: a chain of MWD layers, else ValueError. points: `(batch, *input_shape)`; classes: `(batch,)`. OUTER: the
    true radius is never smaller.
    """
    layers = dense_layers(network.cast(torch.float64, points.device), "lipschitz")
    s, op = distance_sensitivities(layers), layers[-1]
    box = Box.point(points.to(torch.float64))
    (before,) = network.interval(box, network.output.inputs)
    values = _compared_values(op, before)
    if not op.has_linear_link and bool(op.negated.any()) and not bool(op.negated.all()):
        s = s * (link_slope(op) * (1.0 + _RELATIVE))
    margins = values.lower.gather(1, classes[:, None]) - values.upper
    # Rounded to nearest so far: a difference, a sum and a quotient.
    radii = next_down(margins * (1.0 - _RELATIVE) / (s[classes][:, None] + s))
    radii = torch.where(margins > 0, radii.clamp(min=0.0), -1.0)
    own = functional.one_hot(classes, radii.shape[1]).bool()
    return radii.masked_fill(own, torch.inf).amin(dim=1)


def _compared_values(op: DistanceLayer, before: Box) -> Box:
    """Return values in the order of the outputs that change as fast as the distances, or outputs of mixed units."""
    if op.has_linear_link or (bool(op.negated.any()) and not bool(op.negated.all())):
        return op.interval(before)
    near, far = op.distance_range(before)
    return Box.unchecked(near, far) if bool(op.negated.all()) else Box.unchecked(-far, -near)
