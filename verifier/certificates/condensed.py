"""Rows between the open units of hinges alone: the others, whose signs their boxes know, are part of affine maps.

What a node's units are, as affine functions of the input and of the open units before, follows by one way back through
all rows (`affine_rows`), each rounding bounded: an error widens the ends of the row. From then on a bound takes as many
columns as units are open, where the rows of a network of maps have ten times as many. The bounds are those of all rows
with the same numbers, but for rounding.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import scipy

from encoders.network import INPUT, Network
from verifier.certificates.dual_bound import TINY, U
from verifier.certificates.sub_program import stored, sub_program
from verifier.certificates.sweep import Ends, Equations, HingeRows, ProgramRows, Sweep

# Hinge units beyond which rows between the open ones are worth making.
MANY_UNITS = 2_000
# Entries of the rows of one node beyond which there are none: 128 MiB.
MOST_ENTRIES = 1 << 24


def worth_condensing(network: Network) -> bool:
    """Return whether a network has so many hinge units, and what these read, and the output, are affine ops' values."""
    hinges = [node for node in network.nodes if node.op.hinge_slope is not None]
    affine = {node.name for node in network.nodes if node.op.linear}
    read = {network.output.name, *(node.inputs[0] for node in hinges)}
    return read <= affine and sum(math.prod(network.shapes[node.name]) for node in hinges) > MANY_UNITS


