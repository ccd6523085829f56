"""What compiled loops over boxes of inputs share: layers, what is known of a box, and the loops' options.

Loops take both as named tuples of arrays. `evaluate` is the network itself, in floats.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar, cast

from numba import njit

# Sums may be reordered and fused; NaN and infinity keep their meaning. Without entries from Python, which loops inside
# others do not need, compiling takes less time.
OPTIONS: dict[str, Any] = {
    "nogil": True, "fastmath": {"reassoc", "contract"}, "error_model": "numpy", "no_cpython_wrapper": True,
    "no_cfunc_wrapper": True,
}  # fmt: skip
# The roundoff of float64; more than what underflow takes from any sum of `Layers`; multiples beyond are not tried.
U, UNDERFLOW, MOST_MULTIPLE = 2.0**-53, 1e-200, 1e50


Loop = TypeVar("Loop", bound=Callable[..., Any])


def inner(loop: Loop) -> Loop:
    """Return a loop compiled, for use in other compiled loops alone."""
    return cast(Loop, njit(**OPTIONS)(loop))


class Layers(NamedTuple):
    """A chain. Layer 0 is the input, the last one the rows.

    sizes: units by layer. weights: where each layer's matrix starts in `matrix`, row by row. units: where its units
    start in bias, error, linear. error: for each unit, what rounds where it is pulled back, for a coefficient of 1.
    linear: 1 for units that are no relus. groups: where each group's rows start, and their number.
    """

    sizes: Any
    weights: Any
    units: Any
    matrix: Any
    bias: Any
    error: Any
    linear: Any
    groups: Any


class Work(NamedTuple):
    """What is known of one box, and scratch.

    lower, upper: the box. least, greatest: of units. half: half-spaces `(rows, inputs + 1)`. slopes: `(units, inputs)`.
    count: units of a layer that are not off; which: these, from the layer's start on; part: their weights between such
    units; positive, negative, offset: lines below (slope) and above (slope, offset) these; bias, error: theirs.
    """

    lower: Any
    upper: Any
    least: Any
    greatest: Any
    half: Any
    slopes: Any
    count: Any
    which: Any
    part: Any
    positive: Any
    negative: Any
    offset: Any
    bias: Any
    error: Any
    rows: Any
    values: Any


@inner
def evaluate(layers: Any, work: Any, x: Any, values: Any) -> None:
    """Write into values those of the rows at a point, in floats."""
    last = len(layers.sizes) - 1
    for q in range(layers.sizes[0]):
        work.rows[0, q] = x[q]
    for layer in range(1, last + 1):
        n = layers.sizes[layer - 1]
        for j in range(layers.sizes[layer]):
            g, o = layers.units[layer] + j, layers.weights[layer] + j * n
            z = layers.bias[g]
            for q in range(n):
                z += layers.matrix[o + q] * work.rows[0, q]
            work.rows[1, j] = z if z > 0.0 or layers.linear[g] == 1 else 0.0
        for q in range(layers.sizes[layer]):
            work.rows[0, q] = work.rows[1, q]
    for r in range(layers.sizes[last]):
        values[r] = work.rows[0, r]
