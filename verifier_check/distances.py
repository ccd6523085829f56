"""Layers of max-of-weighted-distances: the ranges of their units, and what an output says of the inputs.

Values are integers in units of 2^-bits, rounded outward.
"""

from __future__ import annotations

from collections.abc import Sequence

from verifier_check.exponential import Range, exp_minus, minus_log, root
from verifier_check.integers import whole
from verifier_check.network import Node
from verifier_check.refusals import Refused
from verifier_check.windows import window_cells

Reach = tuple[int, int | None]


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


def mirrored(near: int, far: int | None, bits: int) -> Reach:
    """Return the range of sqrt(-ln(1 - exp(-z^2))), which falls, over z in [near, far]."""
    one = 1 << bits
    least, greatest = (0 if far is None else exp_minus(-(-far * far >> bits), bits)[0]), one
    if near > 0:
        greatest = exp_minus(near * near >> bits, bits)[1]
    return _distance_at_least(one - least, bits), _distance_at_most(one - greatest, bits)


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
