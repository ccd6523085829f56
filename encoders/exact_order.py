"""Which class is above which at single points, decided without rounding: a tie is a tie.

The network is evaluated in rational numbers (`encoders.ops.rational_rules`), which floats are. A last sigmoid or tanh
keeps the order of what it reads, and a last MWD layer with the Gaussian link that of the distances of units of one
type, so they are compared before it. Undecided, by name: other ops that leave the rationals, two units of unlike type,
and networks that would take too long (MOST_PRODUCTS).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from encoders.network import INPUT, Network, Node
from encoders.ops import Mwd, MwdConv2d, Reshape, Sigmoid, Tanh
from encoders.ops.rational_rules import PYTHON_COST, RATIONAL_RULES, distances
from encoders.rationals import NotEvaluated, Rationals

Masks = NDArray[np.bool_]

# Multiplications in float64 that the points handed over together may take: a few seconds of one core.
MOST_PRODUCTS = 2_000_000_000


@dataclass(frozen=True, eq=False)
class ExactOrder:
    """How a reference class c compares with every class k at points, proved; masks `(batch, classes)`.

    above: y_c > y_k; level: y_c = y_k; below: y_c < y_k. None of them: undecided. Column c itself is none.
    """

    above: Masks
    level: Masks
    below: Masks


def order_exactly(network: Network, points: Tensor, classes: Tensor, most: int = MOST_PRODUCTS) -> ExactOrder:
    """Return the order of the classes `(batch,)` and all others at points `(batch, *input_shape)`.

    It takes about a quarter of a second for each million weights, most of it for the first point (a 784-512-512-10
    network: 0.2 s, a convolutional one with 4 million products in a layer: 0.5 s). Raises NotEvaluated with the reason
    where a node leaves the rationals or more than `most` multiplications in float64 are needed.
    """
    scores, kinds = _scores(network, points, _Purse(most))
    numerators = scores.numerators.reshape(len(points), -1)
    own = classes.cpu().numpy()[:, None]
    leads = np.take_along_axis(numerators, own, axis=1) - numerators
    kinds = np.broadcast_to(kinds, leads.shape)
    comparable = (np.take_along_axis(kinds, own, axis=1) == kinds) & (np.arange(leads.shape[1]) != own)
    above, level, below = (sign.astype(bool) & comparable for sign in (leads > 0, leads == 0, leads < 0))
    return ExactOrder(above, level, below)


def evaluate_exactly(network: Network, points: Tensor, most: int = MOST_PRODUCTS) -> Rationals:
    """Return the outputs `(batch, *output_shape)` at points; raises NotEvaluated as `order_exactly` does."""
    return _values(network, points, network.output.name, _Purse(most))


class _Purse:
    """Counts what an evaluation costs, and refuses what it cannot pay for."""

    def __init__(self, most: int) -> None:
        self.most, self.left = most, most

    def pay(self, cost: int) -> None:
        self.left -= cost
        if self.left < 0:
            raise NotEvaluated(f"exact evaluation takes more than {self.most:,} multiplications")


def _scores(network: Network, points: Tensor, purse: _Purse) -> tuple[Rationals, NDArray[np.int64]]:
    """Return (rational numbers in the order of the outputs, which of them may be compared: those of equal kind)."""
    nodes = {node.name: node for node in network.cast(torch.float64).nodes}
    node: Node | None = nodes[network.output.name]
    while node is not None and isinstance(node.op, Reshape | Sigmoid | Tanh):
        node = nodes.get(node.inputs[0])
    last = INPUT if node is None else node.name
    if node is None or not isinstance(node.op, Mwd | MwdConv2d) or (isinstance(node.op, Mwd) and node.op.link):
        return _values(network, points, last, purse), np.zeros(1, dtype=np.int64)
    before = _values(network, points, node.inputs[0], purse)
    try:
        away = distances(node.op, before, purse.pay)
    except NotEvaluated as error:
        raise NotEvaluated(f"node {node.name!r} ({node.op.kind}): {error}") from None
    # Units of a map come one after the other, each with all of its positions.
    kinds = node.op.negated.cpu().numpy().astype(np.int64)
    kinds = np.repeat(kinds, away.shape[1] // len(kinds))
    return away.map(lambda n: np.where(kinds == 1, n, -n)), kinds


def _values(network: Network, points: Tensor, target: str, purse: _Purse) -> Rationals:
    """Return the values of a node at points, each node computed once and dropped after its last reader."""
    if tuple(points.shape[1:]) != tuple(network.input_shape):
        raise ValueError(f"{network.source} takes points of shape {network.input_shape}, got {tuple(points.shape[1:])}")
    if target == INPUT:
        return Rationals.of(points)
    _refuse_irrational(network, target)
    # Floats of fewer bits are exact in float64, and so are stored weights.
    network = network.cast(torch.float64)
    names = iter(network.nodes)

    def step(op: object, values: object) -> Rationals:
        node = next(names)
        assert node.op is op
        try:
            result = RATIONAL_RULES[type(node.op)](node.op, tuple(values), purse.pay)  # type: ignore[arg-type]
            purse.pay(PYTHON_COST * result.numerators.size)
        except NotEvaluated as error:
            raise NotEvaluated(f"node {node.name!r} ({node.op.kind}): {error}") from None
        return result

    return network.fold(Rationals.of(points), step, [target])[0]


def _refuse_irrational(network: Network, target: str) -> None:
    """Raise NotEvaluated at once where a node up to the target has no rule at all, or the Gaussian link."""
    for node in network.nodes:
        gaussian = isinstance(node.op, Mwd) and not node.op.has_linear_link
        if type(node.op) not in RATIONAL_RULES or gaussian:
            raise NotEvaluated(f"node {node.name!r} ({node.op.kind}) leaves the rational numbers")
        if node.name == target:
            return
