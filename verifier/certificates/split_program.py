"""Lower bounds of a network of affine ops and hinges on a subproblem of a box, from multipliers that nobody need trust.

A hinge y = max(x, left x) with x in [l, u] obeys three rows: x - y <= 0, left x - y <= 0 and, with the line s x + t
through its ends, s x - y >= -t (Ehlers 2017); the other ops are equations, max pools are written as relus. For any
multipliers m of the right signs, min c >= sum_i m_i e_i + sum_j min over the column's bounds of (c - A^T m)_j x_j
(Neumaier, Shcherbina 2004). Two numbers a hinge unit name all of them: its slope in [0, 1] shares a positive
coefficient between the first two rows, its multiplier is what is left on x for the bounds of x to hold. Whatever they
are, the result is proved in real arithmetic: every rounding is bounded here. Subproblems are given by signs: +1 splits
off x >= 0, -1 x <= 0, 0 leaves x in its box.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
import torch

from encoders.box import Box
from encoders.network import INPUT, Network, Node
from encoders.passes import expand_max_pools
from encoders.rounding import check_gradual_underflow
from verifier.certificates.condensed import Condensed, worth_condensing
from verifier.certificates.equations import equations
from verifier.certificates.sub_program import unit_bounds, windows
from verifier.certificates.sweep import Ends, Equations, HingeRows, Planes, ProgramRows, Sweep

# Numbers that one array over all columns may hold while units are bounded side by side: 32 MiB.
PART_ENTRIES = 1 << 22
ENDS = ("lower", "upper")
# Signs, slopes, multipliers, and which box each row is about.
Numbers = tuple[np.ndarray | None, np.ndarray | None, np.ndarray | None, np.ndarray | None]


def split_refusal(network: Network) -> Node | None:
    """Return the first node that is neither affine nor a hinge nor a max pool, which is a tree of hinges; or None."""
    for node in network.nodes:
        if not node.op.linear and node.op.hinge_slope is None and not node.op.maximum:
            return node
    return None


class SplitProgram:
    """The rows of a network on boxes, node by node, and the bounds that follow from them (float64, outward).

    network: affine ops, hinges and max pools, any graph; box: one, or several, for each of which all is proved.
    `advance` goes on to the next node that a hinge reads, whose boxes may then be tightened; those of later nodes
    follow from them. boxes: of the nodes so far. units: how many there are in all hinges so far. Raises ValueError
    naming a node of another kind.
    """

    def __init__(self, network: Network, box: Box) -> None:
        other = split_refusal(network)
        if other is not None:
            raise ValueError(f"node {other.name!r} ({other.op.kind}) is neither affine nor a hinge nor a max pool")
        check_gradual_underflow()
        self.network = expand_max_pools(network).cast(torch.float64, torch.device("cpu"))
        self.boxes: dict[str, Box] = {INPUT: Box.unchecked(box.lower.cpu(), box.upper.cpu())}
        self.hinges: list[HingeRows] = []
        self.units = 0
        # By box, the signs `(boxes, units)` under which alone its ends hold; None: everywhere in its box of the input.
        self.signs: np.ndarray | None = None
        # Rows between open units, where these are worth making and not too large.
        self._condensed = Condensed() if worth_condensing(self.network) else None
        self._blocks: list[Equations | HingeRows] = []
        self._entries: dict[str, np.ndarray] = {INPUT: np.zeros(box.lower[0].numel(), dtype=np.int64)}
        self._left = list(self.network.nodes)
        self._sources = {node.inputs[0] for node in self._left if node.op.hinge_slope is not None}

    def advance(self) -> str | None:
        """Take in nodes up to the next one that a hinge reads and return its name; None once all are in."""
        while self._left:
            node = self._left.pop(0)
            self.boxes[node.name] = node.op.interval(*(self.boxes[name] for name in node.inputs))
            self._entries[node.name] = np.zeros(self.boxes[node.name].lower[0].numel(), dtype=np.int64)
            left = node.op.hinge_slope
            self._blocks.append(self._equations(node) if left is None else self._hinge(node, left))
            if node.name in self._sources:
                return node.name
        return None

    def open_units(self, name: str) -> np.ndarray:
        """Return the places of a node's flattened units whose sign its box leaves open."""
        lower, upper = self.ends(name)
        return np.flatnonzero(((lower < 0) & (upper > 0))[0])

    def tighten(self, name: str, places: np.ndarray, slopes: np.ndarray) -> None:
        """Meet the one box of the node just taken in with bounds of some of its units.

        places: `(k,)`; slopes: `(2 k, units)`, those of the bounds of the units, then of their negatives.
        """
        self._tighten(name, np.zeros(len(places), dtype=np.int64), places, slopes)

    def tighten_open_units(self, name: str) -> None:
        """Meet the boxes of the node just taken in with bounds of the units whose sign each of them leaves open.

        Every hinge unit takes the side of its box that is longer, so that the bounds need no numbers.
        """
        lower, upper = self.ends(name)
        boxes, places = np.nonzero((lower < 0) & (upper > 0))
        if self.units and len(boxes):
            self._tighten(name, boxes, places, None)

    def _tighten(self, name: str, boxes: np.ndarray, places: np.ndarray, slopes: np.ndarray | None) -> None:
        """Bound units of boxes, given in pairs `(k,)`, and then their negatives."""
        lower, upper = (end.copy() for end in self.ends(name))
        program = self.rows()
        for part in self._parts(name, places):
            own = None if slopes is None else slopes[np.concatenate([part, part + len(places)])]
            bounds = unit_bounds(program, name, boxes[part], places[part], own)
            at, count = (boxes[part], places[part]), len(part)
            lower[at] = np.maximum(lower[at], bounds[:count])
            upper[at] = np.minimum(upper[at], -bounds[count:])
        shape = self.boxes[name].lower.shape
        self.boxes[name] = Box(torch.from_numpy(lower).reshape(shape), torch.from_numpy(upper).reshape(shape))

    def _parts(self, name: str, places: np.ndarray) -> list[np.ndarray]:
        """Return the indices of places in parts that are bounded side by side: by windows where that is less work."""
        columns = sum(len(entries) for entries in self._entries.values())
        most = max(1, PART_ENTRIES // (2 * columns))
        groups = [np.arange(len(places))] if len(places) <= most else windows(self.boxes[name].shape, places)
        return [part for group in groups for part in np.split(group, range(most, len(group), most))]

    def bounds(
        self,
        name: str,
        rows: np.ndarray,
        signs: np.ndarray | None,
        slopes: np.ndarray | None,
        multipliers: np.ndarray | None,
        of: np.ndarray | None = None,
        planes: Planes | None = None,
    ) -> np.ndarray:
        """Return lower bounds `(batch,)` of rows of a node's value on subproblems; -inf where they overflow.

        rows: `(batch, values)`; signs, slopes, multipliers: `(batch, units)`. One that is empty may get any
        number. of: `(batch,)`, which box each row is about; left out it is the first where boxes hold under signs, and
        may be where there is one. planes: above units of a hinge.
        """
        return self.sweep(name, rows, signs, slopes, multipliers, of, planes)[0]

    def sweep(
        self,
        name: str,
        rows: np.ndarray,
        signs: np.ndarray | None,
        slopes: np.ndarray | None,
        multipliers: np.ndarray | None,
        of: np.ndarray | None = None,
        planes: Planes | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the bounds, and the costs `(batch, inputs)` with which the input counts in them."""
        if of is None and self.signs is not None:
            # Several boxes side by side would be taken for those of the rows, whatever signs these have.
            of = np.zeros(len(rows), dtype=np.int64)
        with np.errstate(over="ignore", invalid="ignore", under="ignore"):
            done = self._way_back(name, rows, (signs, slopes, multipliers, of), planes)
            bounds = done.bound()
        if self.signs is not None and of is not None:
            needed = self.signs[of]
            given = np.zeros_like(needed) if signs is None else signs
            bounds = np.where(((needed == 0) | (needed == given)).all(axis=1), bounds, -np.inf)
        inputs = self._entries[INPUT]
        return bounds, done.reduced.get(INPUT, np.zeros((len(rows), len(inputs))))

    def condense(self, name: str) -> None:
        """Make rows between open units for a node and all that hinges before it read, where these spare much.

        For a node of which many bounds are asked, and whose box is about to be tightened.
        """
        if self._condensed is not None:
            places = np.arange(self.reach(name).size) if name == self.network.output.name else None
            if not self._condensed.reaches(self.rows(), name, places, self._parts):
                self._condensed = None

    def _way_back(self, name: str, rows: np.ndarray, numbers: Numbers, planes: Planes | None) -> Sweep:
        """Return the way back of rows of a node, by rows between open units where there are any for all of them."""
        last = self.hinges[-1].source if name == self.network.output.name and self.hinges else None
        if self._condensed is not None and last in self._condensed and name not in self._condensed:
            self.condense(name)
        if self._condensed is not None and planes is None and self._condensed.holds(name, rows):
            return self._condensed.sweep(self.rows(), name, rows, *numbers)
        return Sweep(self.rows(), name, rows, *numbers, planes)

    # ---------------------------------------------------------------------------------------------- boxes under signs

    def unit_ends(self, units: np.ndarray) -> Ends:
        """Return the ends `(boxes, k)` of what some units `(k,)` of all hinge units read."""
        ends = [self.ends(hinge.source) for hinge in self.hinges]
        lower, upper = (np.concatenate([end[i] for end in ends], axis=1)[:, units] for i in range(2))
        return lower, upper

    def on_box(self, box: int) -> SplitProgram:
        """Return a program of the same rows on one of the boxes; all nodes must be in.

        What it proves holds under the signs under which that box does: its caller answers for these.
        """
        made = self._copy()
        made.signs = None
        made.boxes = {name: Box.unchecked(at.lower[[box]], at.upper[[box]]) for name, at in self.boxes.items()}
        return made

    def under(self, signs: np.ndarray) -> SplitProgram:
        """Return the program on its one box, cut to where the units have given signs `(units,)`, as of `on_box`."""
        made = self.on_box(0)
        for hinge in made.hinges:
            lower, upper = made.ends(hinge.source)
            own = signs[hinge.units]
            made.meet(hinge.source, np.where(own > 0, 0.0, lower), np.where(own < 0, 0.0, upper))
        return made

    def narrow(self, hinge: HingeRows, places: np.ndarray, slopes: np.ndarray, multipliers: np.ndarray) -> None:
        """Meet the one box of what a hinge reads with bounds of some units there, of a program that `under` returned.

        places: `(k,)`, all different; slopes, multipliers: `(2 k, units)`, those of the bounds of the units, then of
        their negatives.
        """
        lower, upper = (end.copy() for end in self.ends(hinge.source))
        count, each = len(places), np.arange(len(places))
        rows = np.zeros((2 * count, lower.shape[1]))
        rows[each, places], rows[each + count, places] = 1.0, -1.0
        bounds = self.bounds(hinge.source, rows, None, slopes, multipliers)
        lower[0, places], upper[0, places] = bounds[:count], -bounds[count:]
        self.meet(hinge.source, lower, upper)

    def meet(self, name: str, lower: np.ndarray, upper: np.ndarray) -> None:
        """Meet the one box of a node with other ends `(1, values)`, proved where the caller says.

        Ends stay within the box as it was. They cross only where no point has the signs: then any bound holds. Ends
        that have crossed stay as they are, so that every sign that a box implies those within it imply, too.
        """
        low, high = self.ends(name)
        lower, upper = np.maximum(np.minimum(lower, high), low), np.minimum(np.maximum(upper, low), high)
        shape = self.boxes[name].lower.shape
        self.boxes[name] = Box.unchecked(torch.from_numpy(lower).reshape(shape), torch.from_numpy(upper).reshape(shape))

    def joined(self, others: Sequence[SplitProgram], signs: np.ndarray) -> SplitProgram:
        """Return the program with the boxes of others after its own; signs: `(others, units)`, where these hold."""
        made = self._copy()
        programs = (self, *others)
        made.boxes = {
            name: Box.unchecked(*(torch.cat([getattr(each.boxes[name], end) for each in programs]) for end in ENDS))
            for name in self.boxes
        }
        count = len(self.boxes[INPUT].lower)
        own = np.zeros((count, self.units), dtype=np.int8) if self.signs is None else self.signs
        made.signs = np.concatenate([own, signs])
        return made

    def _copy(self) -> SplitProgram:
        """Return a program on the same boxes, which is going to get others within these."""
        made = copy.copy(self)
        made._condensed = self._condensed and self._condensed.copy()
        return made

    # ------------------------------------------------------------------------------------------------- making the rows

    def ends(self, name: str) -> Ends:
        """Return the ends `(boxes, values)` of a node's flattened units."""
        box = self.boxes[name]
        return box.lower.unsqueeze(-1).flatten(1).numpy(), box.upper.unsqueeze(-1).flatten(1).numpy()

    def reach(self, name: str) -> np.ndarray:
        """Return the greatest absolute values of a node's flattened units in all boxes, exact."""
        lower, upper = self.ends(name)
        reach: np.ndarray = np.maximum(np.abs(lower), np.abs(upper)).max(axis=0)
        return reach

    def rows(self) -> ProgramRows:
        """Return the rows of the nodes so far."""
        ends = {name: self.ends(name) for name in self.boxes}
        reach = {name: self.reach(name) for name in self.boxes}
        return ProgramRows(self._blocks, ends, reach, self.largest_sum())

    def _hinge(self, node: Node, left: float) -> HingeRows:
        (source,) = node.inputs
        count = len(self._entries[node.name])
        hinge = HingeRows(node.name, source, left, slice(self.units, self.units + count))
        self.units += count
        self._entries[node.name] += 3
        self._entries[source] += 3
        self.hinges.append(hinge)
        return hinge

    def _equations(self, node: Node) -> Equations:
        """Return the rows of an affine node; AssertionError if they are not one equation for each value."""
        made, counts = equations(node, self.boxes, self.reach)
        self._entries[node.name] += 1
        for name, count in zip(node.inputs, counts, strict=True):
            self._entries[name] += count
        return made

    def largest_sum(self) -> int:
        """Return the greatest number of entries in a column, which bounds how often its reduced cost was rounded."""
        return max(int(entries.max(initial=0)) for entries in self._entries.values())
