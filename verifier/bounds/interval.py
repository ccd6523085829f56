"""Interval propagation (Agrawal et al. 2019, section 4; Gowal et al. 2018) and what it proves about a class.

The box of the region is pushed through the graph, one exact range per op. The last layer is merged with the
comparison of two classes: for an affine layer y_c - y_k = (W_c - W_k) x + b_c - b_k is one bound over its input
box, never looser than the difference of two; for an MWD layer the order is decided before the last exp.
Rounded outward in float64, so that a proof needs no trust in the arithmetic.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from encoders.box import Box
from encoders.network import Network
from encoders.ops import Affine, Mwd


@dataclass(frozen=True, eq=False)
class Comparison:
    """How a reference class c compares with every class k over a box; masks `(batch, classes)`.

    wins: y_c > y_k on the whole box. loses: y_c <= y_k on the whole box. Both are proofs in real arithmetic;
    column c itself counts as won.
    """

    wins: Tensor
    loses: Tensor


def compare_classes(network: Network, box: Box, classes: Tensor) -> Comparison:
    """Return what intervals prove about classes `(batch,)` over boxes `(batch, *input_shape)`."""
    if len(network.output_shape) != 1:
        raise ValueError(f"{network.source}: a classifier's output is one vector, got {network.output_shape}")
    op = network.cast(box.dtype, box.lower.device).output.op
    if isinstance(op, Affine):
        (before,) = network.interval(box, network.output.inputs)
        wins, loses = _compare_affine(op, before, classes)
    else:
        if isinstance(op, Mwd):
            (before,) = network.interval(box, network.output.inputs)
            outputs = op.score_box(before)
        else:
            (outputs,) = network.interval(box)
        wins = outputs.lower.gather(1, classes[:, None]) > outputs.upper
        loses = outputs.upper.gather(1, classes[:, None]) <= outputs.lower
    own = functional.one_hot(classes, wins.shape[1]).bool()
    return Comparison(wins | own, loses & ~own)


def proves(network: Network, box: Box, classes: Tensor) -> Tensor:
    """Return a mask `(batch,)`: whether class c strictly wins everywhere in the box. OUTER: true is a proof."""
    return compare_classes(network, box, classes).wins.all(dim=1)


def refutes_at(network: Network, points: Tensor, classes: Tensor) -> Tensor:
    """Return a mask `(batch,)`: whether another class wins or ties at the point in real arithmetic.

    The interval of the degenerate box encloses the real outputs, so true is a proof that the point is unsafe.
    """
    box = Box.point(points.to(torch.float64))
    return compare_classes(network, box, classes).loses.any(dim=1)


def _compare_affine(op: Affine, before: Box, classes: Tensor) -> tuple[Tensor, Tensor]:
    """Return (wins, loses) from the box of y_c - y_k, grouped by class: one difference matrix for each."""
    wins = torch.empty(before.batch, op.weight.shape[0], dtype=torch.bool, device=classes.device)
    loses = torch.empty_like(wins)
    for reference in classes.unique().tolist():
        rows = classes == reference
        margins = op.class_differences(reference).interval(before[rows])
        wins[rows], loses[rows] = margins.lower > 0, margins.upper <= 0
    return wins, loses
