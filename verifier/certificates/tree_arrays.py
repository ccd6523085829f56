"""The trees of a certificate as arrays of its file, and back."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from verifier.certificates.packed import Reader, narrow, pack, unpack
from verifier.certificates.plane_arrays import read_set_points
from verifier.certificates.sign_tree import SplitTree
from verifier.certificates.unit_trees import UnitTrees

# Fields of trees of units that are kept as they are.
TREE_VECTORS = ("places", "ends", "columns", "splits")


def unit_tree_arrays(trees: UnitTrees) -> dict[str, np.ndarray]:
    """Return the arrays of trees of the units of one node; `read_unit_trees` gives the same trees."""
    vectors = {name: narrow(getattr(trees, name)) for name in TREE_VECTORS}
    return vectors | pack(trees.slopes, trees.multipliers)


def read_unit_trees(names: list[str], arrays: Mapping[str, np.ndarray]) -> tuple[UnitTrees, ...]:
    """Return the trees of units of several nodes."""
    made = []
    for number, name in enumerate(names):
        prefix = f"unit_trees.{number}."
        own = {key.removeprefix(prefix): values for key, values in arrays.items() if key.startswith(prefix)}
        slopes, multipliers = unpack(own)
        vectors = {key: own[key] for key in TREE_VECTORS}
        made.append(UnitTrees(name=name, slopes=slopes, multipliers=multipliers, **vectors))
    return tuple(made)


def read_split_trees(
    rows: list[list[int]], arrays: Mapping[str, np.ndarray], has_subtrees: bool
) -> tuple[SplitTree, ...]:
    """Return the trees of all rivals; rows: of each its rival, and how many leaves and sets of numbers it has."""
    splits, sets = Reader(arrays["splits"]), Reader(arrays["sets"])
    slopes, multipliers = map(Reader, unpack(arrays))
    boxes, points = Reader(arrays["subtrees.leaves"]) if has_subtrees else None, read_set_points(arrays)
    places, trees = Reader(np.arange(0 if points is None else len(points))), list[SplitTree]()
    for rival, leaves, count in rows:
        trees.append(
            SplitTree(
                rival,
                splits.take(2 * leaves - 1),
                slopes.take(count),
                multipliers.take(count),
                sets.take(leaves),
                None if boxes is None else boxes.take(leaves),
                None if points is None else points[places.take(count)],
            )
        )
    readers = (splits, sets, slopes, multipliers, places, *(() if boxes is None else (boxes,)))
    if not all(reader.done for reader in readers):
        raise ValueError("it holds more numbers than its trees take")
    return tuple(trees)
