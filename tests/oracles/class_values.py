"""The exact values and ranges of ops over the classes of an axis and of products, by their definitions."""

from itertools import pairwise
from typing import Any

import mpmath
import numpy as np

Exact = np.ndarray[Any, Any]
# exp of what lies below is smaller than any float, and takes mpmath minutes.
LEAST_EXPONENT = -(10**6)


def exponential(v: Any) -> Any:
    return mpmath.exp(v) if v > LEAST_EXPONENT else mpmath.ldexp(1, -2000)


def softmax_value(x: Exact, axis: int, logarithm: bool) -> Exact:
    """Return exp(x_i) / sum of exp(x_j) along an axis, or its logarithm."""
    moved = np.moveaxis(x, axis, -1)
    result = np.empty_like(moved)
    for place in np.ndindex(moved.shape[:-1]):
        row = moved[place]
        most = max(row)
        total = sum(exponential(v - most) for v in row)
        result[place] = [v - most - mpmath.log(total) if logarithm else exponential(v - most) / total for v in row]
    return np.moveaxis(result, -1, axis)


def softmax_range(low: Exact, high: Exact, axis: int, logarithm: bool) -> tuple[Exact, Exact]:
    """Return the least and the greatest value of each output: one input at one end, the others at the other."""
    ends = []
    for own, others in ((low, high), (high, low)):
        result = np.empty_like(low)
        for k in range(low.shape[axis]):
            place = [slice(None)] * low.ndim
            place[axis] = slice(k, k + 1)
            corner = others.copy()
            corner[tuple(place)] = own[tuple(place)]
            result[tuple(place)] = softmax_value(corner, axis, logarithm)[tuple(place)]
        ends.append(result)
    return ends[0], ends[1]


def first_greatest(x: Exact, axis: int, keep_axis: bool, number: Any) -> Exact:
    """Return the first place of the greatest value along an axis."""
    moved = np.moveaxis(x, axis, -1)
    result = np.empty(moved.shape[:-1], dtype=object)
    for place in np.ndindex(result.shape):
        row = list(moved[place])
        result[place] = number(float(row.index(max(row))))
    return np.expand_dims(result, axis) if keep_axis else result


def range_of_first_greatest(low: Exact, high: Exact, axis: int, keep_axis: bool, number: Any) -> tuple[Exact, Exact]:
    """Return the first and last place that can be the first of the greatest, each tried at the best corner for it."""
    places: dict[int, Exact] = {}
    for k in range(low.shape[axis]):
        corner = low.copy()
        place = [slice(None)] * low.ndim
        place[axis] = slice(k, k + 1)
        corner[tuple(place)] = high[tuple(place)]
        # A tie with one before it counts: the range is closed.
        moved = np.moveaxis(corner, axis, -1)
        places[k] = moved[..., k] == moved.max(axis=-1)
    possible = np.stack([places[k] for k in sorted(places)], axis=-1)
    first, last = possible.argmax(axis=-1), possible.shape[-1] - 1 - possible[..., ::-1].argmax(axis=-1)
    ends = [np.vectorize(lambda v: number(float(v)), otypes=[object])(end) for end in (first, last)]
    return (np.expand_dims(ends[0], axis), np.expand_dims(ends[1], axis)) if keep_axis else (ends[0], ends[1])


def k_winners_value(x: Exact, count: int, number: Any) -> Exact:
    """Return the units that fewer than `count` others precede, by size and then by index; zero for the others."""
    flat = x.reshape(-1).tolist()
    result = np.empty(len(flat), dtype=object)
    for i, own in enumerate(flat):
        before = sum(1 for j, other in enumerate(flat) if other > own or (other == own and j < i))
        result[i] = own if before < count else number(0.0)
    return result.reshape(x.shape)


def k_winners_range(low: Exact, high: Exact, count: int, number: Any) -> tuple[Exact, Exact]:
    """Return the ends of each output's values, closed, the unit tried at all places where its rank can change.

    Those are its ends and the ends of the others; between two of them the rank is that of the middle, whose piece
    reaches both. The others stand at their lower ends, where it wins if it ever does, or at their upper ends.
    """
    least, greatest = np.empty(low.size, dtype=object), np.empty(low.size, dtype=object)
    for i in range(low.size):
        values = []
        for others in (low, high):
            corner = others.reshape(-1).copy()
            first, last = low.reshape(-1)[i], high.reshape(-1)[i]
            places = sorted({first, last, *(v for v in corner.tolist() if first < v < last)})
            tried = [(x, [x]) for x in places] + [((a + b) / 2, [a, b]) for a, b in pairwise(places)]
            for x, reached in tried:
                corner[i] = x
                passes = k_winners_value(corner, count, number)[i] == x
                zero = k_winners_value(corner, count, number)[i] == 0
                values += reached if passes else []
                values += [number(0.0)] if zero else []
        least[i], greatest[i] = min(values), max(values)
    return least.reshape(low.shape), greatest.reshape(low.shape)


def product_range(low: list[Exact], high: list[Exact], of_matrices: bool) -> tuple[Exact, Exact, Exact]:
    """Return the least and greatest products of two inputs, flat, and the sizes of what is summed.

    Every factor of a sum stands in one term of an output, so its range is the sum of those of its terms.
    """
    ends = list(zip(low, high, strict=True))
    if of_matrices:
        shape = (*low[0].shape[:-2], low[0].shape[-2], low[0].shape[-1], low[1].shape[-1])
        first = [np.broadcast_to(end[..., None], shape) for end in ends[0]]
        second = [np.broadcast_to(end[..., None, :, :], shape) for end in ends[1]]
    else:
        first, second = ([end[..., None, None] for end in pair] for pair in ends)
    corners = [x * y for x in first for y in second]
    least, greatest = np.minimum.reduce(corners), np.maximum.reduce(corners)
    size = np.maximum(abs(least), abs(greatest)).sum(axis=-2)
    return least.sum(axis=-2).reshape(-1), greatest.sum(axis=-2).reshape(-1), size.reshape(-1)
