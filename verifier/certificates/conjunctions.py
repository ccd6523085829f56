"""Rows over the outputs, some of which must all be met for a point to be unsafe.

A row c y - d is met where it is at most zero. A group of rows is a polyhedron of the unsafe set, or asks of one rival.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from encoders.network import Network
from encoders.property import Halfspaces
from verifier.batch import Batch


@dataclass(frozen=True, eq=False)
class Conjunctions:
    """The unsafe points of a network: those where all rows of a group are met.

    coefficients: `(rows, *output_shape)` float64; offsets: `(rows,)`, d. groups: the rows of each group, one after the
    other.
    """

    network: Network
    coefficients: Tensor
    offsets: Tensor
    groups: tuple[slice, ...]

    @classmethod
    def of_class(cls, network: Network, winner: int) -> Conjunctions:
        """Return those of the question whether a class is strictly above every other: one row for each rival."""
        outputs = network.output_shape[0]
        rivals = [k for k in range(outputs) if k != winner]
        rows = -torch.eye(outputs, dtype=torch.float64)[rivals]
        rows[:, winner] = 1.0
        groups = tuple(slice(k, k + 1) for k in range(len(rivals)))
        return cls(network, rows, torch.zeros(len(rivals), dtype=torch.float64), groups)

    @classmethod
    def of_polyhedra(cls, network: Network, unsafe: tuple[Halfspaces, ...]) -> Conjunctions:
        """Return those of a property: a group for each polyhedron."""
        ends = torch.tensor([len(halfspaces.offsets) for halfspaces in unsafe]).cumsum(0).tolist()
        groups = tuple(slice(start, end) for start, end in zip([0, *ends], ends, strict=False))
        rows = torch.cat([halfspaces.coefficients for halfspaces in unsafe])
        offsets = torch.cat([halfspaces.offsets for halfspaces in unsafe])
        return cls(network, rows.reshape(-1, *network.output_shape), offsets, groups)

    @classmethod
    def of_batch(cls, one: Batch) -> Conjunctions:
        """Return what is unsafe for the one input of a batch, row by row where it is known that way; in float64."""
        device = torch.device("cpu")
        if one.conjunctions is not None:
            network, unsafe = one.conjunctions
            return cls.of_polyhedra(network.cast(torch.float64, device), unsafe)
        return cls.of_class(one.subject.network.cast(torch.float64, device), int(one.classes[0]))

    def excess(self, points: Tensor) -> Tensor:
        """Return for points `(count, *input_shape)` by how much the nearest group fails to be met, in floats.

        At most zero where a point is unsafe.
        """
        rows = self.network.evaluate(points).to(torch.float64).flatten(1) @ self.coefficients.flatten(1).T
        return self.worst(rows - self.offsets).amin(dim=1)

    def worst(self, rows: Tensor) -> Tensor:
        """Return the greatest value `(batch, groups)` of each group's rows `(batch, rows)`."""
        return torch.stack([rows[:, group].amax(dim=1) for group in self.groups], dim=1)
