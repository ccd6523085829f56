"""Chains of max-of-weighted-distance layers in integers, for `verifier_check`: the standard library alone.

It follows docs/certificate-format.md. Values are integers in units of 2^-bits, rounded outward. The exponential, the
logarithm and the square root of the link are enclosed between integers: series of whole numbers whose remainder is
stated, so that there is no library function to trust.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

from verifier_check_network import Network, Node, Refused, Undecided, whole, window_cells

# Ends of values, and of distances; the greatest distance None is infinite.
Range = tuple[int, int]
Reach = tuple[int, int | None]
LEAF, GUARD = -1, 32


# ------------------------------------------------------------------------------------------------------------ the link


def exp_minus(x: int, bits: int) -> Range:
    """Return integers around exp(-x / 2^bits) 2^bits, x >= 0.

    exp(-x) = exp(-x / 2^k)^(2^k) with x / 2^k <= 1/2, where the terms of the series fall and alternate, so that a sum
    that ends with a term taken off is too small, and one that ends with a term added too large.
    """
    if x >= bits << bits:
        # exp(-bits) < 2^-bits.
        return 0, 1
    halvings = max(0, x.bit_length() - bits + 1)
    fine = bits + halvings + GUARD
    # x / 2^(bits + halvings) in units of 2^-fine, exactly.
    small, one = x << GUARD, 1 << fine
    low, high, least, greatest, k = one, one, one, one, 0
    while greatest > 1:
        # Between these lies small^k / k!.
        k += 1
        least, greatest = (least * small >> fine) // k, -((-greatest * small >> fine) // k)
        if k % 2:
            low, high = low - greatest, high - least
        else:
            low, high = low + least, high + greatest
    # What is left out is at most the next term, and that at most 1.
    low, high = max(low - 1, 0), high + 1
    for _ in range(halvings):
        low, high = low * low >> fine, -(-high * high >> fine)
    return low >> (fine - bits), min(-(-high >> (fine - bits)), 1 << bits)


def minus_log(y: int, bits: int) -> Range:
    """Return integers around -ln(y / 2^bits) 2^bits, 0 < y <= 2^bits.

    With y = m 2^e, 1 <= m < 2, it is -e ln 2 - ln m, and ln m = 2 artanh((m - 1) / (m + 1)).
    """
    fine = bits + GUARD + bits.bit_length()
    shift = bits - y.bit_length() + 1
    top = (y << shift) - (1 << bits)
    two, log = _log_two(fine), _twice_artanh(top, (1 << bits) + (y << shift), fine)
    low, high = shift * two[0] - log[1], shift * two[1] - log[0]
    return max(low, 0) >> (fine - bits), -(-high >> (fine - bits))


@functools.cache
def _log_two(fine: int) -> Range:
    return _twice_artanh(1, 3, fine)


def _twice_artanh(top: int, bottom: int, fine: int) -> Range:
    """Return integers around 2 artanh(top / bottom) 2^fine, 0 <= top / bottom <= 1/3.

    It is 2 sum t^(2 k + 1) / (2 k + 1); what is left out after a term is at most an eighth of it, as t^2 <= 1/9.
    """
    least, greatest = (top << fine) // bottom, -((-top << fine) // bottom)
    square = -(-greatest * greatest >> fine)
    low = high = k = 0
    below, above = least, greatest
    while True:
        low, high = low + below // (2 * k + 1), high - (-above // (2 * k + 1))
        if above <= 1:
            return 2 * low, 2 * (high + 1)
        below, above, k = below * (least * least >> fine) >> fine, -(-above * square >> fine), k + 1


def root(low: int, high: int, bits: int) -> Range:
    """Return integers around the square roots of what lies between 2^-bits times low and high, times 2^bits."""
    greatest = high << bits
    up = math.isqrt(greatest)
    return math.isqrt(max(low, 0) << bits), up + (up * up < greatest)


def _distance_at_least(p: int, bits: int) -> int:
    """Return a lower bound of z where exp(-z^2) is at most p."""
    one = 1 << bits
    return 0 if p >= one else root(*minus_log(max(p, 1), bits), bits)[0]


def _distance_at_most(p: int, bits: int) -> int | None:
    """Return an upper bound of z where exp(-z^2) is at least p; None where there is none."""
    return None if p <= 0 else root(*minus_log(min(p, 1 << bits), bits), bits)[1]


def _gaussian(near: int, far: int, bits: int) -> Range:
    """Return the range of exp(-z^2) over z in [near, far], near >= 0."""
    return exp_minus(-(-far * far >> bits), bits)[0], exp_minus(near * near >> bits, bits)[1]


def _mirrored(near: int, far: int | None, bits: int) -> Reach:
    """Return the range of sqrt(-ln(1 - exp(-z^2))), which falls, over z in [near, far]."""
    one = 1 << bits
    least, greatest = (0 if far is None else exp_minus(-(-far * far >> bits), bits)[0]), one
    if near > 0:
        greatest = exp_minus(near * near >> bits, bits)[1]
    return _distance_at_least(one - least, bits), _distance_at_most(one - greatest, bits)


# ------------------------------------------------------------------------------------------------------------ the units


class Unit:
    """z = max u_i |y_i - w_i| over some places, u_i > 0, and bias -+ z or exp(-z^2) or 1 less that of it."""

    def __init__(self, places: Sequence[int], weights: Sequence[float], attractors: Sequence[float], negated: bool,
                 linear: bool, bias: float, bits: int) -> None:  # fmt: skip
        tops, self.shift = whole(weights)
        centres, scale = whole(attractors)
        (bias_top,), bias_scale = whole([bias])
        lows = [(top << bits) >> scale for top in centres]
        highs = [-((-top << bits) >> scale) for top in centres]
        self.terms = [(i, u, a, b) for i, u, a, b in zip(places, tops, lows, highs, strict=True) if u]
        self.negated, self.linear, self.bits = negated, linear, bits
        self.bias = (bias_top << bits) >> bias_scale, -((-bias_top << bits) >> bias_scale)

    def distances(self, low: list[int], high: list[int]) -> Range:
        """Return the range of z over a box of the inputs."""
        near = max((u * max(low[i] - b, a - high[i]) for i, u, a, b in self.terms), default=0)
        far = max((u * max(high[i] - a, b - low[i]) for i, u, a, b in self.terms), default=0)
        return max(near >> self.shift, 0), max(-(-far >> self.shift), 0)

    def outputs(self, near: int, far: int) -> Range:
        """Return the range of the output over distances."""
        if self.linear:
            return (
                (near + self.bias[0], far + self.bias[1]) if self.negated else (self.bias[0] - far, self.bias[1] - near)
            )
        least, greatest = _gaussian(near, far, self.bits)
        one = 1 << self.bits
        return (one - greatest, one - least) if self.negated else (least, greatest)

    def distances_of(self, low: int, high: int) -> Reach:
        """Return the range of z where the output lies in [low, high]."""
        if self.linear:
            ends = (
                (low - self.bias[1], high - self.bias[0]) if self.negated else (self.bias[0] - high, self.bias[1] - low)
            )
            return max(ends[0], 0), ends[1]
        one = 1 << self.bits
        least, greatest = (one - high, one - low) if self.negated else (low, high)
        return _distance_at_least(greatest, self.bits), _distance_at_most(least, self.bits)

    def confine(self, low: list[int], high: list[int], at_most: int | None) -> None:
        """Meet a box of the inputs with z <= at_most."""
        if at_most is None:
            return
        for i, u, a, b in self.terms:
            reach = -((-at_most << self.shift) // u)
            low[i], high[i] = max(low[i], a - reach), min(high[i], b + reach)

    def force(self, low: list[int], high: list[int], at_least: int) -> bool:
        """Meet a box of the inputs with z >= at_least where one literal alone can hold; return whether any can."""
        if at_least <= 0:
            return True
        found = list[tuple[int, int, int]]()
        for i, u, a, b in self.terms:
            reach = (at_least << self.shift) // u
            if high[i] >= a + reach:
                found.append((i, 1, a + reach))
            if low[i] <= b - reach:
                found.append((i, -1, b - reach))
            if len(found) > 1:
                return True
        for i, sign, at in found:
            low[i], high[i] = (max(low[i], at), high[i]) if sign > 0 else (low[i], min(high[i], at))
        return bool(found)


def units_of(node: Node, shape: Sequence[int], output: Sequence[int], bits: int) -> list[Unit]:
    """Return the units of a node on inputs of a shape, in C order on both sides."""
    t, s, count = node.tensors, node.settings, node.tensors["weight"].shape[0]
    weight, attractor, negated = (t[name].values for name in ("weight", "attractor", "negated"))
    if any(value < 0 for value in weight):
        raise Refused(f"node {node.name!r}: a weight is negative")
    biases, linear, each = (
        t["bias"].values if "bias" in t else [0.0] * count,
        s.get("link") == "linear",
        len(weight) // count,
    )
    places: list[Sequence[int]] = [range(each)]
    if node.kind == "mwd-conv2d":
        area, kernel = shape[1] * shape[2], t["weight"].shape[2:]
        cells = window_cells(shape, output, kernel, s)
        places = [
            [c * area + cell if cell >= 0 else -1 for c in range(shape[0]) for cell in window] for window in cells
        ]
    made = list[Unit]()
    for j in range(count):
        own = [(w, a) for w, a in zip(weight[j * each :][:each], attractor[j * each :][:each], strict=True)]
        for window in places:
            inside = [(i, *pair) for i, pair in zip(window, own, strict=True) if i >= 0]
            at, weights, centres = ([part[k] for part in inside] for k in range(3))
            made.append(Unit(at, weights, centres, bool(negated[j]), linear, biases[j], bits))
    return made


# ------------------------------------------------------------------------------------------------------------- the tree


class Chain:
    """The layers of a network on flat inputs; spans: where the inputs of each stand among all values."""

    def __init__(self, network: Network, bits: int) -> None:
        self.bits, self.layers, before = bits, list[list[Unit]](), "input"
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
        return (-far - shift[1], -near - shift[0]) if unit.linear else _mirrored(near, far, self.bits)

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
                    inverse = _mirrored(max(at, 0), max(at, 0), self.bits)
                    least, most = (inverse[0], None) if which == 0 else (0, inverse[1])
            found.append((unit, max(least, 0), most))
        return found
