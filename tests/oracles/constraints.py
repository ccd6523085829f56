"""The constraint language of Bastani et al. (2016), section 3: linear relations, conjunctions and disjunctions.

A system ranges over one vector v of all variables of a network: its input and the value of every node. `Rows` is a
conjunction of relations A v + b = 0 or >= 0 (the paper prints >= 0 for both), `Choice` a disjunction for each component
of a layer: a relu is (x <= 0 and y = 0) or (x >= 0 and y = x), a maximum has one disjunct for each cell. The encoding
is exact, up to ties: at a tie several disjuncts and, with >= between scores, several labels hold.

This is the reference that tests compare with: `encoders.formulations.restrict` states the same restriction without
hidden variables.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from scipy.sparse import csr_array, hstack, vstack
from torch import Tensor

from encoders.network import INPUT, Network, Node
from encoders.views.restriction import selection_matrix


@dataclass(frozen=True, eq=False)
class Rows:
    """The conjunction of the relations A v + b = 0 (`equal`) or A v + b >= 0."""

    A: csr_array
    b: np.ndarray
    equal: bool

    def violation(self, v: np.ndarray) -> np.ndarray:
        """Return how far each relation is from holding at v, 0 where it holds."""
        value = self.A @ v + self.b
        return np.asarray(np.abs(value) if self.equal else np.maximum(-value, 0.0))

    def take(self, mask: np.ndarray) -> Rows:
        """Return the relations of a mask."""
        return Rows(csr_array(self.A[np.flatnonzero(mask)]), self.b[mask], self.equal)


@dataclass(frozen=True, eq=False)
class Choice:
    """For each of `count` components the disjunction of options.

    An option is a conjunction of blocks of rows; row r of a block belongs to component r % count.
    """

    options: tuple[tuple[Rows, ...], ...]
    count: int

    def violation(self, v: np.ndarray) -> np.ndarray:
        """Return how far each option of each component is from holding at v, `(options, count)`."""
        worst = []
        for option in self.options:
            blocks = [block.violation(v).reshape(-1, self.count).max(axis=0) for block in option]
            worst.append(np.max(blocks, axis=0))
        return np.stack(worst)

    def restrict(self, v: np.ndarray) -> list[Rows]:
        """Return the rows of the option that holds best at v, for each component; the first of equal ones."""
        chosen = self.violation(v).argmin(axis=0)
        blocks = []
        for number, option in enumerate(self.options):
            blocks += [block.take(np.tile(chosen == number, len(block.b) // self.count)) for block in option]
        return [block for block in blocks if len(block.b)]


@dataclass(frozen=True, eq=False)
class ConstraintSystem:
    """A conjunction of rows and choices over v; starts: where the input and each node begin in v."""

    parts: tuple[Rows | Choice, ...]
    starts: dict[str, int]

    def violation(self, v: np.ndarray) -> float:
        """Return how far the system is from holding at v: 0 where it holds."""
        worst = [0.0]
        for part in self.parts:
            found = part.violation(v)
            worst.append(float((found.min(axis=0) if isinstance(part, Choice) else found).max(initial=0.0)))
        return max(worst)

    def restrict(self, v: np.ndarray) -> ConstraintSystem:
        """Return the convex restriction at v: every disjunction reduced to the disjunct that holds there. INNER."""
        parts: list[Rows | Choice] = []
        for part in self.parts:
            parts += part.restrict(v) if isinstance(part, Choice) else [part]
        return ConstraintSystem(tuple(parts), self.starts)


def encode_label(network: Network, label: int, domain: tuple[float, float] | None = None) -> ConstraintSystem:
    """Return the system that holds at the values of the network where no class scores above `label`.

    Its input may be any point (of the domain, if one is given). Raises ValueError naming ops without linear pieces.
    """
    layout = _Layout.of(network)
    parts = [_part(network, node, layout) for node in network.cast(torch.float64).nodes]
    others = np.delete(np.eye(network.output_shape[0]), label, axis=0)
    scores = csr_array(np.eye(network.output_shape[0])[[label]] - others)
    parts.append(Rows(layout.over(network.output.name, scores), np.zeros(len(others)), equal=False))
    if domain is not None:
        x, inputs = layout.values(INPUT), layout.sizes[INPUT]
        parts += [Rows(x, np.full(inputs, -domain[0]), False), Rows(csr_array(-x), np.full(inputs, domain[1]), False)]
    return ConstraintSystem(tuple(parts), layout.starts)


@dataclass(frozen=True, eq=False)
class _Layout:
    """Where the input and each node begin in v, how many values they have, and how many v has."""

    starts: dict[str, int]
    sizes: dict[str, int]
    columns: int

    @classmethod
    def of(cls, network: Network) -> _Layout:
        sizes = {name: math.prod(network.shapes[name]) for name in (INPUT, *(node.name for node in network.nodes))}
        ends = np.cumsum(list(sizes.values())).tolist()
        return cls(dict(zip(sizes, [0, *ends[:-1]], strict=True)), sizes, ends[-1])

    def over(self, name: str, matrix: csr_array) -> csr_array:
        """Return a matrix over one node's values as one over v."""
        before, after = self.starts[name], self.columns - self.starts[name] - matrix.shape[1]
        return csr_array(hstack([csr_array((matrix.shape[0], before)), matrix, csr_array((matrix.shape[0], after))]))

    def values(self, name: str) -> csr_array:
        """Return the rows that read a node's values off v."""
        return self.over(name, selection_matrix(np.arange(self.sizes[name]), self.sizes[name]))


