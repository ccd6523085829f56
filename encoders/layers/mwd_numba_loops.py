"""Compiled loops of max-of-weighted-distance units, through numba; no compiler is needed on the user's machine.

For values, the batch is the innermost axis, cut into blocks of `width` lanes, so that the maximum over the inputs is
elementwise in the innermost loop and vectorises. Loops take PAIR inputs and GROUP units at a time, which share loads
of x: x is `(blocks, inputs / PAIR, PAIR * width)`, values of units are `(blocks, units / GROUP, GROUP * width)`, u and
w `(units, inputs)`; the caller pads. Lanes that are used together lie in one row, as each further row would add tests
for overlap before every innermost loop. A width is a constant of the compiled loop, so that it has no remainder. For
pseudogradients the inputs are the innermost axis, for the same reason: they are sums over the batch and the units.

`strict` loops round each operation once (no fast maths, no fused multiply-add) and decide intervals; `fast` loops may
reorder sums and serve the pseudogradient only. Every loop takes a `part` (start, stop) of the units or inputs and runs
without the interpreter lock, so that threads can share a call.
"""

import functools
from collections.abc import Callable
from typing import Any, cast

import numpy as np

from encoders.kept_loops import kept
from encoders.layers.mwd_numba_instructions import (
    bits,
    flipped,
    fraction,
    magnitude,
    scaled_by_power,
    truncated,
    unsigned_max,
    without_sign,
)

GROUP = 4
PAIR = 2
# Columns that a transposition takes at a time: a cache line of float32.
TILE = 16
# What the pseudogradient's sums may do: be reordered and fused. NaN and infinity keep their meaning.
FAST = {"reassoc", "contract", "nsz", "arcp"}

Loop = Callable[..., Any]


def _compiled(function: Loop, fast: bool) -> Loop:
    """Return the loop compiled at first use."""
    options: dict[str, Any] = {"nogil": True, "fastmath": FAST if fast else False, "error_model": "numpy"}
    return cast(Loop, kept("mwd_numba_*.py", **options)(function))


def _strict(function: Loop) -> Loop:
    """Return the function compiled for use inside the strict loops."""
    return _compiled(function, fast=False)


@_strict
def pack(rows: Any, lanes: Any) -> None:
    """Write rows `(batch, n)` into lanes `(blocks, columns, width)`, the rest of which becomes 0."""
    batch, n = rows.shape
    for block in range(lanes.shape[0]):
        start = block * lanes.shape[2]
        filled = min(lanes.shape[2], batch - start)
        for first in range(0, n, TILE):
            for b in range(filled):
                for i in range(first, min(first + TILE, n)):
                    lanes[block, i, b] = rows[start + b, i]
        lanes[block, :n, filled:] = 0
        lanes[block, n:] = 0


@_strict
def unpack(lanes: Any, rows: Any) -> None:
    """Write lanes into rows, as far as these go: the inverse of `pack`."""
    batch, n = rows.shape
    for block in range(lanes.shape[0]):
        start = block * lanes.shape[2]
        for first in range(0, n, TILE):
            for b in range(min(lanes.shape[2], batch - start)):
                for i in range(first, min(first + TILE, n)):
                    rows[start + b, i] = lanes[block, i, b]


@functools.cache
def distance_loop(width: int) -> Loop:
    """Return the loop that sets z, bits of floats, to max_i |u_i (x_i - w_i)|; strict."""

    def distance(x: Any, u: Any, w: Any, z: Any, part: Any) -> None:
        for block in range(x.shape[0]):
            for group in range(part[0], part[1]):
                j, z0 = 4 * group, z[block, group]
                z0[:] = 0
                for pair in range(x.shape[1]):
                    i, row = 2 * pair, x[block, pair]
                    u0, u1, u2, u3 = u[j, i], u[j + 1, i], u[j + 2, i], u[j + 3, i]
                    w0, w1, w2, w3 = w[j, i], w[j + 1, i], w[j + 2, i], w[j + 3, i]
                    i = i + 1
                    v0, v1, v2, v3 = u[j, i], u[j + 1, i], u[j + 2, i], u[j + 3, i]
                    a0, a1, a2, a3 = w[j, i], w[j + 1, i], w[j + 2, i], w[j + 3, i]
                    for b in range(width):
                        c, d, e = b + width, b + 2 * width, b + 3 * width
                        p, q = row[b], row[c]
                        z0[b] = max(z0[b], max(magnitude(u0 * (p - w0)), magnitude(v0 * (q - a0))))
                        z0[c] = max(z0[c], max(magnitude(u1 * (p - w1)), magnitude(v1 * (q - a1))))
                        z0[d] = max(z0[d], max(magnitude(u2 * (p - w2)), magnitude(v2 * (q - a2))))
                        z0[e] = max(z0[e], max(magnitude(u3 * (p - w3)), magnitude(v3 * (q - a3))))

    return _compiled(distance, fast=False)