class Condensed:
    """The rows of open units of the nodes of a program, each by all of that program's rows once.

    They hold wherever the boxes do that the program had then: a copy is for a program whose boxes lie within these.
    """

    def __init__(self) -> None:
        # By node: the units whose rows these are, and the rows, over the inputs and the open units of hinges before.
        self._rows: dict[str, tuple[np.ndarray, Equations]] = {}

    def __contains__(self, name: object) -> bool:
        return name in self._rows

    def copy(self) -> Condensed:
        """Return rows that may be added to apart."""
        made = Condensed()
        made._rows = dict(self._rows)
        return made

    def holds(self, name: str, rows: np.ndarray) -> bool:
        """Return whether a node has rows for all its units that count in some rows `(batch, values)` of it."""
        return name in self._rows and bool(np.count_nonzero(rows[:, self._rows[name][0]]) == np.count_nonzero(rows))

    def reaches(
        self,
        program: ProgramRows,
        name: str,
        places: np.ndarray | None,
        parts: Callable[[str, np.ndarray], Sequence[np.ndarray]],
    ) -> bool:
        """Take in the rows of units of a node and of all that hinges before it read; False where they are too large.

        places: `(k,)` of the node; None for those that its box leaves open, as of all other nodes. parts: of places,
        which are worked on side by side.
        """
        for key in dict.fromkeys([*(hinge.source for hinge in _hinges_before(program, name)), name]):
            lower, upper = program.ends[key]
            own = np.flatnonzero((lower < 0).any(axis=0) & (upper > 0).any(axis=0))
            own = own if key != name or places is None else places
            if key not in self._rows and not self._add(program, key, own, parts(key, own)):
                return False
        return True

    def _add(self, program: ProgramRows, name: str, places: np.ndarray, parts: Sequence[np.ndarray]) -> bool:
        """Take in the rows of units of a node; those of all that hinges before it read are in."""
        hinges = _hinges_before(program, name)
        kept = {hinge.name: self._rows[hinge.source][0] for hinge in hinges}
        widths = {INPUT: program.reach[INPUT].size, **{key: len(own) for key, own in kept.items()}}
        if len(places) * sum(widths.values()) > MOST_ENTRIES:
            return False
        weights = {key: np.zeros((len(places), width)) for key, width in widths.items()}
        ends = np.zeros((2, len(places)))
        for part in parts:
            order = part[np.argsort(places[part])]
            some, _, columns = sub_program(program, name, places[order])
            own = columns[name]
            rows = np.zeros((len(order), len(own)))
            rows[np.arange(len(order)), np.searchsorted(own, places[order])] = 1.0
            open_here = {key: np.isin(columns[key], kept[key]) for key in kept if key in columns}
            with np.errstate(over="ignore", invalid="ignore", under="ignore"):
                found, low, high = affine_rows(some, name, rows, open_here)
            ends[:, order] = -high, -low
            for key, share in found.items():
                if key == INPUT:
                    weights[key][order[:, None], columns[key]] = share
                else:
                    at = np.searchsorted(kept[key], columns[key][open_here[key]])
                    weights[key][order[:, None], at] = share[:, open_here[key]]
        size = program.reach[name][places].copy()
        for key, own_weights in weights.items():
            reach = program.reach[key] if key == INPUT else program.reach[key][kept[key]]
            size += np.abs(own_weights) @ reach
        size *= 1.0 + 2.0 * (sum(widths.values()) + 4) * U
        inputs = tuple((key, stored(scipy.sparse.csr_array(own))) for key, own in weights.items() if own.any())
        self._rows[name] = places, Equations(name, inputs, np.ones(len(places)), ends[0], ends[1], size)
        return True

    def program(self, whole: ProgramRows, name: str, asked: np.ndarray) -> tuple[ProgramRows, np.ndarray]:
        """Return the rows that a bound of a node takes, and the hinge units `(k,)` in them, by their places among all.

        asked: which of the node's rows. whole: whose ends are those that count, within the boxes that there were.
        """
        blocks: list[Equations | HingeRows] = []
        units, ends, reach = [np.zeros(0, dtype=np.int64)], dict[str, Ends](), dict[str, np.ndarray]()
        ends[INPUT], reach[INPUT] = whole.ends[INPUT], whole.reach[INPUT]

        def take(key: str, own: np.ndarray) -> None:
            low, high = whole.ends[key]
            ends[key], reach[key] = (low[:, own], high[:, own]), whole.reach[key][own]

        count = 0
        for hinge in _hinges_before(whole, name):
            places, rows = self._rows[hinge.source]
            if hinge.source not in ends:
                take(hinge.source, places)
                blocks.append(rows)
            take(hinge.name, places)
            blocks.append(HingeRows(hinge.name, hinge.source, hinge.left, slice(count, count + len(places))))
            units.append(hinge.units.start + places)
            count += len(places)
        places, rows = self._rows[name]
        take(name, places[asked])
        inputs = tuple((key, weights[asked]) for key, weights in rows.inputs)
        own = (values[asked] for values in (rows.divisor, rows.lower, rows.upper, rows.size))
        blocks.append(Equations(name, inputs, *own))
        # Each column has one entry in every equation at most, and three of its hinge.
        largest = sum(len(block.divisor) for block in blocks if isinstance(block, Equations)) + 4
        return ProgramRows(blocks, ends, reach, largest), np.concatenate(units)

    def sweep(
        self,
        whole: ProgramRows,
        name: str,
        rows: np.ndarray,
        signs: np.ndarray | None,
        slopes: np.ndarray | None,
        multipliers: np.ndarray | None,
        of: np.ndarray | None,
    ) -> Sweep:
        """Return the way back of rows `(batch, values)` of a node that has rows, zero for all other units of it."""
        rows = rows[:, self._rows[name][0]]
        asked = np.flatnonzero(rows.any(axis=0))
        program, units = self.program(whole, name, asked)
        signs, slopes, multipliers = (
            None if values is None else values[:, units] for values in (signs, slopes, multipliers)
        )
        return Sweep(program, name, rows[:, asked], signs, slopes, multipliers, of)


def affine_rows(
    program: ProgramRows, name: str, rows: np.ndarray, kept: Mapping[str, np.ndarray]
) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """Return (costs by node, low, high): rows of a node lie between the costs' sum plus low and that plus high.

    rows: `(batch, values)`. kept: by hinge, a mask `(units,)` of those that have costs, beside the input; what all
    others read has a sign that every box knows. Wherever the boxes hold, in real arithmetic: the way back and the bound
    of its errors are those of `verifier.certificates.sweep`, which has no line for an open unit here.
    """
    way = _WayBack(program, name, rows)
    for block in reversed(program.blocks):
        if block.name in way.reduced:
            if isinstance(block, HingeRows):
                way.pass_hinge(block, kept[block.name])
            else:
                way.pass_equations(block)
    return way.ended(kept)


