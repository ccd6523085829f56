"""What each op computes in real arithmetic, as rows and bends of integers."""

from __future__ import annotations

import math
from collections.abc import Sequence

from verifier_check.integers import whole
from verifier_check.network import Network, Node
from verifier_check.refusals import Refused, Undecided
from verifier_check.windows import place, places_of, window_cells

# Rows are (places, weights): the entries of a matrix that are not zero; places None stands for all of them.
Row = tuple[Sequence[int] | None, Sequence[int]]


class Linear:
    """D_j y_j = 2^-scale (sum_i rows_ji x_i + bias_j) + e, e of a batch norm 0 to 2^-(scale/2) (x_i - mean)."""

    def __init__(self, parts: list[tuple[str, list[Row]]], scale: int = 0, bias: list[int] | None = None,
                 divisors: list[int] | None = None, means: list[int] | None = None) -> None:  # fmt: skip
        self.parts, self.scale, self.bias, self.divisors, self.means = parts, scale, bias, divisors, means


class Hinge:
    """y = x for x >= 0, else left x; left = p / 2^q, -1 <= left <= 1. first: the number of its first unit."""

    def __init__(self, source: str, left: tuple[int, int], first: int) -> None:
        self.source, self.left, self.first = source, left, first


class Greatest:
    """y_j = the greatest x_i, i of windows_j."""

    def __init__(self, source: str, windows: list[list[int]]) -> None:
        self.source, self.windows = source, windows


class Curve:
    """y_i = sigmoid(x_i) or tanh(x_i)."""

    def __init__(self, source: str, kind: str) -> None:
        self.source, self.kind = source, kind


Step = Linear | Hinge | Greatest | Curve