@_strict
def raised_near(near: Any, lower: Any, upper: Any, u: Any, w: Any) -> Any:
    """Return the greater one of near and the least |u (x - w)| over [lower, upper]; as bits."""
    return max(near, bits(max(u * (lower - w), u * (w - upper))))


@_strict
def raised_far(far: Any, lower: Any, upper: Any, u: Any, w: Any) -> Any:
    """Return the greater one of far and the greatest |u (x - w)| over [lower, upper]; as bits of minus each."""
    return unsigned_max(far, unsigned_max(bits(u * (lower - w)), bits(u * (w - upper))))


@_strict
def greatest_magnitude(values: Any) -> Any:
    """Return the bits of max |values| of a matrix; of a NaN if there is one."""
    greatest = magnitude(values.dtype.type(0))
    for i in range(values.shape[0]):
        for j in range(values.shape[1]):
            greatest = max(greatest, magnitude(values[i, j]))
    return greatest


@functools.cache
def range_loop(width: int) -> Loop:
    """Return the loop that sets near and far, bits of floats, to the range of z over boxes lower <= upper; strict.

    With a = u (lower - w) and b = u (w - upper) it is near = max(a, b, 0) and far = -min(a, b), at most one of a and
    b being positive. Read as signed integers, bits of negative numbers lose against those of near, which starts from
    0; as unsigned integers they win, the more the greater the magnitude, so far is kept with its sign until the
    end. No difference or product may overflow or be NaN, which `extent` tells: it receives the
    bits of max |u| and of max |w| for each group.
    """

    def span(lower: Any, upper: Any, u: Any, w: Any, near: Any, far: Any, extent: Any, part: Any) -> None:
        for block in range(lower.shape[0]):
            for group in range(part[0], part[1]):
                j, n, f = 4 * group, near[block, group], far[block, group]
                n[:] = 0
                f[:] = 0
                extent[group, 0] = greatest_magnitude(u[j : j + 4])
                extent[group, 1] = greatest_magnitude(w[j : j + 4])
                for pair in range(lower.shape[1]):
                    i, low, high = 2 * pair, lower[block, pair], upper[block, pair]
                    u0, u1, u2, u3 = u[j, i], u[j + 1, i], u[j + 2, i], u[j + 3, i]
                    w0, w1, w2, w3 = w[j, i], w[j + 1, i], w[j + 2, i], w[j + 3, i]
                    i = i + 1
                    v0, v1, v2, v3 = u[j, i], u[j + 1, i], u[j + 2, i], u[j + 3, i]
                    a0, a1, a2, a3 = w[j, i], w[j + 1, i], w[j + 2, i], w[j + 3, i]
                    for b in range(width):
                        c, d, e = b + width, b + 2 * width, b + 3 * width
                        p, q, r, s = low[b], high[b], low[c], high[c]
                        n[b] = raised_near(raised_near(n[b], p, q, u0, w0), r, s, v0, a0)
                        f[b] = raised_far(raised_far(f[b], p, q, u0, w0), r, s, v0, a0)
                        n[c] = raised_near(raised_near(n[c], p, q, u1, w1), r, s, v1, a1)
                        f[c] = raised_far(raised_far(f[c], p, q, u1, w1), r, s, v1, a1)
                        n[d] = raised_near(raised_near(n[d], p, q, u2, w2), r, s, v2, a2)
                        f[d] = raised_far(raised_far(f[d], p, q, u2, w2), r, s, v2, a2)
                        n[e] = raised_near(raised_near(n[e], p, q, u3, w3), r, s, v3, a3)
                        f[e] = raised_far(raised_far(f[e], p, q, u3, w3), r, s, v3, a3)
                for b in range(4 * width):
                    f[b] = without_sign(f[b])

    return _compiled(span, fast=False)


