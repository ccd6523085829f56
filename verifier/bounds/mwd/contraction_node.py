"""What `contraction` does to one node: contract its ranges, evaluate its midpoint, choose where to split it.

A node is a box of all values, the pixels first (lower and upper, laid out as in `PackedNetwork`), with a range tau of
the threshold between two classes; pair and shifts: see `contraction_threshold`. Compiled, and rounded outward.
"""

import numpy as np

from encoders.kept_loops import kept
from verifier.bounds.mwd.contraction_rules import (
    backward_unit,
    distance_at_least,
    distance_at_most,
    distance_range,
    link_lower,
    link_upper,
    link_value,
    literals,
    satisfied,
)
from verifier.bounds.mwd.contraction_threshold import coordinate_down, coordinate_range, high_distances, low_distances


@kept("contraction*.py")
def forward(network, lower, upper, near_of, far_of):  # type: ignore[no-untyped-def]
    """Intersect every hidden range with the image of the one below; return False if one becomes empty.

    near_of, far_of: filled with the distance range of each hidden unit, at the unit's place among the values.
    """
    for layer in range(network.units.shape[0] - 1):
        n = network.inputs[layer]
        a, b = network.starts[layer], network.starts[layer + 1]
        for j in range(network.units[layer]):
            row = network.offset[layer] + j * n
            u, w = network.weight[row : row + n], network.attractor[row : row + n]
            near, far = distance_range(u, w, lower[a : a + n], upper[a : a + n])
            near_of[b + j], far_of[b + j] = near, far
            unit = network.unit_offset[layer] + j
            kind, bias = network.kind[unit], network.bias[unit]
            lower[b + j] = max(lower[b + j], link_lower(far, near, kind, bias))
            upper[b + j] = min(upper[b + j], link_upper(far, near, kind, bias))
            if lower[b + j] > upper[b + j]:
                return False
    return True


@kept("contraction*.py")
def backward(network, lower, upper, near_of, far_of):  # type: ignore[no-untyped-def]
    """Contract the inputs of every hidden unit by its range, last layer first; return the greatest move, -1: empty."""
    moved = 0.0
    for layer in range(network.units.shape[0] - 2, -1, -1):
        n, a, b = network.inputs[layer], network.starts[layer], network.starts[layer + 1]
        for j in range(network.units[layer]):
            row = network.offset[layer] + j * n
            unit = network.unit_offset[layer] + j
            kind, bias = network.kind[unit], network.bias[unit]
            step = backward_unit(
                network.weight[row : row + n], network.attractor[row : row + n], lower[a : a + n], upper[a : a + n],
                distance_at_least(lower[b + j], upper[b + j], kind, bias),
                distance_at_most(lower[b + j], upper[b + j], kind, bias), near_of[b + j], far_of[b + j],
            )  # fmt: skip
            if step < 0.0:
                return -1.0
            moved = max(moved, step)
    return moved