def _part(network: Network, node: Node, layout: _Layout) -> Rows | Choice:
    """Return what holds between a node (float64) and what it reads."""
    y, shapes = layout.values(node.name), [network.shapes[name] for name in node.inputs]
    left = node.op.hinge_slope
    if left is not None:
        x = layout.values(node.inputs[0])
        return Choice((_piece(-x, y - left * x), _piece(x, y - x)), layout.sizes[node.name])
    if node.op.maximum:
        (source,) = node.inputs
        return _maximum(node.op.windows(shapes[0]).numpy(), layout.sizes[source], partial(layout.over, source), y)
    if "restrict" not in node.op.views():
        raise ValueError(f"{network.source}: node {node.name!r} ({node.op.kind}) has no linear pieces")
    matrix = node.op.matrix(*shapes)
    widths = np.cumsum([0, *(layout.sizes[name] for name in node.inputs)])
    for name, low, high in zip(node.inputs, widths[:-1], widths[1:], strict=True):
        y = csr_array(y - layout.over(name, csr_array(matrix[:, np.arange(low, high)])))
    zeros = [torch.zeros(1, *shape, dtype=torch.float64) for shape in shapes]
    return Rows(y, -node.op.evaluate(*zeros).flatten().numpy(), equal=True)


def variables_of(network: Network, x: Tensor) -> np.ndarray:
    """Return v at an input x `(1, *input_shape)`: the input and the value of every node, in float64."""
    cast = network.cast(torch.float64)
    values = cast.fold(x.to(torch.float64), lambda op, at: op.evaluate(*at), [node.name for node in cast.nodes])
    return np.concatenate([part.flatten().numpy() for part in (x.to(torch.float64), *values)])


def _piece(condition: csr_array, relation: csr_array) -> tuple[Rows, ...]:
    zeros = np.zeros(condition.shape[0])
    return Rows(csr_array(condition), zeros, equal=False), Rows(csr_array(relation), zeros, equal=True)


def _maximum(cells: np.ndarray, inputs: int, over: Callable[[csr_array], csr_array], y: csr_array) -> Choice:
    """Return one option for each cell `(windows, cells)`: y is its value, and it is at least every other cell."""
    count = len(cells)
    options = []
    for k in range(cells.shape[1]):
        # A cell in the padding stands for none: its option repeats that of another cell of the window.
        mine = np.where(cells[:, k] >= 0, cells[:, k], cells.max(axis=1))
        winner = over(selection_matrix(mine, inputs))
        others = [
            winner - over(selection_matrix(np.where(cells[:, j] >= 0, cells[:, j], mine), inputs))
            for j in range(cells.shape[1])
        ]
        conditions = csr_array(vstack(others))
        relation = Rows(csr_array(y - winner), np.zeros(count), equal=True)
        options.append((Rows(conditions, np.zeros(conditions.shape[0]), equal=False), relation))
    return Choice(tuple(options), count)