@functools.cache
def winner_loop(width: int) -> Loop:
    """Return the loop that sets `marks` to the sum of n + i over the inputs i of n with |t_i| = z; strict.

    z holds the bits of non-negative floats, marks integers of the same width. n is even.
    """

    def winners(x: Any, u: Any, w: Any, z: Any, marks: Any, part: Any) -> None:
        zero = marks.dtype.type(0)
        for block in range(x.shape[0]):
            for group in range(part[0], part[1]):
                j, m0, z0 = 4 * group, marks[block, group], z[block, group]
                m0[:] = 0
                for pair in range(x.shape[1]):
                    i, row = 2 * pair, x[block, pair]
                    first = marks.dtype.type(u.shape[1] + i)
                    second = marks.dtype.type(u.shape[1] + i + 1)
                    u0, u1, u2, u3 = u[j, i], u[j + 1, i], u[j + 2, i], u[j + 3, i]
                    w0, w1, w2, w3 = w[j, i], w[j + 1, i], w[j + 2, i], w[j + 3, i]
                    i = i + 1
                    v0, v1, v2, v3 = u[j, i], u[j + 1, i], u[j + 2, i], u[j + 3, i]
                    a0, a1, a2, a3 = w[j, i], w[j + 1, i], w[j + 2, i], w[j + 3, i]
                    for b in range(width):
                        c, d, e = b + width, b + 2 * width, b + 3 * width
                        p, q = row[b], row[c]
                        m0[b] += first if magnitude(u0 * (p - w0)) == z0[b] else zero
                        m0[b] += second if magnitude(v0 * (q - a0)) == z0[b] else zero
                        m0[c] += first if magnitude(u1 * (p - w1)) == z0[c] else zero
                        m0[c] += second if magnitude(v1 * (q - a1)) == z0[c] else zero
                        m0[d] += first if magnitude(u2 * (p - w2)) == z0[d] else zero
                        m0[d] += second if magnitude(v2 * (q - a2)) == z0[d] else zero
                        m0[e] += first if magnitude(u3 * (p - w3)) == z0[e] else zero
                        m0[e] += second if magnitude(v3 * (q - a3)) == z0[e] else zero

    return _compiled(winners, fast=False)


# 2^(g - 1) for g in [1, 2] by powers of g: the least relative error, 7.5e-5, found by linear programming.
POWER_COEFFICIENTS = (0.4521351374965878, 0.47777100333934686, -0.00800516034674242, 0.07802424303167887)


def fixed_point_scale(dtype: np.dtype[Any]) -> float:
    """Return the factor that turns an exponent of e into a fixed-point exponent of 2 for `scaled_by_power`."""
    return float(np.log2(np.e)) * 2.0 ** int(np.finfo(dtype).nmant)


@functools.cache
def shared_feedback_loop(towards_input: bool, towards_parameters: bool) -> Loop:
    """Return the loop that computes the pseudogradients of s = max_i t_i^2 for a range of inputs; fast.

    Here the inputs are the innermost axis: x, grad_x `(batch, inputs)`, the rest as usual, so nothing is summed within
    a vector. A term's feedback exp(t^2 - s) g t is sign(g) t 2^e with the fixed-point exponent
    e = (t root)^2 - ceiling, where root^2 is `fixed_point_scale` and ceiling, `(batch, units)`, the same multiple of
    s - ln |g|. `sign` holds the sign bits of g as integers. grads: by x, to which is added what the caller multiplies
    by factor / root, by u and by w, times `factor`, which undoes root. numbers: POWER_COEFFICIENTS, 1, root and factor,
    as literal constants would be loaded again for each term (a fifth slower).
    """

    def shared_feedback(x: Any, u: Any, w: Any, ceiling: Any, sign: Any, numbers: Any, grads: Any, part: Any) -> None:
        c0, c1, c2, c3, one, root, factor = numbers
        (grad_x, grad_u, grad_w), (start, stop) = grads, part
        for j in range(u.shape[0]):
            weight, attractor = u[j, start:stop], w[j, start:stop]
            to_u, to_w = grad_u[j, start:stop], grad_w[j, start:stop]
            if towards_parameters:
                to_u[:], to_w[:] = 0, 0
            for b in range(x.shape[0]):
                row, out, most, flip = x[b, start:stop], grad_x[b, start:stop], ceiling[b, j], sign[b, j]
                for i in range(stop - start):
                    scaled = weight[i] * root
                    difference = row[i] - attractor[i]
                    t = scaled * difference
                    exponent = truncated(t * t - most)
                    g = fraction(exponent, one)
                    power = c0 + g * (c1 + g * (c2 + g * c3))
                    term = scaled_by_power(power, exponent) * flipped(t, flip)
                    if towards_parameters:
                        to_w[i] += term
                        to_u[i] += term * difference
                    if towards_input:
                        out[i] += scaled * term
            if towards_parameters:
                for i in range(stop - start):
                    to_w[i] *= -weight[i] * factor
                    to_u[i] *= factor

    return _compiled(shared_feedback, fast=True)
