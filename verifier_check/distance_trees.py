"""Trees of contraction, of chains of layers of distances: no leaf has a point where a rival may win."""

from __future__ import annotations

import math
from typing import Any

from verifier_check.distances import Reach, Unit, mirrored, units_of
from verifier_check.file import Certificate
from verifier_check.integers import whole
from verifier_check.network import Network
from verifier_check.properties import class_count
from verifier_check.refusals import Refused, Undecided
from verifier_check.time_limit import UNLIMITED, TimeLimit
from verifier_check.trees import LEAF, second_halves


def check_distances(certificate: Certificate, network: Network, bits: int, limit: TimeLimit = UNLIMITED) -> int:
    """Return how many leaves trees of contraction have, one tree against each rival, all of which are empty."""
    classes = class_count(network, certificate.winner)
    arrays = [certificate.arrays[f"distances.{name}"] for name in ("sides", "values", "passes")]
    sides, values, passes = arrays
    for entry in arrays:
        entry.taken = 0
    if values.kind != "<f8" or passes.kind != "|u1" or sides.kind[1] != "i" or any(len(e.shape) != 1 for e in arrays):
        raise Refused("sides are integers, values of float64, passes bytes")
    rows = [(rival, nodes) for rival, nodes in certificate.header["distances"]]
    rivals = [rival for rival, _ in rows]
    if any(type(rival) is not int for rival in rivals) or sorted(rivals) != [
        k for k in range(classes) if k != certificate.winner
    ]:
        raise Refused(f"it holds trees against {rivals!r:.60}, not against each class but {certificate.winner}")
    low, high = certificate.ball(network.input_shape, bits)
    chain, leaves = Chain(network, bits, limit), 0
    for rival, nodes in rows:
        tree, at, number = sides.take(nodes), values.take(nodes), passes.take(nodes)
        if any(not LEAF <= side <= chain.starts[-1] for side in tree) or 0 in number:
            raise Refused(f"class {rival}: a split is of no value, or a part is contracted by no pass")
        leaves += chain.check((tree, at, number, second_halves(tree)), low, high, certificate.winner, rival)
    if any(entry.taken != len(entry.values) for entry in arrays):
        raise Refused("it holds more numbers than its trees take")
    return leaves


class Chain:
    """The layers of a network on flat inputs; spans: where the inputs of each stand among all values."""

    def __init__(self, network: Network, bits: int, limit: TimeLimit = UNLIMITED) -> None:
        self.bits, self.limit, self.layers, before = bits, limit, list[list[Unit]](), "input"
        for node in network.nodes:
            if node.inputs != [before] or node.kind not in ("mwd", "mwd-conv2d", "reshape"):
                raise Undecided(f"node {node.name!r} ({node.kind}): trees of contraction are of chains of distances")
            if node.kind != "reshape":
                self.layers.append(units_of(node, network.shapes[before], network.shapes[node.name], bits))
            before = node.name
        if not network.nodes or network.nodes[-1].kind != "mwd":
            raise Refused("its last node is no layer of distances")
        sizes = [math.prod(network.input_shape), *(len(layer) for layer in self.layers)]
        self.starts = [sum(sizes[:k]) for k in range(len(sizes))]

    def check(self, tree: Any, low: list[int], high: list[int], winner: int, rival: int) -> int:
        """Return how many leaves a tree (sides, values, passes, second halves) has, each empty; Refused if not."""
        sides, values, passes, second = tree
        order, size = _Order(self.layers[-1], winner, rival, self.bits), self.starts[-1]
        # What is not known of outputs yet is None.
        none = [None] * (size - len(low))
        waiting: list[tuple[list[Any], list[Any], list[Any], int]] = [([*low, *none], [*high, *none], [None, None], 0)]
        while waiting:
            *part, node = waiting.pop()
            if not all(self._contract(order, *part) for _ in range(passes[node])):
                continue
            if sides[node] == LEAF:
                leaf = sides[:node].count(LEAF)
                raise Refused(f"class {rival}, leaf {leaf}: contraction leaves points where it may win")
            (top,), scale = whole([values[node]])
            for child, end, at in (
                (second[node], 0, (top << self.bits) >> scale),
                (node + 1, 1, -((-top << self.bits) >> scale)),
            ):
                half = [ends[:] for ends in part]
                ends, place = (half[2], end) if sides[node] == size else (half[end], sides[node])
                known = [at] if ends[place] is None else [at, ends[place]]
                ends[place] = min(known) if end else max(known)
                waiting.append((half[0], half[1], half[2], child))
        return int(sides.count(LEAF))

    def _contract(self, order: _Order, low: list[Any], high: list[Any], tau: list[Any]) -> bool:
        """Contract a part by one pass, in place; return False where nothing lies in it."""
        self.limit.check()
        if any(a > b for a, b in zip(low, high, strict=True) if a is not None and b is not None):
            return False
        last = len(self.layers) - 1
        for number, layer in enumerate(self.layers[:-1]):
            own = slice(self.starts[number], self.starts[number + 1])
            for j, unit in enumerate(layer, start=own.stop):
                a, b = unit.outputs(*unit.distances(low[own], high[own]))
                low[j], high[j] = a if low[j] is None else max(low[j], a), b if high[j] is None else min(high[j], b)
                if low[j] > high[j]:
                    return False
        for number in range(last, -1, -1):
            own = slice(self.starts[number], self.starts[number + 1] if number < last else None)
            lows, highs = low[own], high[own]
            if number == last:
                asked = order.asked(lows, highs, tau)
            else:
                units = enumerate(self.layers[number], start=self.starts[number + 1])
                asked = [(unit, *unit.distances_of(low[j], high[j])) for j, unit in units]
            if asked is None or not _met(asked, lows, highs):
                return False
            low[own], high[own] = lows, highs
        return True


