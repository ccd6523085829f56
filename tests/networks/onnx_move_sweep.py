"""Random nodes of the ONNX operators that pick, repeat, pad, mask and sum, for the sweep of files."""

from __future__ import annotations

import numpy as np
import onnx

from tests.networks.onnx_drawing import Drawing, Shape


def indices(d: Drawing, below: int, shape: Shape) -> str:
    """Return constant indices of one axis, negative ones among them."""
    least = -below if d.opset >= 11 else 0
    return d.stored(d.random.integers(least, below, size=shape).astype(d.choice([np.int64, np.int32])))


def inner_axis(d: Drawing, shape: Shape) -> int:
    """Return an axis behind the first, where there is one."""
    return d.integer(min(1, len(shape) - 1), len(shape) - 1)


def gather(d: Drawing, x: str, shape: Shape) -> str:
    axis = d.axis(len(shape)) if d.chance(0.2) else inner_axis(d, shape)
    return d.add("Gather", x, indices(d, shape[axis], d.choice([(), (1,), (4,), (2, 3)])), axis=axis)


def by_element(d: Drawing, x: str, shape: Shape) -> str:
    """Return a node that takes or replaces single entries along an axis."""
    if d.opset < 11:
        return gather(d, x, shape)
    axis = d.axis(len(shape))
    sizes = tuple(
        d.integer(1, size) if i == axis % len(shape) or d.chance(0.3) else size for i, size in enumerate(shape)
    )
    if d.chance():
        return d.add("GatherElements", x, indices(d, shape[axis], sizes), axis=axis)
    places = np.argsort(d.random.random(shape), axis=axis)
    if d.chance(0.2):
        places[:] = 0
    places = places[tuple(slice(n) for n in sizes)]
    reduction = d.choice([None, "none", "none", "add"])
    updates = d.weight(*sizes)
    data = [x, d.stored(places), updates]
    if d.chance(0.3) and sizes == shape:
        data = [d.weight(*shape), d.stored(places), x]
    return d.add("ScatterElements", *data, axis=axis, reduction=reduction)


def by_place(d: Drawing, x: str, shape: Shape) -> str:
    """Return a node that takes or replaces entries or parts by their places."""
    if d.opset < 11:
        return gather(d, x, shape)
    depth = d.integer(1, len(shape))
    batch = d.choice([0, 0, 1]) if depth < len(shape) else 0
    count = d.integer(1, 3)
    rows = [d.random.integers(-size, size, size=count) for size in shape[batch : batch + depth]]
    places = np.stack(rows, axis=-1).astype(np.int64)
    if d.chance():
        lead = (shape[0],) if batch else ()
        return d.add("GatherND", x, d.stored(np.broadcast_to(places, (*lead, *places.shape))), batch_dims=batch or None)
    if not d.chance(0.2):
        places = np.unique(np.mod(places, shape[batch : batch + depth]), axis=0)
    rest = shape[depth:]
    if batch:
        places = np.mod(places, np.array(shape[:depth]))
    updates = d.weight(len(places), *rest)
    return d.add("ScatterND", x, d.stored(places), updates, reduction=d.choice([None, "none", "none", "add"]))


def pad(d: Drawing, x: str, shape: Shape) -> str:
    rank = len(shape)
    axes = sorted(d.random.permutation(rank)[: d.integer(1, rank)].tolist()) if d.opset >= 18 and d.chance() else None
    count = rank if axes is None else len(axes)
    low = -1 if d.chance(0.3) else 0
    widths = [d.integer(low, 2) for _ in range(2 * count)]
    if d.chance(0.8) and (axes is None or axes[0] == 0):
        widths[0] = widths[count] = 0
    mode = d.choice([None, "constant", "constant", "reflect", "edge", "wrap" if d.opset >= 19 else "edge"])
    value = d.choice([None, 0.0, 0.7])
    if d.opset < 11:
        return d.add("Pad", x, pads=widths, mode=mode, value=value)
    inputs = [x, d.stored(np.array(widths, np.int64))]
    if value is not None or axes is not None:
        inputs.append(d.stored(np.asarray(value or 0.0, d.dtype)) if value is not None else "")
    if axes is not None:
        inputs.append(d.stored(np.array([axis - rank if d.chance() else axis for axis in axes], np.int64)))
    return d.add("Pad", *inputs, mode=mode)


def repeat(d: Drawing, x: str, shape: Shape) -> str:
    match d.integer(0, 3):
        case 0:
            counts = [1 if axis == 0 and d.chance(0.9) else d.integer(1, 3) for axis in range(len(shape))]
            return d.add("Tile", x, d.stored(np.array(counts, np.int64)))
        case 1:
            wide = d.axes("Unsqueeze", x, [d.integer(1, len(shape))], 13)
            wanted = [d.choice([1, 4]), *[1] * d.integer(0, len(shape))]
            return d.add("Expand", wide, d.stored(np.array(wanted, np.int64)))
        case 2 if d.opset >= 9:
            sizes = tuple(d.choice([size, size, 1]) for size in shape)[d.integer(0, len(shape) - 1) :]
            mask = d.stored(d.random.random(sizes) < 0.5)
            other = d.choice([d.weight(*d.choice([(), shape[-1:], (1, *shape[1:])])), d.add("Neg", x)])
            return d.add("Where", mask, *([x, other] if d.chance() else [other, x]))
        case _:
            axis = inner_axis(d, shape) if d.chance(0.9) else d.axis(len(shape))
            sizes = tuple(2 if i == axis % len(shape) else size for i, size in enumerate(shape))
            parts = [x, d.weight(*sizes), d.add("Neg", x)]
            return d.add("Concat", *(parts[int(i)] for i in d.random.permutation(3)), axis=axis)


