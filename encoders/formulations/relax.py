"""A network as the rows of its ops on boxes: convex (OUTER: Ehlers 2017; Salman et al. 2019) or with binaries (EXACT).

Columns are the input and the values of every node; a node that only moves values shares the columns of what it moves.
Then come, node by node, auxiliary values and binaries of the view `exact`.
Every row holds in real arithmetic (see `encoders.views.relaxation`) and every column is bounded by its node's box, so
what a dual bound over these arrays proves, rounded outward, is proved about the network.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np
import scipy
import torch

from encoders.box import Box
from encoders.linear_model import Direction, LinearModel
from encoders.network import INPUT, Network
from encoders.views.relaxation import Relaxation


@dataclass(frozen=True, eq=False)
class RelaxedNetwork:
    """The rows of a network on boxes of all its nodes (batch 1, float64); made by `relax` or `encode_exactly`.

    columns: of each node's flattened value. relaxations: of the nodes that have rows, over all columns. starts: the
    first row of each of them. view: of the ops, whose rows these are.
    """

    network: Network
    boxes: Mapping[str, Box]
    columns: Mapping[str, np.ndarray]
    relaxations: Mapping[str, Relaxation]
    starts: Mapping[str, int]
    direction: Direction
    A: scipy.sparse.csr_array
    row_lower: np.ndarray
    row_upper: np.ndarray
    col_lower: np.ndarray
    col_upper: np.ndarray
    integer: np.ndarray
    view: str = "relax"

    @property
    def binaries(self) -> int:
        """How many columns must be 0 or 1: one for each open hinge, several for an open window or a curve."""
        return int(self.integer.sum())

    @property
    def gaps(self) -> dict[str, float]:
        """By node, how far its value may lie from the op at the values that it reads; only those that are not exact.

        Each is about one op alone: what it does to later nodes is theirs to pass on. More segments make it smaller.
        """
        return {name: found.gap for name, found in self.relaxations.items() if found.gap > 0}

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
        if self.view != "relax":
            raise ValueError("only convex rows keep their pattern on smaller boxes; encode the network again")
        relaxations = dict(self.relaxations)
        nodes = {node.name: node for node in self.network.nodes}
        for name in relaxations:
            node = nodes[name]
            if not node.op.linear:
                (source,) = node.inputs
                relaxations[name] = node.op.relax(boxes[source], around=self.boxes[source])
        lower, upper = _column_bounds(self.columns, boxes, len(self.integer))
        A = scipy.sparse.csr_array(self.A)
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


def encode_exactly(network: Network, boxes: Mapping[str, Box], segments: int = 4) -> RelaxedNetwork:
    """Return rows with binaries whose solutions are the values of a network cast to float64 on the boxes.

    EXACT, or OUTER where an op declares a gap (`RelaxedNetwork.gaps`): then bounds prove as before, but points are only
    proposals; where a replay fails, more segments (parts of a curve) bring the rows nearer to the network. Units
    whose sign, and windows whose winner, the boxes decide get no binary (Tjeng et al. 2019). Raises ValueError naming
    all nodes without the view `exact`.
    """
    if segments < 1:
        raise ValueError(f"a curve needs at least one segment, got {segments}")
    return _encode(network, boxes, "exact", {"segments": segments})


def _encode(
    network: Network, boxes: Mapping[str, Box], view: str, options: Mapping[str, int] = MappingProxyType({})
) -> RelaxedNetwork:
    refused = [node for node in network.nodes if view not in node.op.views()]
    if refused:
        names = ", ".join(f"{node.name!r} ({node.op.kind})" for node in refused)
        raise ValueError(f"{network.source}: no rows (view {view!r}) in nodes {names}")
    columns, continuous = _columns(network)
    found: dict[str, Relaxation] = {}
    own: dict[str, np.ndarray] = {}
    # The columns behind those of the nodes: of each node auxiliary values, then binaries.
    extra = [(np.zeros(0), np.zeros(0), np.zeros(0, dtype=bool))]
    count = continuous
    for node in network.nodes:
        inputs = np.concatenate([columns[name] for name in node.inputs])
        if node.op.moves and _is_moved(node.name, columns, inputs):
            continue
        made: Relaxation = getattr(node.op, view)(*(boxes[name] for name in node.inputs), **options)
        ends = (np.zeros(0), np.zeros(0)) if made.auxiliary is None else made.auxiliary
        lower, upper = (np.append(end, np.full(made.binaries, v)) for end, v in zip(ends, (0.0, 1.0), strict=True))
        extra.append((lower, upper, np.arange(len(lower)) >= len(ends[0])))
        found[node.name] = made
        parts = (inputs, columns[node.name], np.arange(count, count + len(lower)))
        own[node.name] = np.concatenate(parts).astype(np.int32)
        count += len(lower)
    relaxations, starts = _placed(found, own, count)
    blocks = [made.matrix for made in relaxations.values()]
    row_lower, row_upper = (
        np.concatenate([getattr(made, side) for made in relaxations.values()]) for side in ("lower", "upper")
    )
    data, indices = (np.concatenate([getattr(block, part) for block in blocks]) for part in ("data", "indices"))
    sizes = np.concatenate([np.diff(block.indptr) for block in blocks])
    A = scipy.sparse.csr_array((data, indices, np.concatenate([[0], np.cumsum(sizes)])), shape=(len(row_lower), count))
    col_lower, col_upper = _column_bounds(columns, boxes, count)
    col_lower[continuous:], col_upper[continuous:], is_binary = (np.concatenate(p) for p in zip(*extra, strict=True))
    is_exact = view == "exact" and all(made.gap == 0 for made in relaxations.values())
    return RelaxedNetwork(
        network, boxes, columns, relaxations, starts, Direction.EXACT if is_exact else Direction.OUTER, A,
        row_lower, row_upper, col_lower, col_upper, np.append(np.zeros(continuous, dtype=bool), is_binary), view,
    )  # fmt: skip


def _placed(
    found: Mapping[str, Relaxation], own: Mapping[str, np.ndarray], count: int
) -> tuple[dict[str, Relaxation], dict[str, int]]:
    """Return the relaxations over all columns in place of each node's own, and the first row of each."""
    relaxations: dict[str, Relaxation] = {}
    starts, rows = {}, 0
    for name, made in found.items():
        entries = (made.matrix.data, own[name][made.matrix.indices], made.matrix.indptr)
        placed = scipy.sparse.csr_array(entries, shape=(len(made.lower), count))
        if len(np.unique(own[name])) < len(own[name]):
            # A node that reads a value twice: an op with two inputs has entries of size 1, whose sums are exact.
            placed.sum_duplicates()
        relaxations[name] = replace(made, matrix=placed)
        starts[name] = rows
        rows += placed.shape[0]
    return relaxations, starts


def estimate(network: Network, view: str = "relax", segments: int = 4) -> tuple[int, int]:
    """Return upper estimates of (rows, entries) of the rows of a view, `relax` or `exact`, without building them.

    Of the view `exact` as if every unit, window and literal were open and every curve cut into all segments.
    """
    sizes = [node.op.program_size(view, math.prod(network.shapes[node.name]), segments) for node in network.nodes]
    return sum(size.rows for size in sizes), sum(size.entries for size in sizes)


def _columns(network: Network) -> tuple[dict[str, np.ndarray], int]:
    """Return the columns of every node's value, and how many there are."""
    count = math.prod(network.input_shape)
    columns = {INPUT: np.arange(count)}
    for node in network.nodes:
        size = math.prod(network.shapes[node.name])
        if node.op.moves:
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
    """Return the bounds of all columns of nodes: the intersection over the nodes that share one."""
    lower, upper = np.full(count, -np.inf), np.full(count, np.inf)
    for name, places in columns.items():
        box = boxes[name]
        lower[places] = np.maximum(lower[places], box.lower.flatten().cpu().numpy())
        upper[places] = np.minimum(upper[places], box.upper.flatten().cpu().numpy())
    return lower, upper
