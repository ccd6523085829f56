"""The part of a program's rows that a few units of a node depend on: a unit of a convolution sees a window only.

Rows that are left out count with multiplier zero, so that what follows from the part follows from the whole.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import scipy

from verifier.certificates.sweep import Equations, HingeRows, ProgramRows, Sweep

# By node, places among its values.
Columns = dict[str, np.ndarray]
# Blocks of the matrix with a larger share of entries are stored dense: products with them are much faster then.
DENSE = 0.1


def stored(block: scipy.sparse.csr_array) -> np.ndarray | scipy.sparse.csr_array:
    """Return a block in the form in which products with it are faster."""
    return block.toarray() if block.nnz > DENSE * math.prod(block.shape) else block


def sub_program(program: ProgramRows, name: str, places: np.ndarray) -> tuple[ProgramRows, np.ndarray, Columns]:
    """Return (the rows on which some units of a node depend, the hinge units in them, the units of each node in them).

    places: `(k,)` in rising order, all of them among the node's units in the part. All are places among all units.
    """
    columns = {name: places}
    parts: dict[str, list[np.ndarray | scipy.sparse.csr_array]] = {}
    for block in reversed(program.blocks):
        own = columns.get(block.name)
        if own is None:
            continue
        if isinstance(block, HingeRows):
            read = [(block.source, own)]
        else:
            parts[block.name] = [weights[own] for _, weights in block.inputs]
            read = [(source, _columns(part)) for (source, _), part in zip(block.inputs, parts[block.name], strict=True)]
        for source, found in read:
            columns[source] = np.union1d(columns[source], found) if source in columns else found
    for block in program.blocks:
        # Of what a hinge reads others may read more; a hinge has a unit for each value there.
        if isinstance(block, HingeRows) and block.name in columns:
            columns[block.name] = columns[block.source]
    blocks: list[Equations | HingeRows] = []
    units: list[np.ndarray] = []
    count = 0
    for block in program.blocks:
        own = columns.get(block.name)
        if own is None:
            continue
        if isinstance(block, HingeRows):
            units.append(block.units.start + own)
            blocks.append(HingeRows(block.name, block.source, block.left, slice(count, count + len(own))))
            count += len(own)
        else:
            blocks.append(_rows(block, own, parts[block.name], columns))
    ends = {key: (low[:, own], high[:, own]) for key, own in columns.items() for low, high in [program.ends[key]]}
    reach = {key: program.reach[key][own] for key, own in columns.items()}
    places_of_units = np.concatenate(units) if units else np.zeros(0, dtype=np.int64)
    return ProgramRows(blocks, ends, reach, program.largest_sum), places_of_units, columns


def unit_bounds(
    whole: ProgramRows, name: str, boxes: np.ndarray, places: np.ndarray, slopes: np.ndarray | None
) -> np.ndarray:
    """Return lower bounds `(2 k,)` of units of boxes, given in pairs `(k,)`, then of their negatives."""
    program, units, columns = sub_program(whole, name, np.unique(places))
    at, count, each = np.searchsorted(columns[name], places), len(places), np.arange(len(places))
    rows = np.zeros((2 * count, len(columns[name])))
    rows[each, at], rows[each + count, at] = 1.0, -1.0
    own = None if slopes is None else slopes[:, units]
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        return Sweep(program, name, rows, None, own, None, np.concatenate([boxes, boxes])).bound()


def windows(shape: Sequence[int], places: np.ndarray) -> list[np.ndarray]:
    """Return the indices of places, `(k,)` in a flattened node of a shape, in groups that see small windows.

    Of a map these are the units of one position; of other shapes all are one group.
    """
    if len(shape) != 3:
        return [np.arange(len(places))]
    position = places % (shape[1] * shape[2])
    order = np.argsort(position, kind="stable")
    cuts = np.flatnonzero(np.diff(position[order])) + 1
    return [np.sort(group) for group in np.split(order, cuts)]


def _columns(rows: np.ndarray | scipy.sparse.csr_array) -> np.ndarray:
    """Return the columns in which rows have entries, in rising order."""
    if isinstance(rows, np.ndarray):
        return np.flatnonzero(rows.any(axis=0))
    has = np.zeros(rows.shape[1], dtype=bool)
    has[rows.indices] = True
    return np.flatnonzero(has)


def _rows(
    block: Equations, own: np.ndarray, parts: list[np.ndarray | scipy.sparse.csr_array], columns: dict[str, np.ndarray]
) -> Equations:
    """Return some rows of a block, of which `parts` are those of its matrices, over the columns that count."""
    inputs: list[tuple[str, np.ndarray | scipy.sparse.csr_array]] = []
    for (source, _), part in zip(block.inputs, parts, strict=True):
        kept = columns[source]
        if isinstance(part, np.ndarray):
            inputs.append((source, part[:, kept]))
            continue
        # Every entry lies in a column that is kept: its place there is all that changes.
        place = np.zeros(part.shape[1], dtype=part.indices.dtype)
        place[kept] = np.arange(len(kept))
        moved = scipy.sparse.csr_array((part.data, place[part.indices], part.indptr), shape=(len(own), len(kept)))
        inputs.append((source, stored(moved)))
    return Equations(
        block.name, tuple(inputs), block.divisor[own], block.lower[own], block.upper[own], block.size[own]
    )  # fmt: skip