def blocks(d: Drawing, x: str, shape: Shape) -> str:
    if len(shape) != 4 or shape[1] % 4:
        return triangle(d, x, shape)
    spread = d.add("DepthToSpace", x, blocksize=2, mode=d.choice([None, "DCR", "CRD"]))
    return spread if d.chance() else d.add("SpaceToDepth", spread, blocksize=2)


def triangle(d: Drawing, x: str, shape: Shape) -> str:
    if d.opset < 14 or len(shape) < 2:
        return repeat(d, x, shape)
    offset = [d.stored(np.array(d.integer(-2, 2), np.int64))] if d.chance(0.7) else []
    return d.add("Trilu", x, *offset, upper=d.choice([None, 0, 1]))


def split(d: Drawing, x: str, shape: Shape) -> str:
    """Return the parts of an axis, the last one in front."""
    axis = inner_axis(d, shape) if d.chance(0.9) else d.axis(len(shape))
    size = shape[axis]
    count = d.choice([n for n in range(1, size + 1) if size % n == 0 or d.chance(0.2)])
    cuts = sorted(d.random.permutation(np.arange(1, size))[: count - 1].tolist())
    lengths = np.diff([0, *cuts, size]).tolist() if d.chance(0.6) else None
    names = [f"{len(d.nodes)}-{i}" for i in range(count)]
    inputs = [x]
    attributes = {"axis": axis if axis or d.chance() else None}
    if lengths is not None and d.opset >= 13:
        inputs.append(d.stored(np.array(lengths, np.int64)))
    elif lengths is not None:
        attributes["split"] = lengths
    elif d.opset >= 18:
        attributes["num_outputs"] = count
    given = {name: value for name, value in attributes.items() if value is not None}
    d.nodes.append(onnx.helper.make_node("Split", inputs, names, **given))
    return d.add("Concat", *reversed(names), axis=axis) if d.chance(0.7) else d.add("Neg", names[-1])


def reduction(d: Drawing, x: str, shape: Shape) -> str:
    operator = d.choice(["ReduceSum", "ReduceMax", "ReduceMin", "ReduceMean"])
    rank = len(shape)
    axes = [int(axis) for axis in d.random.permutation(rank)[: d.integer(1, rank)]]
    if d.chance(0.9):
        axes = [axis for axis in axes if axis] or [rank - 1]
    axes = [axis - rank if d.chance() else axis for axis in axes]
    since = 13 if operator == "ReduceSum" else 18
    return d.axes(
        operator,
        x,
        d.choice([axes, axes, axes, axes, None, [] if d.opset >= since else None]),
        since,
        keepdims=d.choice([None, 0, 1]),
        noop_with_empty_axes=d.choice([None, 0, 1]),
    )


def several(d: Drawing, x: str, shape: Shape) -> str:
    """Return a sum or mean of several inputs, or a sum of two that are broadcast together."""
    kept = [inner_axis(d, shape)]
    if d.chance():
        return d.add(d.choice(["Add", "Sub"]), *d.random.permutation([x, d.axes("ReduceSum", x, kept, 13)]).tolist())
    inputs = [x, d.add("Neg", x), d.weight(*shape[1:])][: d.integer(1, 3)]
    return d.add(d.choice(["Sum", "Mean"]), *inputs)


def einsum(d: Drawing, x: str, shape: Shape) -> str:
    """Return a sum over letters of the value and of a constant or none, in any order."""
    if d.opset < 12:
        return reduction(d, x, shape)
    letters = "bcdefgh"[: len(shape)]
    shared = [letter for letter in letters[1:] if d.chance()]
    new = "xy"[: d.integer(0, 2)]
    term = "".join(d.random.permutation([*shared, *new]).tolist()) if d.chance(0.8) else ""
    kept = [letter for letter in letters if letter not in shared and (letter == "b" or d.chance(0.8))]
    result = "b" + "".join(
        d.random.permutation([*kept[1:], *(new if term else ""), *(shared[:1] if d.chance(0.1) else [])])
    )
    sizes = dict(zip(letters, shape, strict=True)) | {"x": 2, "y": 3}
    pairs = [(letters, x)] + ([(term, d.weight(*(sizes[letter] for letter in term)))] if term else [])
    pairs = pairs[::-1] if d.chance(0.3) else pairs
    return d.add("Einsum", *(name for _, name in pairs), equation=",".join(part for part, _ in pairs) + "->" + result)


MOVES = (gather, gather, by_element, by_element, by_place, by_place, pad, pad, repeat, repeat, repeat, blocks, triangle)
MOVES = (*MOVES, split, split, reduction, reduction, reduction, several, einsum, einsum)
