"""Interval propagation (Agrawal et al. 2019, section 4; Gowal et al. 2018) and what it proves about a class.

The box of the region is pushed through the graph, one exact range per op. The last layer is merged with the
comparison of two classes (`Op.compare`): for an affine layer y_c - y_k = (W_c - W_k) x + b_c - b_k is one bound over
its input box, never looser than the difference of two; for an MWD layer the order is decided before the last exp.
Rounded outward in float64, so that a proof needs no trust in the arithmetic.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from encoders.box import Box
from encoders.exact_order import order_exactly
from encoders.network import Network
from encoders.rationals import NotEvaluated
from encoders.views.comparison import Comparison


def compare_classes(network: Network, box: Box, classes: Tensor) -> Comparison:
    """Return what intervals prove about classes `(batch,)` over boxes `(batch, *input_shape)`."""
    if len(network.output_shape) != 1:
        raise ValueError(f"{network.source}: a classifier's output is one vector, got {network.output_shape}")
    op = network.cast(box.dtype, box.lower.device).output.op
    return op.compare(*network.interval(box, network.output.inputs), classes=classes)


def proves(network: Network, box: Box, classes: Tensor) -> Tensor:
    """Return a mask `(batch,)`: whether class c strictly wins everywhere in the box. OUTER: true is a proof."""
    return compare_classes(network, box, classes).wins.all(dim=1)


@dataclass(frozen=True, eq=False)
class Refutation:
    """What is proved about single points.

    refuted: mask `(batch,)`: another class wins or ties in real arithmetic. undecided: by row, why neither that nor the
    contrary is known.
    """

    refuted: Tensor
    undecided: dict[int, str]


def refute_at(network: Network, points: Tensor, classes: Tensor) -> Refutation:
    """Return whether another class than `classes` `(batch,)` wins or ties at points, in real arithmetic.

    The interval of the degenerate box encloses the real outputs; where it leaves the order open, which it always does
    at a tie, the point is evaluated in rational numbers.
    """
    exact = points.to(torch.float64)
    seen = compare_classes(network, Box.point(exact), classes)
    refuted, undecided = seen.loses.any(dim=1), {}
    # One by one: the limit of what is tried is that of a point.
    for row in torch.nonzero(~refuted & ~seen.wins.all(dim=1)).flatten().tolist():
        index = slice(row, row + 1)
        try:
            order = order_exactly(network, exact[index], classes[index])
        except NotEvaluated as error:
            undecided[row] = str(error)
            continue
        refuted[row] = bool((order.level | order.below).any())
        if not refuted[row] and int(order.above.sum()) < seen.wins.shape[1] - 1:
            undecided[row] = "units of unlike type do not compare exactly"
    return Refutation(refuted, undecided)


def reaches_at(network: Network, points: Tensor, targets: Tensor) -> Tensor:
    """Return a mask `(batch,)`: whether no class is above the target at the point, in real arithmetic."""
    exact = points.to(torch.float64)
    proved = proves(network, Box.point(exact), targets)
    for row in torch.nonzero(~proved).flatten().tolist():
        index = slice(row, row + 1)
        try:
            order = order_exactly(network, exact[index], targets[index])
        except NotEvaluated:
            continue
        proved[row] = int((order.above | order.level).sum()) == len(order.above[0]) - 1
    return proved