@kept("contraction*.py")
def contract(network, lower, upper, tau, pair, shifts, sweeps, progress):  # type: ignore[no-untyped-def]
    """Contract a node in place; return False if it is refuted.

    sweeps: forward and backward passes at most. progress: a pass that moves no end by more than this share of the
    pixels' and units' ranges is the last.
    """
    last = network.units.shape[0] - 1
    n, a = network.inputs[last], network.starts[last]
    low, high = network.offset[last] + pair[0] * n, network.offset[last] + pair[1] * n
    u_low, w_low = network.weight[low : low + n], network.attractor[low : low + n]
    u_high, w_high = network.weight[high : high + n], network.attractor[high : high + n]
    inner_lower, inner_upper = lower[a : a + n], upper[a : a + n]
    near_of, far_of = np.zeros(lower.shape[0]), np.zeros(lower.shape[0])
    for _ in range(sweeps):
        if not forward(network, lower, upper, near_of, far_of):
            return False
        low_near, low_far = distance_range(u_low, w_low, inner_lower, inner_upper)
        high_near, high_far = distance_range(u_high, w_high, inner_lower, inner_upper)
        # Some tau in [d_low, d_high] is d_low itself, so tau need not exceed the greatest d_low.
        least, greatest = coordinate_range(low_near, low_far, pair[2], shifts[0])
        _least, highest = coordinate_range(high_near, high_far, pair[3], shifts[1])
        tau[0], tau[1] = max(tau[0], least), min(tau[1], greatest, highest)
        if tau[0] > tau[1]:
            return False
        at_least, at_most = low_distances(tau[1], pair[2], shifts[0])
        moved = backward_unit(u_low, w_low, inner_lower, inner_upper, at_least, at_most, low_near, low_far)
        at_least, at_most = high_distances(tau[0], pair[3], shifts[1])
        step = backward_unit(u_high, w_high, inner_lower, inner_upper, at_least, at_most, high_near, high_far)
        if moved < 0.0 or step < 0.0:
            return False
        below = backward(network, lower, upper, near_of, far_of)
        if below < 0.0:
            return False
        if max(moved, step, below) <= progress:
            break
    return True


@kept("contraction*.py")
def evaluate(network, lower, upper, pair, shifts):  # type: ignore[no-untyped-def]
    """Return d_low - d_high at the midpoint of the pixels, in plain float64: <= 0 looks unsafe."""
    values = 0.5 * (lower[: network.inputs[0]] + upper[: network.inputs[0]])
    last = network.units.shape[0] - 1
    for layer in range(last):
        n = network.inputs[layer]
        result = np.empty(network.units[layer])
        for j in range(network.units[layer]):
            row = network.offset[layer] + j * n
            u, w = network.weight[row : row + n], network.attractor[row : row + n]
            near, _far = distance_range(u, w, values, values)
            unit = network.unit_offset[layer] + j
            result[j] = link_value(near, network.kind[unit], network.bias[unit])
        values = result
    n = network.inputs[last]
    low, high = network.offset[last] + pair[0] * n, network.offset[last] + pair[1] * n
    z_low, _far = distance_range(network.weight[low : low + n], network.attractor[low : low + n], values, values)
    z_high, _far = distance_range(network.weight[high : high + n], network.attractor[high : high + n], values, values)
    return coordinate_down(z_low, pair[2], shifts[0]) - coordinate_down(z_high, pair[3], shifts[1])


@kept("contraction*.py")
def choose(network, lower, upper, tau, pair, shifts, slack):  # type: ignore[no-untyped-def]
    """Return (layer, literal, threshold) of the unsatisfied clause with the fewest literals, nearest the output.

    layer -1: every clause holds on the whole node, its literals moved by the slack.
    """
    last = network.units.shape[0] - 1
    chosen, literal, threshold, fewest = -1, 0, 0.0, 1 << 30
    for layer in range(last, -1, -1):
        n, a = network.inputs[layer], network.starts[layer]
        for j in range(network.units[layer]):
            if layer == last and j != pair[0] and j != pair[1]:
                continue
            row = network.offset[layer] + j * n
            u, w = network.weight[row : row + n], network.attractor[row : row + n]
            if layer == last and j == pair[0]:
                bound, _at_most = low_distances(tau[1], pair[2], shifts[0])
            elif layer == last:
                bound, _at_most = high_distances(tau[0], pair[3], shifts[1])
            else:
                b, unit = network.starts[layer + 1] + j, network.unit_offset[layer] + j
                bound = distance_at_least(lower[b], upper[b], network.kind[unit], network.bias[unit])
            if satisfied(u, w, lower[a : a + n], upper[a : a + n], bound, slack):
                continue
            count, candidate, value = literals(u, w, lower[a : a + n], upper[a : a + n], bound)
            if 2 <= count < fewest:
                chosen, literal, threshold, fewest = layer, candidate, value, count
        if chosen >= 0:
            break
    return chosen, literal, threshold
