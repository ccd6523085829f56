"""Compiled loops of distances in a p-norm for training, p a power of two: z = (sum_i |x_i - w_i|^p)^(1/p).

The inputs are the innermost axis, and units go in pairs, which share loads of x. A power is squarings alone, a constant
of the compiled loop. Sums may be reordered: these loops guide training and decide nothing.
"""

import functools
from typing import Any, cast

from encoders.kept_loops import kept
from encoders.layers.mwd_numba_loops import FAST, Loop


def _compiled(function: Loop) -> Loop:
    options: dict[str, Any] = {"nogil": True, "fastmath": FAST, "error_model": "numpy"}
    return cast(Loop, kept("mwd_numba_*.py", **options)(function))


@functools.cache
def power_sum_loop(squarings: int) -> Loop:
    """Return the loop that sets sums to sum_i (a (x_i - w_i))^p, p = 2^squarings, for a range of units.

    x `(batch, inputs)`, w `(units, inputs)`, a and sums `(batch, units)`. floor: what squares are raised to, so that no
    power is denormal.
    """

    def power_sum(x: Any, w: Any, a: Any, floor: Any, sums: Any, part: Any) -> None:
        zero = x.dtype.type(0)
        for j in range(part[0], part[1], 2):
            k = min(j + 1, part[1] - 1)
            w0, w1 = w[j], w[k]
            for b in range(x.shape[0]):
                row, a0, a1 = x[b], a[b, j], a[b, k]
                s0, s1 = zero, zero
                for i in range(x.shape[1]):
                    t0, t1 = (row[i] - w0[i]) * a0, (row[i] - w1[i]) * a1
                    q0, q1 = max(t0 * t0, floor), max(t1 * t1, floor)
                    for _ in range(squarings - 1):
                        q0, q1 = q0 * q0, q1 * q1
                    s0 += q0
                    s1 += q1
                sums[b, j], sums[b, k] = s0, s1

    return _compiled(power_sum)


@functools.cache
def power_feedback_loop(squarings: int) -> Loop:
    """Return the loop that shares feedback g `(batch, units)` out: g t |t|^p with t = a (x_i - w_i), p = 2^squarings.

    It is added to grad_x and taken from grad_w, for a range of inputs.
    """

    def power_feedback(x: Any, w: Any, a: Any, g: Any, floor: Any, grad_x: Any, grad_w: Any, part: Any) -> None:
        start, stop = part
        zero = x.dtype.type(0)
        for j in range(0, w.shape[0], 2):
            k = min(j + 1, w.shape[0] - 1)
            w0, w1, to0, to1 = w[j, start:stop], w[k, start:stop], grad_w[j, start:stop], grad_w[k, start:stop]
            for b in range(x.shape[0]):
                row, out, a0, a1, g0 = x[b, start:stop], grad_x[b, start:stop], a[b, j], a[b, k], g[b, j]
                # The last of an odd number stands in both places.
                g1 = g[b, k] if k > j else zero
                for i in range(stop - start):
                    t0, t1 = (row[i] - w0[i]) * a0, (row[i] - w1[i]) * a1
                    q0, q1 = max(t0 * t0, floor), max(t1 * t1, floor)
                    for _ in range(squarings - 1):
                        q0, q1 = q0 * q0, q1 * q1
                    e0, e1 = q0 * (t0 * g0), q1 * (t1 * g1)
                    to0[i] -= e0
                    to1[i] -= e1
                    out[i] += e0 + e1

    return _compiled(power_feedback)