class _WayBack:
    """The costs on the way back, with sums of what constants add at least and at most, and of sizes for errors."""

    def __init__(self, program: ProgramRows, name: str, rows: np.ndarray) -> None:
        self.program = program
        self.reduced = {name: rows}
        self.low, self.high, self.total_size = np.zeros((3, len(rows)))
        self.size = np.abs(rows) @ program.reach[name]
        self.summed = 0

    def pass_equations(self, block: Equations) -> None:
        m = -self.reduced[block.name] / block.divisor
        self._add(m * block.lower, m * block.upper)
        self.size = self.size + np.abs(m) @ block.size
        self._take(block.name, -m * block.divisor)
        for name, weights in block.inputs:
            self._take(name, m @ weights if isinstance(weights, np.ndarray) else (weights.T @ m.T).T)

    def pass_hinge(self, block: HingeRows, kept: np.ndarray) -> None:
        """Take what known units cost to what they read: each is one of its two sides, an equation."""
        low, high = self.program.ends[block.source]
        is_right, is_left = (low >= 0).all(axis=0), (high <= 0).all(axis=0)
        assert (is_right | is_left | kept).all(), "a unit that is left out is open"
        slope = np.where(kept, 0.0, np.where(is_right, 1.0, block.left))
        cost = self.reduced[block.name]
        passed = np.where(kept, 0.0, cost)
        self.reduced[block.name] = np.where(kept, cost, 0.0)
        reach_x, reach_y = self.program.reach[block.source], self.program.reach[block.name]
        self.size = self.size + 2.0 * (np.abs(passed) @ (np.abs(slope) * reach_x + reach_y))
        self._take(block.source, -passed * slope)

    def ended(self, kept: Mapping[str, np.ndarray]) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
        """Return the costs that are kept, and the ends of all else."""
        costs = {}
        for name, reduced in self.reduced.items():
            if name == INPUT or name in kept:
                costs[name] = reduced
                continue
            # What rounding left of the costs of equations.
            low, high = self.program.ends[name]
            self._add(reduced * low.min(axis=0), reduced * high.max(axis=0))
        program = self.program
        gamma = 2.0 * (program.largest_sum + 8) * U
        error = self.total_size * (2.0 * (self.summed + 16) * U) + self.size * (gamma * (1.0 + 64.0 * self.summed * U))
        error += (
            (self.summed + 16) * 16.0 * TINY * (1.0 + sum(float(program.reach[name].sum()) for name in self.reduced))
        )
        error *= 1.0 + 8.0 * U
        return costs, np.nextafter(self.low - error, -np.inf), np.nextafter(self.high + error, np.inf)

    def _add(self, at_low: np.ndarray, at_high: np.ndarray) -> None:
        """Add `(batch, k)` terms at both ends of what they are multiples of."""
        least, greatest = np.minimum(at_low, at_high), np.maximum(at_low, at_high)
        self.low, self.high = self.low + least.sum(axis=1), self.high + greatest.sum(axis=1)
        self.total_size = self.total_size + np.maximum(np.abs(least), np.abs(greatest)).sum(axis=1)
        self.summed += at_low.shape[1] + 2

    def _take(self, name: str, share: np.ndarray) -> None:
        self.reduced[name] = self.reduced[name] - share if name in self.reduced else -share


def _hinges_before(program: ProgramRows, name: str) -> list[HingeRows]:
    """Return the hinges whose values a node may depend on: those that come before it."""
    found = list[HingeRows]()
    for block in program.blocks:
        if block.name == name:
            break
        if isinstance(block, HingeRows):
            found.append(block)
    return found
