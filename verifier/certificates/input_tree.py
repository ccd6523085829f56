"""A box of inputs divided into boxes small enough that plain linear bounds prove each: a proof that stores no numbers.

Each split halves one side at a stored value, both halves closed, so that the leaves cover the box by the tree's form.
What a leaf is proved by follows from its box alone: every hinge takes the line below it that belongs to the longer side
of its own box (Zhang et al. 2018), and all of it is evaluated with every rounding bounded
(`verifier.certificates.split_program`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from encoders.box import Box
from encoders.network import Network
from verifier.certificates.error import CertificateError
from verifier.certificates.split_program import SplitProgram

LEAF = -1
# Bytes that one array of a batch of boxes may take.
PIECE_BYTES = 1 << 24


@dataclass(frozen=True, eq=False)
class InputTree:
    """The splits, first box first, the half below before the half above.

    sides: `(nodes,)` integers, which input is halved; -1 for a leaf. values: `(nodes,)` float64, where it is; of a leaf
    any number.
    """

    sides: np.ndarray
    values: np.ndarray

    @property
    def leaves(self) -> int:
        """How many boxes there are that no split divides."""
        return int((self.sides == LEAF).sum())

    def boxes(self, lower: np.ndarray, upper: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the ends `(leaves, inputs)` of the leaves that a box `(inputs,)` is divided into.

        CertificateError if the splits are no tree, or one lies outside the box that it is to halve.
        """
        if self.sides.shape != self.values.shape or 2 * self.leaves != len(self.sides) + 1:
            raise CertificateError("a tree of n leaves has n - 1 splits")
        leaves: list[tuple[np.ndarray, np.ndarray]] = []
        waiting = [(lower, upper)]
        for side, value in zip(self.sides.tolist(), self.values.tolist(), strict=True):
            if not waiting:
                raise CertificateError("there are splits after the end of the tree")
            least, greatest = waiting.pop()
            if side == LEAF:
                leaves.append((least, greatest))
                continue
            if not 0 <= side < len(lower) or not least[side] <= value <= greatest[side]:
                raise CertificateError(f"input {side} is split at {value!r}, outside its box")
            below, above = greatest.copy(), least.copy()
            below[side] = above[side] = value
            waiting += [(above, greatest), (least, below)]
        if waiting:
            raise CertificateError("the tree ends before its boxes do")
        ends = tuple(np.stack(part) for part in zip(*leaves, strict=True))
        return ends[0], ends[1]


def piece_size(network: Network) -> int:
    """Return how many boxes are bounded side by side."""
    widest = max(int(np.prod(shape)) for shape in network.shapes.values())
    return max(1, min(64, PIECE_BYTES // (16 * widest**2)))


def leaf_margins(
    network: Network, winner: int, lower: np.ndarray, upper: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return for boxes `(boxes, inputs)` lower bounds of the winner's margins over the others, proved.

    network: affine ops, hinges and max pools. Returns (bounds `(boxes, rivals)`, the costs `(boxes, rivals, inputs)` of
    the inputs in them, the greatest |margin| `(rivals,)` that boxes of outputs allow).
    """
    count = len(lower)
    box = Box(
        *(torch.from_numpy(np.ascontiguousarray(end)).reshape(count, *network.input_shape) for end in (lower, upper))
    )
    program = SplitProgram(network, box)
    while (name := program.advance()) is not None:
        program.tighten_open_units(name)
    outputs = network.output_shape[0]
    rows = -np.eye(outputs)[[k for k in range(outputs) if k != winner]]
    rows[:, winner] = 1.0
    of = np.repeat(np.arange(count), len(rows))
    output = program.network.output.name
    bounds, costs = program.sweep(output, np.tile(rows, (count, 1)), None, None, None, of)
    return bounds.reshape(count, -1), costs.reshape(count, len(rows), -1), np.abs(rows) @ program.reach(output)
