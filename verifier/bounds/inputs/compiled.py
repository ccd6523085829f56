"""Boxes of inputs bounded by a compiled loop, for chains of dense layers and relus (`verifier.bounds.inputs.chain`).

Rows of open units are pulled back through the layers by the lines of relus (Zhang et al. 2018), through units that are
not off only, and minimised over a box and one half-space at a time in which the unsafe points lie:

    min over x in the box of a x + c + m (s x + t)  for any m >= 0,  where s x + t <= 0 at every unsafe point,

at the best m, one of the ratios -a_i / s_i (Zhou et al. 2025). So what is known of units holds for unsafe points, and a
unit without values refutes the box. float64: each pull loses |coefficient| times `Layers.error`, which bounds all
roundings, in any order of summation; products fused with sums round less.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from verifier.bounds.inputs.compiled_layers import MOST_MULTIPLE, UNDERFLOW, U, inner


@inner
def relaxed(layers: Any, work: Any, layer: int, row: int, constant: float) -> float:
    """Put a row's coefficients through the units of a layer, into work.values; return its constant so far."""
    u = layers.units[layer]
    for j in range(work.count[layer]):
        v = work.rows[row, j]
        constant += min(v, 0.0) * work.offset[u + j]
        v *= work.positive[u + j] if v > 0.0 else work.negative[u + j]
        work.values[row, j] = v
        constant += v * work.bias[u + j] - abs(v) * work.error[u + j]
    return constant


@inner
def pulled(layers: Any, work: Any, layer: int, first: float, second: float) -> tuple[float, float]:
    """Pull the two rows of work.rows back to the input; return their constants."""
    for at in range(layer, 0, -1):
        n, m = work.count[at], work.count[at - 1]
        first = relaxed(layers, work, at, 0, first)
        second = relaxed(layers, work, at, 1, second)
        start = layers.weights[at]
        w = work.part[start : start + n * m]
        one, two, a, b = work.rows[0], work.rows[1], work.values[0], work.values[1]
        for q in range(m):
            one[q], two[q] = 0.0, 0.0
        k = 0
        while k + 4 <= n:
            r, s, t, v = k * m, (k + 1) * m, (k + 2) * m, (k + 3) * m
            a0, a1, a2, a3 = a[k], a[k + 1], a[k + 2], a[k + 3]
            b0, b1, b2, b3 = b[k], b[k + 1], b[k + 2], b[k + 3]
            k += 4
            # Where units read few others, as in lattices, most are zero. A NaN is not.
            if a0 == a1 == a2 == a3 == b0 == b1 == b2 == b3 == 0.0:
                continue
            for q in range(m):
                w0, w1, w2, w3 = w[r + q], w[s + q], w[t + q], w[v + q]
                one[q] += a0 * w0 + a1 * w1 + a2 * w2 + a3 * w3
                two[q] += b0 * w0 + b1 * w1 + b2 * w2 + b3 * w3
        while k < n:
            for q in range(m):
                one[q] += a[k] * w[k * m + q]
                two[q] += b[k] * w[k * m + q]
            k += 1
    return first - UNDERFLOW, second - UNDERFLOW


@inner
def best_multiple(slopes: Any, half: Any, lower: Any, upper: Any) -> float:
    """Return the m of the module's formula that is best; 0 where the half-space says nothing, or all of the box.

    Along m the slope of the minimum is the half-space's function at the minimiser; each ratio flips one coordinate.
    """
    d = len(lower)
    slack = half[d]
    for i in range(d):
        at_lower = slopes[i] > 0.0 or (slopes[i] == 0.0 and half[i] > 0.0)
        slack += half[i] * (lower[i] if at_lower else upper[i])
    m = 0.0
    while slack > 0.0:
        following = np.inf
        for i in range(d):
            if half[i] * slopes[i] < 0.0:
                ratio = -slopes[i] / half[i]
                if m < ratio < following:
                    following = ratio
        if not following < MOST_MULTIPLE:
            return 0.0
        m = following
        for i in range(d):
            if half[i] * slopes[i] < 0.0 and -slopes[i] / half[i] == m:
                slack -= abs(half[i]) * (upper[i] - lower[i])
    return m


