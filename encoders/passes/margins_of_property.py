"""A question about outputs as one about classes: unsafe sets become rivals of a class whose value is zero.

Of polyhedra C_j y <= d_j the new network gives (0, -z_1, ..., -z_K), z_j the greatest of the rows C_j y - d_j. An
output y lies in polyhedron j exactly if z_j <= 0, so in none exactly if class 0 is strictly above all others; on the
edge of a polyhedron there is a tie, which counts as unsafe for classes and for (closed) polyhedra alike. So whatever
decides classes on a region decides the property on it. Several rows are a max pool, which linear bounds keep at least
as tight as the best single row: the function below it is the row of the greatest lower bound.

Equal in real arithmetic: coefficients and offsets are stored in float64, whatever the dtype of the network, since a
cast to float64 keeps them; casts to smaller dtypes guide searches and prove nothing. The rows are multiplied into an
affine last op where float64 holds every product exactly, so that intervals do not forget what outputs share; the
offsets are added behind it where their sum would be rounded.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import count

import numpy as np
import torch
from torch import Tensor

from encoders.network import Network, Node
from encoders.ops import AddConstant, Affine, Concat, MaxPool2d, Op, Reshape
from encoders.property import Halfspaces
from encoders.rationals import Rationals, product

# Entries of a product of rows and weights that are looked at in exact arithmetic: a second of one core.
MOST_ENTRIES = 500_000


def ordered(unsafe: Sequence[Halfspaces]) -> list[Halfspaces]:
    """Return the polyhedra in the order of the classes 1 to K: those of few rows first."""
    return sorted(unsafe, key=lambda halfspaces: len(halfspaces.offsets))


def margins_of_property(network: Network, unsafe: Sequence[Halfspaces]) -> Network:
    """Return the network of (0, -z_1, ..., -z_K), of the polyhedra in the order of `ordered`.

    Raises ValueError without a polyhedron, or where one is about another number of outputs.
    """
    outputs = math.prod(network.output_shape)
    if not unsafe or any(halfspaces.outputs != outputs for halfspaces in unsafe):
        asked = sorted({halfspaces.outputs for halfspaces in unsafe}) or "no polyhedron at all"
        raise ValueError(f"{network.source} has {outputs} outputs, the property is about {asked}")
    return _Margins(network, ordered(unsafe)).network()


class _Margins:
    """The nodes that are put behind a network."""

    def __init__(self, network: Network, unsafe: Sequence[Halfspaces]) -> None:
        self._network, self._unsafe = network, unsafe
        self._nodes = list(network.nodes)
        taken = {node.name for node in network.nodes}
        self._names = (name for i in count() if (name := f"property-{i}") not in taken)

    def network(self) -> Network:
        """Return the network with the margins as outputs."""
        sizes = [len(halfspaces.offsets) for halfspaces in self._unsafe]
        zero = torch.zeros(1, self._unsafe[0].outputs, dtype=torch.float64)
        if max(sizes) == 1:
            # -z_j = d_j - c_j y, and 0 = 0 y - 0: one affine op. Signs are exact.
            self._rows(torch.cat([zero, -self._coefficients(1)]), torch.cat([zero[:, 0], self._offsets(1)]))
        else:
            value = self._flat()
            parts = [self._greatest(value, size) for size in sorted(set(sizes))]
            joined = parts[0]
            for part in parts[1:]:
                joined = self._push(Concat(0), joined, part)
            signs = torch.cat([torch.zeros(1, len(sizes)), -torch.eye(len(sizes))]).to(torch.float64)
            self._push(Affine(signs), joined)
        network = self._network
        return Network(tuple(self._read()), network.input_shape, network.dtype, network.source)

    def _read(self) -> list[Node]:
        """Return the nodes that the last one reads, itself and others in between: a merged last op is gone."""
        read = {self._nodes[-1].name}
        for node in reversed(self._nodes):
            if node.name in read:
                read.update(node.inputs)
        return [node for node in self._nodes if node.name in read]

    def _greatest(self, value: str, size: int) -> str:
        """Return the node of z_j for the polyhedra of so many rows."""
        groups = sum(len(halfspaces.offsets) == size for halfspaces in self._unsafe)
        rows = self._rows(self._coefficients(size), -self._offsets(size), value)
        if size == 1:
            return rows
        windows = self._push(Reshape((groups, size, 1)), rows)
        return self._push(Reshape((groups,)), self._push(MaxPool2d((size, 1), (1, 1)), windows))

    def _coefficients(self, size: int) -> Tensor:
        """Return C `(rows, outputs)` of all polyhedra of so many rows, one after the other."""
        return torch.cat([halfspaces.coefficients for halfspaces in self._unsafe if len(halfspaces.offsets) == size])

    def _offsets(self, size: int) -> Tensor:
        """Return d `(rows,)` of all polyhedra of so many rows."""
        return torch.cat([halfspaces.offsets for halfspaces in self._unsafe if len(halfspaces.offsets) == size])

    def _rows(self, coefficients: Tensor, offsets: Tensor, value: str = "") -> str:
        """Return the node of C y + offsets, y the network's output; value: the node of y, flat, if it has one."""
        last = self._network.output
        merged = _merged(self._network, coefficients, offsets)
        if merged is not None:
            return self._push(merged, *last.inputs)
        merged = _merged(self._network, coefficients, torch.zeros_like(offsets))
        if merged is not None:
            return self._push(AddConstant(offsets), self._push(merged, *last.inputs))
        return self._push(Affine(coefficients, offsets), value or self._flat())

    def _flat(self) -> str:
        """Return the node of the network's output as a vector."""
        shape = self._network.output_shape
        name = self._network.output.name
        return name if len(shape) == 1 else self._push(Reshape((math.prod(shape),)), name)

    def _push(self, op: Op, *inputs: str) -> str:
        name = next(self._names)
        self._nodes.append(Node(name, op, inputs))
        return name


def _merged(network: Network, coefficients: Tensor, offsets: Tensor) -> Affine | None:
    """Return C (W x + b) + offsets as one op where the last op is W x + b on a vector and float64 rounds nothing."""
    last = network.output
    units = torch.arange(coefficients.shape[1])[None]
    stored = last.op.unit_rows(units) if last.op.linear and len(network.shapes[last.inputs[0]]) == 1 else None
    if stored is None or len(coefficients) * stored[0].shape[-1] > MOST_ENTRIES:
        return None
    weight = stored[0][0].detach().to("cpu", torch.float64)
    bias = torch.zeros(len(weight)) if stored[1] is None else stored[1][0].detach().to("cpu")
    whole = torch.cat([weight, bias.to(torch.float64)[:, None]], dim=1)
    shift = torch.zeros(len(offsets), whole.shape[1], dtype=torch.float64)
    shift[:, -1] = offsets
    try:
        exact = product(Rationals.of(coefficients), whole.T.contiguous(), lambda _: None) + Rationals.of(shift)
        values = torch.tensor([float(value) for value in exact.values()], dtype=torch.float64).reshape(exact.shape)
    except ArithmeticError:
        # Too large for a float, or too many bits.
        return None
    return Affine(values[:, :-1].contiguous(), values[:, -1].contiguous()) if _equal(exact, values) else None


def _equal(exact: Rationals, values: Tensor) -> bool:
    """Return whether floats are these numbers."""
    held = Rationals.of(values)
    return bool(np.all(exact.numerators * held.denominator == held.numerators * exact.denominator))
