"""A network as the rows of its ops on boxes: convex (OUTER: Ehlers 2017; Salman et al. 2019) or with binaries (EXACT).

Columns are the input and the values of every node; a node that only moves values shares the columns of what it moves.
Every row holds in real arithmetic (see `encoders.ops.relaxation`) and every column is bounded by its node's box, so
what a dual bound over these arrays proves, rounded outward, is proved about the network.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.sparse import csr_array

from encoders.box import Box
from encoders.linear_model import Direction, LinearModel
from encoders.network import INPUT, Network
from encoders.ops import Concat, LinearOp, MaxPool2d, Reshape, Slice, Transpose
from encoders.ops.relaxation import Relaxation

MOVES = (Concat, Reshape, Slice, Transpose)


@dataclass(frozen=True, eq=False)
class RelaxedNetwork:
    """The rows of a network on boxes of all its nodes (batch 1, float64); made by `relax` or `encode_exactly`.

    columns: of each node's flattened value. relaxations: of the nodes that have rows, over their own columns. starts:
    the first row of each of them.
    """

    network: Network
    boxes: Mapping[str, Box]
    columns: Mapping[str, np.ndarray]
    relaxations: Mapping[str, Relaxation]
    starts: Mapping[str, int]
    direction: Direction
    A: csr_array
    row_lower: np.ndarray
    row_upper: np.ndarray
    col_lower: np.ndarray
    col_upper: np.ndarray
    integer: np.ndarray

    @property
    def is_empty(self) -> bool:
        """Whether two nodes that share a column have boxes that do not meet: a proof that no point exists."""
        return bool((self.col_lower > self.col_upper).any())

    def model(self, row: np.ndarray) -> LinearModel:
        """Return the program that minimises a row `(outputs,)` of the output; ValueError if a column is not bounded."""
        cost = np.zeros(len(self.col_lower))
        np.add.at(cost, self.columns[self.network.output.name], row)
        return LinearModel(
            cost, self.A, self.row_lower, self.row_upper, self.col_lower, self.col_upper, self.direction, self.integer
        )  # fmt: skip

    def within(self, boxes: Mapping[str, Box]) -> RelaxedNetwork:
        """Return the convex rows on smaller boxes, of the same sparsity pattern: a basis of one serves the other."""
        if self.direction is not Direction.OUTER:
            raise ValueError("only convex rows keep their pattern on smaller boxes; encode the network again")
        relaxations = dict(self.relaxations)
        nodes = {node.name: node for node in self.network.nodes}
        for name in relaxations:
            node = nodes[name]
            if not node.op.linear:
                (source,) = node.inputs
                relaxations[name] = node.op.relax(boxes[source], around=self.boxes[source])
        lower, upper = _column_bounds(self.columns, boxes, len(self.integer))
        A = csr_array(self.A)
        A.data = np.concatenate([relaxations[name].matrix.data for name in relaxations])
        return replace(
            self,
            relaxations=relaxations,
            A=A,
            row_lower=np.concatenate([found.lower for found in relaxations.values()]),
            row_upper=np.concatenate([found.upper for found in relaxations.values()]),
            col_lower=lower,
            col_upper=upper,
        )


def relax(network: Network, boxes: Mapping[str, Box]) -> RelaxedNetwork:
    """Return the convex rows of a network cast to float64, on boxes of all its nodes. OUTER.

    Raises ValueError naming all nodes without the view `relax`.
    """
    return _encode(network, boxes, "relax")


def encode_exactly(network: Network, boxes: Mapping[str, Box]) -> RelaxedNetwork:
    """Return rows with binaries whose solutions are the values of a network cast to float64 on the boxes. EXACT.

    Units whose sign the boxes decide get no binary (Tjeng et al. 2019). Raises ValueError naming all nodes without the
    view `exact`.
    """
    return _encode(network, boxes, "exact")


def _encode(network: Network, boxes: Mapping[str, Box], view: str) -> RelaxedNetwork:
    refused = [node for node in network.nodes if view not in node.op.views()]
    if refused:
        names = ", ".join(f"{node.name!r} ({node.op.kind})" for node in refused)
        raise ValueError(f"{network.source}: no rows (view {view!r}) in nodes {names}")
    columns, continuous = _columns(network)
    found: dict[str, Relaxation] = {}
    own: dict[str, np.ndarray] = {}
    count = continuous
    for node in network.nodes:
        inputs = np.concatenate([columns[name] for name in node.inputs])
        if isinstance(node.op, MOVES) and _is_moved(node.name, columns, inputs):
            continue
        made: Relaxation = getattr(node.op, view)(*(boxes[name] for name in node.inputs))
        found[node.name] = made
        own[node.name] = np.concatenate([inputs, columns[node.name], np.arange(count, count + made.binaries)])
        count += made.binaries
    relaxations: dict[str, Relaxation] = {}
    starts, rows = {}, 0
    for name, made in found.items():
        entries = (made.matrix.data, own[name][made.matrix.indices], made.matrix.indptr)
        placed = csr_array(entries, shape=(len(made.lower), count))
        if len(np.unique(own[name])) < len(own[name]):
            # A node that reads a value twice: an op with two inputs has entries of size 1, whose sums are exact.
            placed.sum_duplicates()
        relaxations[name] = replace(made, matrix=placed)
        starts[name] = rows
        rows += placed.shape[0]
    blocks = [made.matrix for made in relaxations.values()]
    ends = [np.concatenate([getattr(made, side) for made in relaxations.values()]) for side in ("lower", "upper")]
    data, indices = (np.concatenate([getattr(block, part) for block in blocks]) for part in ("data", "indices"))
    sizes = np.concatenate([np.diff(block.indptr) for block in blocks])
    A = csr_array((data, indices, np.concatenate([[0], np.cumsum(sizes)])), shape=(rows, count))
    lower, upper = _column_bounds(columns, boxes, count)
    direction = Direction.EXACT if view == "exact" else Direction.OUTER
    return RelaxedNetwork(
        network, boxes, columns, relaxations, starts, direction, A, ends[0], ends[1], lower, upper,
        np.arange(count) >= continuous,
    )  # fmt: skip


def estimate(network: Network) -> tuple[int, int]:
    """Return upper estimates of (rows, entries) of the relaxation, without building it."""
    rows, entries = 0, 0
    for node in network.nodes:
        outputs = math.prod(network.shapes[node.name])
        if isinstance(node.op, LinearOp):
            rows, entries = rows + outputs, entries + outputs * (node.op.fan_in() + 1)
        elif isinstance(node.op, MaxPool2d):
            cells = math.prod(node.op.kernel)
            rows, entries = rows + outputs * (cells + 1), entries + outputs * (3 * cells + 1)
        else:
            rows, entries = rows + 3 * outputs, entries + 6 * outputs
    return rows, entries


def _columns(network: Network) -> tuple[dict[str, np.ndarray], int]:
    """Return the columns of every node's value, and how many there are."""
    count = math.prod(network.input_shape)
    columns = {INPUT: np.arange(count)}
    for node in network.nodes:
        size = math.prod(network.shapes[node.name])
        if isinstance(node.op, MOVES):
            places = [torch.from_numpy(columns[name]).reshape(1, *network.shapes[name]) for name in node.inputs]
            moved = node.op.evaluate(*places).flatten().numpy()
            if len(np.unique(moved)) == len(moved):
                columns[node.name] = moved
                continue
        columns[node.name] = np.arange(count, count + size)
        count += size
    return columns, count


def _is_moved(name: str, columns: Mapping[str, np.ndarray], inputs: np.ndarray) -> bool:
    return bool(np.isin(columns[name], inputs).all())


def _column_bounds(
    columns: Mapping[str, np.ndarray], boxes: Mapping[str, Box], count: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the bounds of all columns: the intersection over the nodes that share one, and 0 and 1 of binaries."""
    lower, upper = np.full(count, -np.inf), np.full(count, np.inf)
    continuous = 1 + max(int(places.max()) for places in columns.values())
    lower[continuous:], upper[continuous:] = 0.0, 1.0
    for name, places in columns.items():
        box = boxes[name]
        lower[places] = np.maximum(lower[places], box.lower.flatten().cpu().numpy())
        upper[places] = np.minimum(upper[places], box.upper.flatten().cpu().numpy())
    return lower, upper