@inner
def minimum(slopes: Any, constant: float, half: Any, halves: int, lower: Any, upper: Any) -> float:
    """Return a lower bound of slopes x + constant at the points of the box where all of so many half-spaces hold.

    Without a half-space its roundings are part of the units' errors.
    """
    d = len(lower)
    best = constant
    for i in range(d):
        best += min(slopes[i] * lower[i], slopes[i] * upper[i])
    for h in range(halves):
        m = best_multiple(slopes, half[h], lower, upper)
        if m > 0.0:
            total, size = constant + m * half[h, d], abs(constant) + m * abs(half[h, d])
            for i in range(d):
                z = slopes[i] + m * half[h, i]
                total += min(z * lower[i], z * upper[i])
                size += (abs(slopes[i]) + m * abs(half[h, i])) * max(abs(lower[i]), abs(upper[i]))
            total -= size * (8.0 * (d + 8) * U) + UNDERFLOW
            if total > best:
                best = total
    return best


@inner
def by_interval(layers: Any, work: Any, layer: int, j: int) -> None:
    """Meet what is known of a unit with what the units before it allow."""
    g, n = layers.units[layer] + j, layers.sizes[layer - 1]
    o, before = layers.weights[layer] + j * n, layers.units[layer - 1]
    low, high = layers.bias[g], layers.bias[g]
    for q in range(n):
        w = layers.matrix[o + q]
        if w == 0.0:
            continue
        if layer == 1:
            x0, x1 = work.lower[q], work.upper[q]
        else:
            x0, x1 = work.least[before + q], work.greatest[before + q]
            if layers.linear[before + q] == 0:
                x0, x1 = max(x0, 0.0), max(x1, 0.0)
        low += min(w * x0, w * x1)
        high += max(w * x0, w * x1)
    work.least[g] = max(work.least[g], low - layers.error[g])
    work.greatest[g] = min(work.greatest[g], high + layers.error[g])


@inner
def by_pull(layers: Any, work: Any, layer: int, j: int, halves: int) -> None:
    """Bound a unit by linear functions of the input."""
    g, n = layers.units[layer] + j, layers.sizes[layer - 1]
    o, before, d = layers.weights[layer] + j * n, layers.units[layer - 1], layers.sizes[0]
    for q in range(work.count[layer - 1]):
        w = layers.matrix[o + (q if layer == 1 else work.which[before + q])]
        work.rows[0, q], work.rows[1, q] = w, -w
    bias, error = layers.bias[g], layers.error[g]
    below, above = pulled(layers, work, layer - 1, bias - error, -bias - error)
    low = minimum(work.rows[0], below, work.half, halves, work.lower, work.upper)
    high = -minimum(work.rows[1], above, work.half, halves, work.lower, work.upper)
    if low > work.least[g]:
        work.least[g] = low
    if high < work.greatest[g]:
        work.greatest[g] = high
    for i in range(d):
        work.slopes[g, i] = abs(work.rows[0, i]) + abs(work.rows[1, i])


