"""Trees that divide a ball until contraction leaves nothing of any part: proofs about chains of distances.

Against each rival the ball is split at inputs, at outputs of units, or at the threshold between the two classes; both
halves of a split are closed, so that they cover the ball by the tree's form. Every part is contracted by as many passes
as the tree says (`verifier.certificates.distance_bounds`), and a leaf must be empty then. What intervals prove is a
tree of one leaf. Nothing is stored but splits and passes: what they lead to is computed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from encoders.network import Network
from verifier.certificates.distance_bounds import DistanceBounds, DistanceParts
from verifier.certificates.distance_chain import chain_refusal, dense_layers
from verifier.certificates.error import CertificateError
from verifier.certificates.packed import narrow
from verifier.certificates.sign_tree import LEAF, leaves_below
from verifier.certificates.waiting_parts import taken

# Weights of one layer, written out as a dense one, beyond which no certificate is made or checked.
MOST_WEIGHTS = 1 << 22


@dataclass(frozen=True, eq=False)
class DistanceTree:
    """The splits against one rival in preorder, the part below first.

    sides: `(nodes,)` integers, the value that is split, of inputs, then of outputs of all layers but the last, then
    tau; -1 for a leaf. values: `(nodes,)` float64, where; of a leaf any number. passes: `(nodes,)`, 1 to 255.
    """

    rival: int
    sides: np.ndarray
    values: np.ndarray
    passes: np.ndarray

    @property
    def leaves(self) -> int:
        """How many parts no split divides."""
        return int((self.sides == LEAF).sum())


def stored_trees(trees: Sequence[DistanceTree]) -> dict[str, np.ndarray]:
    """Return the arrays of a file that hold trees one after the other; `read_trees` gives the same trees."""
    joined = {name: np.concatenate([getattr(tree, name) for tree in trees]) for name in ("sides", "values", "passes")}
    sides, passes = narrow(joined["sides"], (np.int8, np.int16, np.int32)), joined["passes"].astype(np.uint8)
    return {"distances.sides": sides, "distances.values": joined["values"], "distances.passes": passes}


def read_trees(rows: Sequence[tuple[int, int]], arrays: Mapping[str, np.ndarray]) -> tuple[DistanceTree, ...]:
    """Return trees from [rival, nodes] of each; ValueError where the arrays do not hold so many nodes."""
    parts = [arrays[f"distances.{name}"] for name in ("sides", "values", "passes")]
    counts = [int(nodes) for _, nodes in rows]
    if any(part.shape != (sum(counts),) for part in parts) or min(counts, default=0) < 1:
        raise ValueError(f"its trees name {sum(counts)} nodes, its arrays hold {[len(part) for part in parts]}")
    ends = np.cumsum([0, *counts])
    spans = [slice(start, end) for start, end in pairwise(ends)]
    return tuple(
        DistanceTree(int(rival), *(part[span] for part in parts)) for (rival, _), span in zip(rows, spans, strict=True)
    )


def distance_refusal(network: Network) -> str | None:
    """Return why a network is no chain of distances about which there are certificates; None if it is."""
    refusal = chain_refusal(network, "contraction")
    if refusal is not None:
        return refusal
    for node in network.nodes:
        size = math.prod(network.shapes[node.inputs[0]]) * math.prod(network.shapes[node.name])
        if node.op.measures_distances and size > MOST_WEIGHTS:
            return (
                f"node {node.name!r} ({node.op.kind}) as a dense layer has {size:,} weights, more than {MOST_WEIGHTS:,}"
            )
    return None


def check_distance_trees(
    trees: Sequence[DistanceTree], network: Network, winner: int, lower: Tensor, upper: Tensor
) -> None:
    """Raise CertificateError unless every leaf of every tree over a box `(1, inputs)` is empty, against each rival."""
    refusal = distance_refusal(network)
    if refusal is not None:
        raise CertificateError(refusal)
    rivals = sorted(tree.rival for tree in trees)
    if rivals != [k for k in range(network.output_shape[0]) if k != winner]:
        raise CertificateError(f"it holds trees against the classes {rivals}, not against each but {winner}")
    layers = dense_layers(network, "contraction")
    for tree in trees:
        _check_tree(tree, DistanceBounds(layers, winner, tree.rival), lower, upper)


def _check_tree(tree: DistanceTree, bounds: DistanceBounds, lower: Tensor, upper: Tensor) -> None:
    _check_numbers(tree, bounds.values)
    below = np.array(leaves_below(tree.sides), dtype=np.int64)
    # Behind a node stand the nodes of its part below, 2 leaves - 1, then its part above.
    second = torch.from_numpy(np.arange(len(below)) + 2 * np.append(below[1:], 0))
    sides, values = torch.from_numpy(tree.sides.astype(np.int64)), torch.from_numpy(tree.values)
    passes = torch.from_numpy(tree.passes.astype(np.int64))
    waiting = [bounds.root(lower, upper)]
    while waiting:
        parts = taken(waiting, bounds.batch)
        parts = _after(bounds, parts, passes[parts.nodes])
        leaf = sides[parts.nodes] == LEAF
        if bool(leaf.any()):
            number = int((tree.sides[: int(parts.nodes[leaf][0])] == LEAF).sum())
            raise CertificateError(f"class {tree.rival}, leaf {number}: contraction leaves points where it may win")
        if len(parts):
            nodes = torch.stack([parts.nodes + 1, second[parts.nodes]], dim=1)
            waiting.append(parts.halves(sides[parts.nodes], values[parts.nodes], nodes))


def _after(bounds: DistanceBounds, parts: DistanceParts, passes: Tensor) -> DistanceParts:
    """Return what is left of parts after so many passes each, `(parts,)`, without those that are empty."""
    done = list[DistanceParts]()
    while len(parts):
        parts, empty = bounds.contracted(parts)
        passes = passes - 1
        ends = ~empty & (passes == 0)
        done.append(parts[ends])
        goes_on = ~empty & (passes > 0)
        parts, passes = parts[goes_on], passes[goes_on]
    return DistanceParts.joined(done)


def _check_numbers(tree: DistanceTree, values: int) -> None:
    """Raise CertificateError unless a tree's arrays go together and name what there is."""
    if not tree.sides.shape == tree.values.shape == tree.passes.shape or tree.sides.ndim != 1:
        raise CertificateError(f"class {tree.rival}: a tree has a side, a value and passes for each node")
    if tree.sides.dtype.kind not in "iu" or tree.passes.dtype.kind not in "iu" or tree.values.dtype != np.float64:
        raise CertificateError(f"class {tree.rival}: sides and passes are integers, values numbers of float64")
    split = tree.sides != LEAF
    if (tree.sides[split] < 0).any() or (tree.sides[split] > values).any():
        raise CertificateError(f"class {tree.rival}: a split is of none of {values} values, nor of the threshold")
    if not np.isfinite(tree.values[split]).all():
        raise CertificateError(f"class {tree.rival}: a split is at no finite number")
    if not len(tree.passes) or tree.passes.min() < 1 or tree.passes.max() > 255:
        raise CertificateError(f"class {tree.rival}: a part is contracted by 1 to 255 passes")
