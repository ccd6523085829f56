"""Operators that only move values, as what they do to an array of numbers that stand for values.

Each value of each node is a *cell* with a number from 0 on, and each entry of a constant one below 0. A reader applies
an operator to arrays of such numbers (numpy or torch do it, as they would with any array) and the resulting array says
which cell lies where: `Cells.emit` makes a network of it. So one op serves all that pick, repeat, mask and pad.
"""

import math
from collections.abc import Callable, Sequence
from functools import reduce

import numpy as np
import torch
from torch import Tensor

from encoders.formats.graph import GraphBuilder, Value
from encoders.formats.runtime import Array
from encoders.ops import Gather

CELL_BYTES = 8


class Cells:
    """The cells of some values and constants of a file, for one operator. arrays: their numbers, in the file's shapes.

    Raises LimitError for values that are too many to be numbered, and ValueError for constants of another dtype than
    the network's. Whoever makes an array of cells claims its bytes from its own budget first.
    """

    def __init__(self, graph: GraphBuilder, inputs: Sequence[Value | Tensor]) -> None:
        self._graph = graph
        self._values = {given.name: given for given in inputs if isinstance(given, Value)}
        counts = [math.prod(value.shape) for value in self._values.values()]
        constants = [given for given in inputs if isinstance(given, Tensor)]
        total = sum(counts) + sum(constant.numel() for constant in constants)
        graph.limits.check("constant_bytes", CELL_BYTES * total, "an index map")
        wrong = [constant.dtype for constant in constants if constant.dtype != graph.dtype]
        if wrong:
            raise ValueError(f"a constant has element type {wrong[0]}, the network {graph.dtype}")
        self._starts = np.cumsum([0, *counts])
        self._constants = torch.cat([constant.flatten() for constant in constants] or [torch.zeros(0)])
        starts = dict(zip(self._values, self._starts, strict=False))
        self.arrays: list[Array] = []
        used = 0
        for given in inputs:
            if isinstance(given, Value):
                numbers = np.arange(starts[given.name], starts[given.name] + math.prod(given.shape))
                self.arrays.append(numbers.reshape(given.shape))
            else:
                self.arrays.append((-1 - used - np.arange(given.numel())).reshape(tuple(given.shape)))
                used += given.numel()

    def emit(self, name: str, cells: Array) -> Value:
        """Return the value whose entries are the given cells, in the file's shape; the batch must be its first axis."""
        graph = self._graph
        if graph.has_batch and (cells.ndim == 0 or cells.shape[0] != 1):
            raise ValueError(f"the result of shape {cells.shape} does not keep the batch as leading axis")
        if 0 in cells.shape:
            raise ValueError(f"its result of shape {cells.shape} is empty")
        present = cells >= 0
        owners = np.unique(np.searchsorted(self._starts, cells[present], side="right") - 1)
        x, index = self._joined(name, owners.tolist() or [0], cells)
        index = np.where(present, index, -1)
        size = math.prod(x.shape)
        if index.size == size and bool((index.reshape(-1) == np.arange(size)).all()):
            return graph.reshape(name, x, cells.shape)
        places = self._sample(index)
        return graph.emit(name, Gather(places, self._constant_of(cells)), x)

    def _sample(self, array: Array) -> Tensor:
        """Return a copy of an array without the axis of the batch."""
        return torch.from_numpy(np.array(array[0] if self._graph.has_batch else array, order="C"))

    def _joined(self, name: str, owners: list[int], cells: Array) -> tuple[Value, Array]:
        """Return one value that holds the cells of the values numbered, and where each cell lies in it."""
        values = list(self._values.values())
        if len(owners) == 1:
            return values[owners[0]], cells - self._starts[owners[0]]
        lead = (1,) if self._graph.has_batch else ()
        flat = [self._graph.reshape(f"{name}/flat", values[i], (*lead, math.prod(values[i].shape))) for i in owners]
        # Cells of values that nobody reads are left out: what follows them moves forward.
        moved = np.zeros(len(values), np.int64)
        moved[owners] = np.cumsum([0, *(math.prod(values[i].shape) for i in owners)])[:-1]
        owner = np.searchsorted(self._starts, cells, side="right") - 1
        index = cells - self._starts[owner] + moved[owner]
        return self._graph.concat(f"{name}/joined", flat, len(lead)), index

    def _constant_of(self, cells: Array) -> Tensor | None:
        """Return the constant of each cell, zero where it is none; one number if there is but one; None without any."""
        places = -1 - self._sample(cells)
        wanted = places >= 0
        if not bool(wanted.any()):
            return None
        numbers = self._constants[places[wanted]]
        if bool((numbers == numbers[0]).all()):
            return numbers[0].clone()
        return torch.zeros(places.shape, dtype=self._graph.dtype).masked_scatter(wanted, numbers)


def together(graph: GraphBuilder, claim: Callable[[int], None], name: str, values: Sequence[Value]) -> list[Value]:
    """Return the values repeated along axes of size 1, so that all have one shape. claim: is told bytes beforehand."""
    shape = reduce(np.broadcast_shapes, (value.shape for value in values))
    return [broadcast(graph, claim, name, value, shape) for value in values]


def broadcast(graph: GraphBuilder, claim: Callable[[int], None], name: str, x: Value, shape: Sequence[int]) -> Value:
    """Return x repeated along axes of size 1 to a shape of the file. claim: is told bytes beforehand."""
    if tuple(shape) == x.shape:
        return x
    check_rank(graph, x, len(shape))
    claim(CELL_BYTES * math.prod(shape))
    cells = Cells(graph, [x])
    return cells.emit(f"{name}/expanded", np.broadcast_to(cells.arrays[0], tuple(shape)))


def check_rank(graph: GraphBuilder, x: Value, rank: int) -> None:
    """Refuse a broadcast to axes in front of the batch."""
    if graph.has_batch and rank != len(x.shape):
        raise ValueError(f"a value of shape {x.shape} broadcast to {rank} axes does not keep the batch as leading axis")