@inner
def set_lines(layers: Any, work: Any, layer: int) -> None:
    """Set the lines of a layer's units that are not off, and the weights between these and those before."""
    u, n, k = layers.units[layer], layers.sizes[layer - 1], 0
    before, m = layers.units[layer - 1], work.count[layer - 1]
    for j in range(layers.sizes[layer]):
        low, high = work.least[u + j], work.greatest[u + j]
        linear = layers.linear[u + j] == 1
        if high <= 0.0 and not linear:
            continue
        g = u + k
        work.positive[g], work.negative[g], work.offset[g] = 1.0, 1.0, 0.0
        if low < 0.0 and not linear:
            slope = high / (high - low)
            work.positive[g] = 1.0 if high > -low else 0.0
            work.negative[g] = slope
            # Above zero at the lower end, and above the unit at the upper one.
            work.offset[g] = max(-slope * low * (1.0 + 4.0 * U), high - slope * high + 4.0 * U * high) + UNDERFLOW
        work.which[g], work.bias[g], work.error[g] = j, layers.bias[u + j], layers.error[u + j]
        o, w = layers.weights[layer] + k * m, layers.weights[layer] + j * n
        for q in range(m):
            work.part[o + q] = layers.matrix[w + (q if layer == 1 else work.which[before + q])]
        k += 1
    work.count[layer] = k


@inner
def bound_units(layers: Any, work: Any, halves: int) -> bool:
    """Bound the units of all layers; false where one has no value, so that no unsafe point is in the box."""
    for layer in range(1, len(layers.sizes) - 1):
        for j in range(layers.sizes[layer]):
            g = layers.units[layer] + j
            linear = layers.linear[g] == 1
            if (work.least[g] >= 0.0 or work.greatest[g] <= 0.0) and not linear:
                continue
            by_interval(layers, work, layer, j)
            if work.least[g] < 0.0 < work.greatest[g] and not linear:
                by_pull(layers, work, layer, j, halves)
            if work.least[g] > work.greatest[g]:
                return False
        set_lines(layers, work, layer)
    return True


@inner
def bound_rows(layers: Any, work: Any, halves: int, found: Any, bounds: Any) -> None:
    """Write into found the linear functions `(rows, inputs + 1)` below the rows, and into bounds what they prove."""
    last = len(layers.sizes) - 1
    n, u, d = layers.sizes[last - 1], layers.units[last - 1], layers.sizes[0]
    for r in range(layers.sizes[last]):
        g = layers.units[last] + r
        for q in range(work.count[last - 1]):
            work.rows[0, q] = layers.matrix[layers.weights[last] + r * n + work.which[u + q]]
            work.rows[1, q] = 0.0
        constant, _ = pulled(layers, work, last - 1, layers.bias[g] - layers.error[g], 0.0)
        bounds[r] = minimum(work.rows[0], constant, work.half, halves, work.lower, work.upper)
        for i in range(d):
            found[r, i] = work.rows[0, i]
        found[r, d] = constant


@inner
def add_gaps(layers: Any, work: Any, row: int, scores: Any) -> None:
    """Add to the scores of sides what these have of the gaps that loosen a row (`verifier.bounds.inputs.sides`)."""
    last, d = len(layers.sizes) - 1, layers.sizes[0]
    o, before = layers.weights[last] + row * layers.sizes[last - 1], layers.units[last - 1]
    for q in range(work.count[last - 1]):
        work.rows[0, q] = layers.matrix[o + work.which[before + q]]
    for layer in range(last - 1, 0, -1):
        u, m = layers.units[layer], work.count[layer - 1]
        for q in range(m):
            work.rows[1, q] = 0.0
        for j in range(work.count[layer]):
            v, g = work.rows[0, j], u + work.which[u + j]
            if work.least[g] < 0.0 and layers.linear[g] == 0:
                gap, moved = -v * work.offset[u + j] if v < 0.0 else v * min(work.greatest[g], -work.least[g]), 0.0
                for i in range(d):
                    moved += work.slopes[g, i] * (work.upper[i] - work.lower[i])
                for i in range(d):
                    if moved > 0.0:
                        scores[i] += gap * work.slopes[g, i] * (work.upper[i] - work.lower[i]) / moved
            v *= work.positive[u + j] if v > 0.0 else work.negative[u + j]
            for q in range(m):
                work.rows[1, q] += v * work.part[layers.weights[layer] + j * m + q]
        for q in range(m):
            work.rows[0, q] = work.rows[1, q]
