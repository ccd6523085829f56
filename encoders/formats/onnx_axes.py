"""What operators that move values do to shapes: one meaning, for values that are computed and for constants."""

import math
from collections.abc import Sequence


def axis_of(axis: int, rank: int) -> int:
    """Return an axis counted from the front; negative ones count from the end. Raises ValueError if there is none."""
    if not -rank <= axis < rank:
        raise ValueError(f"axis {axis} does not exist among {rank}")
    return axis % rank


def axes_of(axes: Sequence[int], rank: int) -> list[int]:
    """Return axes counted from the front; raise ValueError if one does not exist or is given twice."""
    result = [axis_of(axis, rank) for axis in axes]
    if len(set(result)) != len(result):
        raise ValueError(f"axes {list(axes)} repeat")
    return result


def reshaped(shape: Sequence[int], wanted: Sequence[int], allow_zero: bool) -> list[int]:
    """Return the shape that Reshape gives: 0 copies a size, -1 is inferred."""
    if allow_zero and 0 in wanted:
        raise ValueError(f"allowzero with shape {list(wanted)} is not supported")
    if any(size == 0 and axis >= len(shape) for axis, size in enumerate(wanted)):
        raise ValueError(f"shape {list(wanted)} copies a size that {tuple(shape)} does not have")
    result = [shape[axis] if size == 0 else size for axis, size in enumerate(wanted)]
    if result.count(-1) == 1:
        known = math.prod(size for size in result if size != -1)
        result[result.index(-1)] = math.prod(shape) // max(known, 1)
    if min(result, default=1) < 1 or math.prod(result) != math.prod(shape):
        raise ValueError(f"shape {list(wanted)} does not fit {tuple(shape)}")
    return result


def flattened(shape: Sequence[int], axis: int) -> tuple[int, int]:
    """Return the shape that Flatten gives: the axes before `axis` as one, and those from it on."""
    if not -len(shape) <= axis <= len(shape):
        raise ValueError(f"axis {axis} does not exist in shape {tuple(shape)}")
    axis = axis + len(shape) if axis < 0 else axis
    return math.prod(shape[:axis]), math.prod(shape[axis:])


def squeezed(shape: Sequence[int], axes: Sequence[int]) -> list[int]:
    """Return the shape without axes of size 1."""
    removed = set(axes_of(axes, len(shape)))
    if any(shape[axis] != 1 for axis in removed):
        raise ValueError(f"axes {list(axes)} are not all of size 1 in {tuple(shape)}")
    return [size for axis, size in enumerate(shape) if axis not in removed]


def unsqueezed(shape: Sequence[int], axes: Sequence[int]) -> list[int]:
    """Return the shape with new axes of size 1, counted in the result."""
    rank = len(shape) + len(axes)
    added, sizes = set(axes_of(axes, rank)), iter(shape)
    return [1 if axis in added else next(sizes) for axis in range(rank)]


def sliced(size: int, start: int, stop: int, step: int) -> range:
    """Return the places that Slice takes of an axis. Unlike in Python, a start in front of the axis is its first place
    for negative steps too.
    """
    if step == 0:
        raise ValueError("step 0 is not supported")
    start, stop = (end + size if end < 0 else end for end in (start, stop))
    if step > 0:
        return range(min(max(start, 0), size), min(max(stop, 0), size), step)
    return range(min(max(start, 0), size - 1), min(max(stop, -1), size - 1), step)