def made_step(node: Node, network: Network, units: int) -> Step:
    """Return what a node computes; units: of the hinges before it."""
    shapes, shape, kind, s, t = network.shapes, network.shapes[node.name], node.kind, node.settings, node.tensors
    given, source = shapes[node.inputs[0]], node.inputs[0]
    size, one = math.prod(shape), (1,)
    if kind in ("relu", "abs", "leaky-relu"):
        slope = {"relu": 0.0, "abs": -1.0}.get(kind, s.get("slope", 0.0))
        if not -1.0 <= slope <= 1.0:
            raise Refused(f"node {node.name!r}: slope {slope}")
        top, bottom = slope.as_integer_ratio()
        return Hinge(source, (top, bottom.bit_length() - 1), units)
    if kind in ("sigmoid", "tanh"):
        return Curve(source, kind)
    if kind == "affine":
        weights, scale = whole(t["weight"].values, whole(t["bias"].values)[1] if "bias" in t else 0)
        bias = whole(t["bias"].values, scale)[0] if "bias" in t else [0] * shape[-1]
        width, copies = given[-1], math.prod(shape[:-1])
        rows: list[Row] = []
        for copy, j in places_of((copies, shape[-1])):
            row = weights[j * width : (j + 1) * width]
            rows.append((None if copies == 1 else range(copy * width, (copy + 1) * width), row))
        return Linear([(source, rows)], scale, bias * copies)
    if kind == "conv2d":
        return _convolution(node, given, shape)
    if kind in ("max-pool2d", "average-pool2d"):
        area, cells = given[1] * given[2], window_cells(given, shape, s["kernel"], s)
        windows = [[c * area + cell for cell in window if cell >= 0] for c in range(shape[0]) for window in cells]
        if not all(windows):
            raise Refused(f"node {node.name!r}: a window lies in the padding alone")
        if kind == "max-pool2d":
            return Greatest(source, windows)
        counts = [math.prod(s["kernel"]) if s["count_padding"] else len(window) for window in windows]
        return Linear([(source, [(window, one * len(window)) for window in windows])], 0, None, counts)
    if kind in ("global-average-pool", "axis-sum"):
        axes = s["axes"] if kind == "axis-sum" else range(1, len(given))
        sums: dict[tuple[int, ...], list[int]] = {}
        for number, index in enumerate(places_of(given)):
            sums.setdefault(tuple(i for axis, i in enumerate(index) if axis not in axes), []).append(number)
        divisors = [s["size"]] * size if kind == "global-average-pool" else None
        return Linear([(source, [(found, one * len(found)) for _, found in sorted(sums.items())])], 0, None, divisors)
    if kind in ("add", "sub"):
        return Linear([(name, [((i,), (sign,)) for i in range(size)])
                       for name, sign in zip(node.inputs, (1, -1 if kind == "sub" else 1), strict=True)])  # fmt: skip
    if kind == "concat":
        axis, rest = s["axis"], given[s["axis"]]
        parts: list[tuple[str, list[Row]]] = [(name, []) for name in node.inputs]
        for index in places_of(shape):
            first = index[axis] < rest
            local = index if first else (*index[:axis], index[axis] - rest, *index[axis + 1 :])
            at = place(local, given if first else shapes[node.inputs[1]])
            parts[0][1].append(((at,), one) if first else ((), ()))
            parts[1][1].append(((), ()) if first else ((at,), one))
        return Linear(parts)
    if kind == "reshape":
        return Linear([(source, [((i,), one) for i in range(size)])])
    if kind in ("transpose", "slice"):
        order, steps = list(s.get("permutation", range(len(given)))), [(0, 1)] * len(given)
        if kind == "slice":
            steps[s["axis"]] = (s["start"], s["step"])
        moved: list[Row] = []
        for index in places_of(shape):
            cell = [a + b * index[order.index(axis)] for axis, (a, b) in enumerate(steps)]
            moved.append(((place(cell, given),), one))
        return Linear([(source, moved)])
    if kind == "gather":
        constant = whole(t["constant"].values if "constant" in t else [0.0])
        values = constant[0] * (size // len(constant[0]))
        taken = t["index"].values
        rows = [((i,), (1 << constant[1],)) if i >= 0 else ((), ()) for i in taken]
        return Linear([(source, rows)], constant[1], [0 if i >= 0 else v for i, v in zip(taken, values, strict=True)])
    if kind == "batch-norm":
        return _batch_norm(node, given)
    if kind.endswith("-constant"):
        own, axes = t["constant"], len(shape) - len(t["constant"].shape)
        spread = [place([i if n > 1 else 0 for i, n in zip(index[axes:], own.shape, strict=True)], own.shape)
                  for index in places_of(shape)]  # fmt: skip
        constants, scale = whole(own.values)
        values = [constants[i] for i in spread]
        if kind == "add-constant":
            return Linear([(source, [((i,), (1 << scale,)) for i in range(size)])], scale, values)
        if kind == "multiply-constant":
            return Linear([(source, [((i,), (value,)) for i, value in enumerate(values)])], scale)
        if 0 in values:
            raise Refused(f"node {node.name!r}: a divisor is zero")
        signs = [1 if value > 0 else -1 for value in values]
        rows = [((i,), (sign << scale,)) for i, sign in enumerate(signs)]
        return Linear([(source, rows)], 0, None, list(map(abs, values)))
    raise Undecided(f"node {node.name!r}: op {kind!r} is not supported")


def _convolution(node: Node, given: Sequence[int], shape: Sequence[int]) -> Linear:
    t, s = node.tensors, node.settings
    weights, scale = whole(t["weight"].values, whole(t["bias"].values)[1] if "bias" in t else 0)
    bias = whole(t["bias"].values, scale)[0] if "bias" in t else [0] * shape[0]
    _, channels, *kernel = t["weight"].shape
    area, cells, count = given[1] * given[2], window_cells(given, shape, kernel, s), channels * math.prod(kernel)
    rows: list[Row] = []
    for output in range(shape[0]):
        first = output // (shape[0] // s["groups"]) * channels
        own = weights[output * count : (output + 1) * count]
        for window in cells:
            at = [(first + c) * area + cell if cell >= 0 else -1 for c in range(channels) for cell in window]
            kept = [(i, w) for i, w in zip(at, own, strict=True) if i >= 0]
            rows.append(([i for i, _ in kept], [w for _, w in kept]))
    return Linear([(node.inputs[0], rows)], scale, [value for value in bias for _ in cells])


def _batch_norm(node: Node, given: Sequence[int]) -> Linear:
    """Return f (x - mean) + shift, f = scale / sqrt(variance + epsilon) to 512 bits, rounded down."""
    t, scale = node.tensors, 512
    epsilon = node.settings["epsilon"]
    rows, bias, means, each = list[Row](), list[int](), list[int](), math.prod(given[1:])
    for c in range(given[0]):
        (variance, eps), bits = whole([t["variance"].values[c], epsilon])
        (size,), own = whole([t["scale"].values[c]])
        if not variance + eps > 0 or variance < 0 or eps < 0:
            raise Refused(f"node {node.name!r}: a variance is not positive")
        root = math.isqrt((size * size << (2 * scale + bits)) // ((variance + eps) << (2 * own)))
        factor = root if size >= 0 else -root - 1
        (mean, shift), bits = whole([t["mean"].values[c], t["shift"].values[c]])
        if bits > scale:
            raise Undecided(f"node {node.name!r}: means or shifts of more than {scale} bits")
        rows += [((c * each + i,), (factor << scale,)) for i in range(each)]
        bias += [(shift << (2 * scale - bits)) - factor * (mean << (scale - bits))] * each
        means += [mean << (scale - bits)] * each
    return Linear([(node.inputs[0], rows)], 2 * scale, bias, None, means)
