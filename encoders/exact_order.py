"""Which class is above which at single points, decided without rounding: a tie is a tie.

The network is evaluated in rational numbers (`Op.rational`), which floats are. A last softmax, sigmoid or tanh
keeps the order of what it reads, and a last MWD layer with the Gaussian link that of the distances of units of one
type, so they are compared before it. Undecided, by name: other ops that leave the rationals, two units of unlike type,
and networks that would take too long (MOST_PRODUCTS).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from encoders.network import INPUT, Network, Node
from encoders.ops import Op
from encoders.rationals import PYTHON_COST, NotEvaluated, Rationals

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
    return _values(network, points, [network.output.name], _Purse(most))[0]


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
    while node is not None and len(node.inputs) == 1 and node.op.keeps_order_of(network.shapes[node.inputs[0]]):
        node = nodes.get(node.inputs[0])
    if node is None:
        return _values(network, points, [INPUT], purse)[0], np.zeros(1, dtype=np.int64)
    before = _values(network, points, node.inputs, purse)
    with _named(node):
        scores, kinds = node.op.rational_scores(*before, afford=purse.pay)
        purse.pay(PYTHON_COST * scores.numerators.size)
    return scores, kinds


def _values(network: Network, points: Tensor, targets: Sequence[str], purse: _Purse) -> list[Rationals]:
    """Return the values of nodes at points, each node computed once and dropped after its last reader."""
    if tuple(points.shape[1:]) != tuple(network.input_shape):
        raise ValueError(f"{network.source} takes points of shape {network.input_shape}, got {tuple(points.shape[1:])}")
    _refuse_irrational(network, targets)
    # Floats of fewer bits are exact in float64, and so are stored weights.
    network = network.cast(torch.float64)
    names = iter(network.nodes)

    def step(op: Op, values: Sequence[Rationals]) -> Rationals:
        with _named(next(names)):
            result = op.rational(*values, afford=purse.pay)
            purse.pay(PYTHON_COST * result.numerators.size)
        return result

    return network.fold(Rationals.of(points), step, targets)


def _refuse_irrational(network: Network, targets: Sequence[str]) -> None:
    """Raise NotEvaluated at once where a node up to the targets leaves the rationals whatever it reads."""
    missing = set(targets) - {INPUT}
    for node in network.nodes:
        if not missing:
            return
        if not node.op.is_rational:
            raise NotEvaluated(f"node {node.name!r} ({node.op.kind}) leaves the rational numbers")
        missing.discard(node.name)


@contextmanager
def _named(node: Node) -> Iterator[None]:
    """Say in the reason of a NotEvaluated which node it is about."""
    try:
        yield
    except NotEvaluated as error:
        raise NotEvaluated(f"node {node.name!r} ({node.op.kind}): {error}") from None
