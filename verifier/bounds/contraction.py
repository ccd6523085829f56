"""Backward contraction and branching for MWD networks: decide whether a box holds a counterexample.

A counterexample of class c against k needs, in the last layer, one distance at most tau and another at least tau
for some tau. A unit with z_j <= b confines *every* input to [w_i - b/u_i, w_i + b/u_i]: a box. A unit with
z_j >= a is a clause: *some* input has y_i >= w_i + a/u_i or y_i <= w_i - a/u_i; with one literal left, it is forced.
Forward ranges and these two rules are repeated until nothing moves; an empty range refutes. What is left is split:
on tau, or on a literal at v - delta with both closed halves overlapping (a literal kept closed at v would never
become false). The midpoint of every node is evaluated as an attack. No published use for these networks is known;
the scheme is that of interval constraint solvers (Benhamou et al. 1999) and of lazy clause generation.

Direction: `REFUTED` is a proof in real arithmetic: every bound is moved outward by more than its rounding error.
Compiled by numba, float64. Covers chains of MWD layers with Gaussian and linear links, the last layer's units of one
type or mixed (`contraction_threshold`).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numba import njit

from encoders.ops import Mwd
from verifier.bounds.contraction_rules import (
    LINEAR,
    NEGATED,
    Array,
    backward_unit,
    distance_at_least,
    distance_at_most,
    distance_range,
    link_lower,
    link_upper,
    link_value,
    literals,
)
from verifier.bounds.contraction_threshold import (
    compared_pair,
    coordinate_down,
    coordinate_range,
    high_distances,
    low_distances,
)

REFUTED, FOUND, STOPPED, UNDECIDED = 0, 1, 2, 3

# Where a literal at v is split: v - DELTA (in units of a hidden output or pixel).
DELTA = 1e-9
# Forward and backward passes over one node; later ones move little.
SWEEPS = 8
# A pass that moves no end by more than this share of the pixels' and units' ranges is the last.
PROGRESS = 1e-3
# Bisections of tau come before literals while its range is wider than this share of its first range.
TAU_SHARE = 0.25
MAXIMUM_DEPTH = 400
LARGEST = 1e100


@dataclass(frozen=True, eq=False)
class PackedNetwork:
    """The weights of a chain of MWD layers, flat: layer l has units[l] rows of inputs[l] columns at offset[l].

    kind (see `contraction_rules`) and bias: of each unit, those of layer l from unit_offset[l] on. limit: of weights
    and boxes, so that no number in the search can overflow.
    """

    weight: Array
    attractor: Array
    kind: Array
    bias: Array
    units: Array
    inputs: Array
    offset: Array
    unit_offset: Array
    limit: float


@dataclass(frozen=True, eq=False)
class Answer:
    """What the search says. code: REFUTED (proof), FOUND (`point` looks unsafe), STOPPED or UNDECIDED (open)."""

    code: int
    nodes: int
    point: Array


def pack(layers: Sequence[Mwd]) -> PackedNetwork:
    """Return the layers as flat arrays; raise ValueError if their weights are so large that numbers could overflow."""
    linear = any(op.has_linear_link for op in layers)
    # Outputs of linear links grow from layer to layer, at most by the factor 3 limit; those of others lie in [0, 1].
    limit = LARGEST ** (1.0 / (len(layers) + 1)) if linear else LARGEST
    biases = [op.negated.double() * 0.0 if op.bias is None else op.bias for op in layers]
    parts = [part for op, bias in zip(layers, biases, strict=True) for part in (op.weight, op.attractor, bias)]
    largest = max(float(part.abs().max()) for part in parts)
    if not largest < limit:
        raise ValueError(f"contraction takes weights below {limit:g} in size, got {largest:g}")
    sizes = [op.weight.shape for op in layers]
    return PackedNetwork(
        weight=np.concatenate([op.weight.double().cpu().numpy().ravel() for op in layers]),
        attractor=np.concatenate([op.attractor.double().cpu().numpy().ravel() for op in layers]),
        kind=np.concatenate([op.negated.long().cpu().numpy() * NEGATED + op.has_linear_link * LINEAR for op in layers]),
        bias=np.concatenate([bias.double().cpu().numpy() for bias in biases]),
        units=np.array([m for m, _ in sizes], dtype=np.int64),
        inputs=np.array([n for _, n in sizes], dtype=np.int64),
        offset=np.cumsum([0, *[m * n for m, n in sizes]])[:-1].astype(np.int64),
        unit_offset=np.cumsum([0, *[m for m, _ in sizes]])[:-1].astype(np.int64),
        limit=limit,
    )


def search(network: PackedNetwork, lower: Array, upper: Array, reference: int, other: int, nodes: int) -> Answer:
    """Return whether the box (1-D float64 ends) holds a point where `other` wins against or ties `reference`.

    nodes: how many boxes may be examined before the search is STOPPED.
    """
    if not (np.abs(lower).max() < network.limit and np.abs(upper).max() < network.limit):
        raise ValueError(f"contraction takes boxes within +-{network.limit:g}")
    last = slice(int(network.unit_offset[-1]), None)
    pair, shifts = compared_pair(network.kind[last], network.bias[last], reference, other)
    code, used, point = _search(
        network.weight, network.attractor, network.kind, network.bias, network.units, network.inputs, network.offset,
        network.unit_offset, lower, upper, pair, shifts, nodes,
    )  # fmt: skip
    return Answer(int(code), int(used), point)


@njit(cache=True)
def _forward(weight, attractor, kind, bias, units, inputs, offset, unit_offset, starts, lower, upper, near_of, far_of):  # type: ignore[no-untyped-def]
    """Intersect every hidden range with the image of the one below; return False if one becomes empty.

    near_of, far_of: filled with the distance range of each hidden unit, at the unit's place among the values.
    """
    for layer in range(units.shape[0] - 1):
        n = inputs[layer]
        a, b = starts[layer], starts[layer + 1]
        for j in range(units[layer]):
            row = offset[layer] + j * n
            near, far = distance_range(
                weight[row : row + n], attractor[row : row + n], lower[a : a + n], upper[a : a + n]
            )
            near_of[b + j], far_of[b + j] = near, far
            unit = unit_offset[layer] + j
            lower[b + j] = max(lower[b + j], link_lower(far, near, kind[unit], bias[unit]))
            upper[b + j] = min(upper[b + j], link_upper(far, near, kind[unit], bias[unit]))
            if lower[b + j] > upper[b + j]:
                return False
    return True


@njit(cache=True)
def _contract(  # type: ignore[no-untyped-def]
    weight, attractor, kind, bias, units, inputs, offset, unit_offset, starts, lower, upper, tau, pair, shifts
):
    """Contract a node in place; return False if it is refuted. tau: its range, an array of two."""
    last = units.shape[0] - 1
    n = inputs[last]
    a = starts[last]
    row_low, row_high = offset[last] + pair[0] * n, offset[last] + pair[1] * n
    near_of, far_of = np.zeros(lower.shape[0]), np.zeros(lower.shape[0])
    for _ in range(SWEEPS):
        if not _forward(
            weight, attractor, kind, bias, units, inputs, offset, unit_offset, starts, lower, upper, near_of, far_of
        ):
            return False
        low_near, low_far = distance_range(
            weight[row_low : row_low + n], attractor[row_low : row_low + n], lower[a : a + n], upper[a : a + n]
        )
        high_near, high_far = distance_range(
            weight[row_high : row_high + n], attractor[row_high : row_high + n], lower[a : a + n], upper[a : a + n]
        )
        # Some tau in [d_low, d_high] is d_low itself, so tau need not exceed the greatest d_low.
        least, greatest = coordinate_range(low_near, low_far, pair[2], shifts[0])
        _least, highest = coordinate_range(high_near, high_far, pair[3], shifts[1])
        tau[0], tau[1] = max(tau[0], least), min(tau[1], greatest, highest)
        if tau[0] > tau[1]:
            return False
        at_least, at_most = low_distances(tau[1], pair[2], shifts[0])
        moved = backward_unit(
            weight[row_low : row_low + n], attractor[row_low : row_low + n], lower[a : a + n], upper[a : a + n],
            at_least, at_most, low_near, low_far,
        )  # fmt: skip
        at_least, at_most = high_distances(tau[0], pair[3], shifts[1])
        step = backward_unit(
            weight[row_high : row_high + n], attractor[row_high : row_high + n], lower[a : a + n], upper[a : a + n],
            at_least, at_most, high_near, high_far,
        )  # fmt: skip
        if moved < 0.0 or step < 0.0:
            return False
        moved = max(moved, step)
        for layer in range(last - 1, -1, -1):
            m, c, d = inputs[layer], starts[layer], starts[layer + 1]
            for j in range(units[layer]):
                row = offset[layer] + j * m
                unit = unit_offset[layer] + j
                step = backward_unit(
                    weight[row : row + m], attractor[row : row + m], lower[c : c + m], upper[c : c + m],
                    distance_at_least(lower[d + j], upper[d + j], kind[unit], bias[unit]),
                    distance_at_most(lower[d + j], upper[d + j], kind[unit], bias[unit]), near_of[d + j], far_of[d + j],
                )  # fmt: skip
                if step < 0.0:
                    return False
                moved = max(moved, step)
        if moved <= PROGRESS:
            break
    return True


@njit(cache=True)
def _evaluate(weight, attractor, kind, bias, units, inputs, offset, unit_offset, starts, lower, upper, pair, shifts):  # type: ignore[no-untyped-def]
    """Return d_low - d_high at the midpoint of the pixels, in plain float64: <= 0 looks unsafe."""
    values = 0.5 * (lower[: inputs[0]] + upper[: inputs[0]])
    last = units.shape[0] - 1
    for layer in range(last):
        n = inputs[layer]
        result = np.empty(units[layer])
        for j in range(units[layer]):
            row = offset[layer] + j * n
            near, _far = distance_range(weight[row : row + n], attractor[row : row + n], values, values)
            unit = unit_offset[layer] + j
            result[j] = link_value(near, kind[unit], bias[unit])
        values = result
    n = inputs[last]
    row_low, row_high = offset[last] + pair[0] * n, offset[last] + pair[1] * n
    z_low, _far = distance_range(weight[row_low : row_low + n], attractor[row_low : row_low + n], values, values)
    z_high, _far = distance_range(weight[row_high : row_high + n], attractor[row_high : row_high + n], values, values)
    return coordinate_down(z_low, pair[2], shifts[0]) - coordinate_down(z_high, pair[3], shifts[1])


@njit(cache=True)
def _choose(weight, attractor, kind, bias, units, inputs, offset, unit_offset, starts, lower, upper, tau, pair, shifts):  # type: ignore[no-untyped-def]
    """Return (layer, literal, threshold) of the unsatisfied clause with the fewest literals, nearest the output.

    layer -1: every clause holds on the whole node.
    """
    last = units.shape[0] - 1
    chosen, literal, threshold, fewest = -1, 0, 0.0, 1 << 30
    for layer in range(last, -1, -1):
        n, a = inputs[layer], starts[layer]
        for j in range(units[layer]):
            if layer == last and j != pair[0] and j != pair[1]:
                continue
            row = offset[layer] + j * n
            u, w, lo, hi = weight[row : row + n], attractor[row : row + n], lower[a : a + n], upper[a : a + n]
            if layer == last and j == pair[0]:
                bound, _at_most = low_distances(tau[1], pair[2], shifts[0])
            elif layer == last:
                bound, _at_most = high_distances(tau[0], pair[3], shifts[1])
            else:
                b, unit = starts[layer + 1] + j, unit_offset[layer] + j
                bound = distance_at_least(lower[b], upper[b], kind[unit], bias[unit])
            near, _far = distance_range(u, w, lo, hi)
            if near >= bound * (1.0 - 1e-9) - DELTA:
                continue
            count, candidate, value = literals(u, w, lo, hi, bound)
            if 2 <= count < fewest:
                chosen, literal, threshold, fewest = layer, candidate, value, count
        if chosen >= 0:
            break
    return chosen, literal, threshold


@njit(cache=True)
def _search(  # type: ignore[no-untyped-def]
    weight, attractor, kind, bias, units, inputs, offset, unit_offset, box_lower, box_upper, pair, shifts, limit
):
    """Depth-first search over nodes; see `search`."""
    layers = units.shape[0]
    starts = np.zeros(layers, dtype=np.int64)
    for layer in range(1, layers):
        starts[layer] = starts[layer - 1] + inputs[layer - 1]
    size = starts[layers - 1] + inputs[layers - 1]
    stack_lower, stack_upper = np.empty((MAXIMUM_DEPTH + 2, size)), np.empty((MAXIMUM_DEPTH + 2, size))
    stack_tau = np.empty((MAXIMUM_DEPTH + 2, 2))
    stack_lower[0], stack_upper[0] = -math.inf, math.inf
    stack_lower[0, : inputs[0]], stack_upper[0, : inputs[0]] = box_lower, box_upper
    stack_tau[0, 0], stack_tau[0, 1] = -math.inf, math.inf
    depth, nodes, first_range, undecided = 1, 0, -1.0, False
    point = 0.5 * (box_lower + box_upper)
    while depth > 0:
        if nodes >= limit:
            return STOPPED, nodes, point
        nodes += 1
        depth -= 1
        lower, upper, tau = stack_lower[depth].copy(), stack_upper[depth].copy(), stack_tau[depth].copy()
        if not _contract(
            weight, attractor, kind, bias, units, inputs, offset, unit_offset, starts, lower, upper, tau, pair, shifts
        ):
            continue
        if (
            _evaluate(
                weight, attractor, kind, bias, units, inputs, offset, unit_offset, starts, lower, upper, pair, shifts
            )
            <= 0.0
        ):
            return FOUND, nodes, 0.5 * (lower[: inputs[0]] + upper[: inputs[0]])
        if first_range < 0.0:
            first_range = tau[1] - tau[0]
        layer, literal, threshold = _choose(
            weight, attractor, kind, bias, units, inputs, offset, unit_offset, starts, lower, upper, tau, pair, shifts
        )
        wide = tau[1] - tau[0] > TAU_SHARE * first_range
        if depth + 2 > MAXIMUM_DEPTH or (layer < 0 and tau[1] - tau[0] <= DELTA):
            undecided = True
            continue
        for child in range(2):
            stack_lower[depth], stack_upper[depth], stack_tau[depth] = lower, upper, tau
            if wide or layer < 0:
                middle = 0.5 * (tau[0] + tau[1])
                stack_tau[depth, 1 - child] = middle
            else:
                i = starts[layer] + abs(literal) - 1
                # The false half comes first on the stack, so the true one is examined first.
                if literal > 0:
                    if child == 0:
                        stack_upper[depth, i] = min(upper[i], threshold - DELTA)
                    else:
                        stack_lower[depth, i] = max(lower[i], threshold - DELTA)
                elif child == 0:
                    stack_lower[depth, i] = max(lower[i], threshold + DELTA)
                else:
                    stack_upper[depth, i] = min(upper[i], threshold + DELTA)
                if stack_lower[depth, i] > stack_upper[depth, i]:
                    continue
            depth += 1
    return (UNDECIDED if undecided else REFUTED), nodes, point
