"""The box of a node's value over the boxes of its inputs, in integers rounded outward."""

from __future__ import annotations

from typing import Any

from verifier_check.boxes import Distances, Ends
from verifier_check.curves import curve_value
from verifier_check.ops import Curve, Greatest, Hinge


def range_of(step: Any, ends: dict[str, Ends], bits: int) -> Ends:
    """Return the box of a node's value over the boxes of its inputs."""
    if isinstance(step, Greatest):
        low, high = ends[step.source]
        return [max(low[i] for i in w) for w in step.windows], [max(high[i] for i in w) for w in step.windows]
    if isinstance(step, Distances):
        found = [unit.outputs(*unit.distances(*ends[step.source])) for unit in step.units]
        return [low for low, _ in found], [high for _, high in found]
    if isinstance(step, Curve):
        values = [[curve_value(step.kind, x, bits) for x in side] for side in ends[step.source]]
        return [low for low, _ in values[0]], [high for _, high in values[1]]
    if isinstance(step, Hinge):
        (top, shift), (low, high) = step.left, ends[step.source]
        at_low = [v if v >= 0 else top * v >> shift for v in low]
        at_high = [v if v >= 0 else -(-top * v >> shift) for v in high]
        if top >= 0:
            return at_low, at_high
        # It falls left of zero: rounded down at the right end, up at the left one.
        falls = [v if v >= 0 else top * v >> shift for v in high]
        climbs = [v if v >= 0 else -(-top * v >> shift) for v in low]
        least = [0 if a <= 0 <= b else min(x, y) for a, b, x, y in zip(low, high, at_low, falls, strict=True)]
        return least, [max(x, y) for x, y in zip(climbs, at_high, strict=True)]
    count = len(step.parts[0][1])
    lows = [value << bits for value in step.bias] if step.bias else [0] * count
    highs = lows[:]
    for source, rows in step.parts:
        low, high = ends[source]
        for j, (places, weights) in enumerate(rows):
            at = range(len(low)) if places is None else places
            lows[j] += sum(w * (low[i] if w > 0 else high[i]) for i, w in zip(at, weights, strict=True))
            highs[j] += sum(w * (high[i] if w > 0 else low[i]) for i, w in zip(at, weights, strict=True))
    divisors = step.divisors or [1] * count
    lows = [v // (d << step.scale) for v, d in zip(lows, divisors, strict=True)]
    highs = [-(-v // (d << step.scale)) for v, d in zip(highs, divisors, strict=True)]
    if step.means:
        errors = batch_norm_errors(step, *ends[step.parts[0][0]], bits)
        lows, highs = (list(map(sum, zip(a, b, strict=True))) for a, b in zip((lows, highs), errors, strict=True))
    return lows, highs


def batch_norm_errors(step: Any, low: list[int], high: list[int], bits: int) -> Ends:
    """Return between what the error of a batch norm lies, from the box of its input."""
    half = step.scale // 2
    away = [(a << half, b << half, m << bits) for a, b, m in zip(low, high, step.means, strict=True)]
    return (
        [min(0, a - m) >> (2 * half) for a, _, m in away],
        [-(-max(0, b - m) >> (2 * half)) for _, b, m in away],
    )