def _met(asked: list[Any], low: list[int], high: list[int]) -> bool:
    """Meet inputs with what is asked of the distances of units; return False where nothing is left."""
    for unit, _, at_most in asked:
        unit.confine(low, high, at_most)
    can_hold = all(unit.force(low, high, at_least) for unit, at_least, _ in asked)
    return can_hold and all(a <= b for a, b in zip(low, high, strict=True))


class _Order:
    """The two units that are compared: the rival wins or ties where d_low <= d_high; tau is d_low."""

    def __init__(self, layer: list[Unit], winner: int, rival: int, bits: int) -> None:
        self.bits = bits
        both = layer[winner].negated and layer[rival].negated
        self.low, self.high = (layer[winner], layer[rival]) if both else (layer[rival], layer[winner])
        # d = z - shift, of a mirrored unit with a linear link -z - shift.
        self.turned = [not both and unit.negated for unit in (self.low, self.high)]
        self.shifts = [(-unit.bias[1], -unit.bias[0]) if both else unit.bias for unit in (self.low, self.high)]

    def _coordinate(self, which: int, near: int, far: int) -> Reach:
        """Return the range of d of one of the two where its distance lies in [near, far]."""
        unit, shift = (self.low, self.high)[which], self.shifts[which]
        if not self.turned[which]:
            return near - shift[1], far - shift[0]
        return (-far - shift[1], -near - shift[0]) if unit.linear else mirrored(near, far, self.bits)

    def asked(self, low: list[int], high: list[int], tau: list[Any]) -> list[Any] | None:
        """Meet tau; return what is asked of both units as (unit, z at least, z at most), None where there is no tau."""
        ends = [self._coordinate(which, *unit.distances(low, high)) for which, unit in enumerate((self.low, self.high))]
        tau[0] = ends[0][0] if tau[0] is None else max(tau[0], ends[0][0])
        tau[1] = min((end for end in (tau[1], ends[0][1], ends[1][1]) if end is not None), default=None)
        if tau[1] is not None and tau[0] > tau[1]:
            return None
        found = list[Any]()
        for which, unit in enumerate((self.low, self.high)):
            at, shift = (tau[1], tau[0])[which], self.shifts[which]
            least, most = 0, None
            if at is not None:
                # d_low <= tau, and d_high >= tau.
                if not self.turned[which]:
                    least, most = (0, at + shift[1]) if which == 0 else (at + shift[0], None)
                elif unit.linear:
                    least, most = (-at - shift[1], None) if which == 0 else (0, -at - shift[0])
                else:
                    inverse = mirrored(max(at, 0), max(at, 0), self.bits)
                    least, most = (inverse[0], None) if which == 0 else (0, inverse[1])
            found.append((unit, max(least, 0), most))
        return found
