"""The network of a native file as rows and bends of integers, for `verifier_check`; the standard library alone.

It follows docs/certificate-format.md, from which alone it was made: the bytes of the file, the digest, the shapes, the
rewrites of a classifier and of max pools, and what each op computes in real arithmetic.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import struct
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

INPUT = "input"
# What bytes that are not what they should be raise.
# RuntimeError: encrypted members of an archive, nesting that is too deep, compression that is unknown. ArithmeticError:
# numbers beyond the floats, strides of zero.
MALFORMED = (KeyError, TypeError, ValueError, IndexError, ArithmeticError, AttributeError, RuntimeError, MemoryError,
             OSError, EOFError, struct.error, zipfile.BadZipFile, zlib.error)  # fmt: skip
# Rows are (places, weights): the entries of a matrix that are not zero; places None stands for all of them.
Row = tuple[Sequence[int] | None, Sequence[int]]


class Refused(Exception):
    """What is claimed is not proved."""


class Undecided(Exception):
    """What is claimed needs something that is not supported here."""


# ------------------------------------------------------------------------------------------------- the network's file


# By the name in the file: code of a number, bytes, name in a digest.
TYPES = {
    "F64": ("d", 8, "torch.float64"), "F32": ("f", 4, "torch.float32"), "F16": ("e", 2, "torch.float16"),
    "BF16": ("H", 2, "torch.bfloat16"), "I64": ("q", 8, "torch.int64"), "BOOL": ("?", 1, "torch.bool"),
}  # fmt: skip


class Tensor:
    """Stored numbers: their type, shape and bytes."""

    def __init__(self, kind: str, shape: list[int], data: bytes) -> None:
        self.kind, self.shape, self.data = kind, tuple(shape), data
        code, size, self.name = TYPES[kind]
        if len(data) != size * math.prod(self.shape) or min(self.shape, default=1) < 0:
            raise Refused(f"a tensor of shape {shape} has {len(data)} bytes")
        values: list[Any] = list(struct.unpack(f"<{math.prod(self.shape)}{code}", data))
        if kind == "BF16":
            values = [struct.unpack("<f", struct.pack("<I", half << 16))[0] for half in values]
        if not all(map(math.isfinite, values)):
            raise Refused("the network holds NaN or infinity")
        self.values = values


class Node:
    """An op of a network: its kind, where its inputs come from, settings, and tensors in the order of a digest."""

    def __init__(self, name: str, kind: str, inputs: list[str], settings: dict[str, Any], tensors: dict[str, Tensor]):
        self.name, self.kind, self.inputs, self.settings, self.tensors = name, kind, inputs, settings, tensors


# By kind: its settings, and its tensors in the order of a digest; what has a question mark may be missing.
OPS = {
    "affine": ((), ("weight", "bias?")),
    "conv2d": (("stride", "padding", "dilation", "groups"), ("weight", "bias?")),
    "add": ((), ()), "sub": ((), ()), "relu": ((), ()), "abs": ((), ()), "sigmoid": ((), ()), "tanh": ((), ()),
    "add-constant": ((), ("constant",)), "multiply-constant": ((), ("constant",)),
    "divide-constant": ((), ("constant",)),
    "reshape": (("shape",), ()), "transpose": (("permutation",), ()), "concat": (("axis",), ()),
    "slice": (("axis", "start", "stop", "step"), ()), "gather": ((), ("index", "constant?")),
    "axis-sum": (("axes", "size", "keep_axes"), ()),
    "batch-norm": (("epsilon",), ("mean", "variance", "scale", "shift")),
    "average-pool2d": (("kernel", "stride", "padding", "count_padding"), ()),
    "global-average-pool": (("size", "keep_axes"), ()),
    "max-pool2d": (("kernel", "stride", "padding", "dilation"), ()),
    "leaky-relu": (("slope",), ()), "softmax": (("axis",), ()), "log-softmax": (("axis",), ()),
    "mwd": (("link?",), ("weight", "attractor", "negated", "bias?")),
    "mwd-conv2d": (("stride", "padding"), ("weight", "attractor", "negated")),
}  # fmt: skip
REAL_SETTINGS = {"slope", "epsilon"}


class Network:
    """Nodes in their order, the last one the output; shapes of all values."""

    def __init__(self, nodes: list[Node], shape: Sequence[int], dtype: str) -> None:
        self.nodes, self.input_shape, self.dtype = nodes, tuple(shape), dtype
        self.shapes: dict[str, tuple[int, ...]] = {INPUT: self.input_shape}
        for node in nodes:
            if node.name in self.shapes or any(name not in self.shapes for name in node.inputs):
                raise Refused(f"node {node.name!r}: its name is taken, or an input is no earlier node")
            self.shapes[node.name] = output_shape(node, [self.shapes[name] for name in node.inputs])

    @property
    def digest(self) -> str:
        """SHA-256 of all but the names."""
        numbers = {INPUT: 0} | {node.name: i + 1 for i, node in enumerate(self.nodes)}
        found = hashlib.sha256(json.dumps([list(self.input_shape), f"torch.{self.dtype}"]).encode())
        for node in self.nodes:
            wiring = [numbers[name] for name in node.inputs]
            found.update(json.dumps([node.kind, node.settings, wiring], sort_keys=True).encode())
            for name, tensor in node.tensors.items():
                found.update(json.dumps([name, tensor.name, list(tensor.shape)]).encode() + tensor.data)
        return found.hexdigest()


def read_network(content: bytes) -> Network:
    """Return the network of a file's bytes; Refused if it is none, Undecided if an op is not supported."""
    try:
        length = int.from_bytes(content[:8], "little")
        header = json.loads(content[8 : 8 + length])
        texts, data = header.pop("__metadata__"), content[8 + length :]
        if texts["format"] != "robustness-verifier-network" or texts["schema"] != "1":
            raise Refused(f"it is of format {texts['format']!r:.60}, schema {texts['schema']!r:.60}")
        graph = json.loads(texts["network"])
        nodes = [_node(index, entry, header, data) for index, entry in enumerate(graph["nodes"])]
        if header or graph["dtype"] not in ("float32", "float64") or not nodes:
            raise Refused("it holds tensors of no node, another dtype, or no node")
        return Network(nodes, graph["input_shape"], graph["dtype"])
    except MALFORMED as error:
        raise Refused(f"it is no network file: {type(error).__name__} {error}") from None


def _node(index: int, entry: dict[str, Any], header: dict[str, Any], data: bytes) -> Node:
    kind, settings, inputs = entry["op"], dict(entry["settings"]), list(entry["inputs"])
    if kind not in OPS:
        raise Undecided(f"node {entry['name']!r}: op {kind!r} is not supported")
    names, tensors = OPS[kind][0], {}
    known = {name.rstrip("?") for name in names}
    if not {name for name in names if name in known} <= settings.keys() <= known or len(inputs) != 1 + (
        kind in ("add", "sub", "concat")
    ):
        raise Refused(f"node {entry['name']!r} ({kind}): settings {sorted(settings)}, {len(inputs)} inputs")
    settings |= {name: float(settings[name]) for name in REAL_SETTINGS & settings.keys()}
    for name in OPS[kind][1]:
        stored = header.pop(f"{index}.{name.rstrip('?')}", None)
        if stored is not None:
            start, end = stored["data_offsets"]
            if not 0 <= start <= end <= len(data):
                raise Refused(f"node {entry['name']!r}: tensor {name!r} lies outside the file")
            tensors[name.rstrip("?")] = Tensor(stored["dtype"], stored["shape"], data[start:end])
        elif not name.endswith("?"):
            raise Refused(f"node {entry['name']!r}: tensor {name!r} is missing")
    return Node(str(entry["name"]), kind, inputs, settings, tensors)


# ------------------------------------------------------------------------------------------------ shapes, and rewrites


def output_shape(node: Node, shapes: list[tuple[int, ...]]) -> tuple[int, ...]:
    """Return the shape of a node's value; Refused if its inputs do not fit."""
    shape, kind, s, t = shapes[0], node.kind, node.settings, node.tensors
    size, fits = math.prod(shape), True
    found: tuple[int, ...] = shape
    if kind == "affine":
        found, fits = (
            (*shape[:-1], t["weight"].shape[0]),
            len(t["weight"].shape) == 2 and shape[-1] == t["weight"].shape[1],
        )
        fits = fits and ("bias" not in t or t["bias"].shape == found[-1:])
    elif kind in ("conv2d", "max-pool2d", "average-pool2d"):
        kernel, channels = s.get("kernel", ()), shape[0]
        if kind == "conv2d":
            kernel, channels = t["weight"].shape[2:], t["weight"].shape[0]
            fits = len(t["weight"].shape) == 4 and t["weight"].shape[1] * s["groups"] == shape[0]
            fits = fits and channels % s["groups"] == 0 and ("bias" not in t or t["bias"].shape == (channels,))
        dilation, pad, stride = s.get("dilation", (1, 1)), s["padding"], s["stride"]
        fits = fits and len(shape) == 3 and min(*kernel, *stride, *dilation) >= 1 and min(pad) >= 0
        spans = [shape[a + 1] + pad[a] + pad[a + 2] - dilation[a] * (kernel[a] - 1) - 1 for a in (0, 1)]
        found = (channels, *(span // step + 1 for span, step in zip(spans, stride, strict=True)))
    elif kind in ("add", "sub"):
        fits = shapes[0] == shapes[1]
    elif kind == "reshape":
        found, fits = tuple(s["shape"]), math.prod(s["shape"]) == size
    elif kind == "transpose":
        found, fits = tuple(shape[axis] for axis in s["permutation"]), sorted(s["permutation"]) == [*range(len(shape))]
    elif kind == "concat":
        axis = s["axis"]
        rest = [each[:axis] + each[axis + 1 :] for each in shapes]
        found, fits = (
            (*shape[:axis], shape[axis] + shapes[1][axis], *shape[axis + 1 :]),
            axis >= 0 and rest[0] == rest[1],
        )
    elif kind == "slice":
        axis, places = s["axis"], range(s["start"], s["stop"], s["step"])
        found = (*shape[:axis], len(places), *shape[axis + 1 :])
        fits = axis >= 0 and s["step"] >= 1 and 0 <= s["start"] < s["stop"] <= shape[axis]
    elif kind == "gather":
        found, least = t["index"].shape, min(t["index"].values)
        fits = t["index"].kind == "I64" and max(t["index"].values) < size and least >= (-1 if "constant" in t else 0)
        fits = fits and ("constant" not in t or t["constant"].shape in ((), found))
    elif kind == "axis-sum":
        axes = s["axes"]
        kept = [(axis, 1 if axis in axes else n) for axis, n in enumerate(shape) if s["keep_axes"] or axis not in axes]
        found, fits = tuple(n for _, n in kept), math.prod(shape[axis] for axis in axes) == s["size"]
    elif kind == "global-average-pool":
        found, fits = (shape[0], *([1] * (len(shape) - 1) if s["keep_axes"] else [])), math.prod(shape[1:]) == s["size"]
    elif kind == "batch-norm":
        fits = all(each.shape == shape[:1] for each in t.values())
    elif kind in ("mwd", "mwd-conv2d"):
        found, fits = _distance_shape(node, shape)
    elif kind.endswith("-constant"):
        own = t["constant"].shape
        fits = len(own) <= len(shape) and all(n in (1, m) for n, m in zip(own[::-1], shape[::-1], strict=False))
    if not fits or min(found, default=1) < 1:
        raise Refused(f"node {node.name!r} ({kind}) does not fit inputs of {shapes}")
    return found


def _distance_shape(node: Node, shape: tuple[int, ...]) -> tuple[tuple[int, ...], bool]:
    """Return the shape of the value of a layer of distances, and whether its tensors and settings fit an input."""
    s, t, weight = node.settings, node.tensors, node.tensors["weight"].shape
    fits = t["attractor"].shape == weight and t["negated"].shape == weight[:1] and t["negated"].kind == "BOOL"
    linear = s.get("link") == "linear"
    fits = fits and (linear or "link" not in s) and ("bias" not in t or (linear and t["bias"].shape == weight[:1]))
    if node.kind == "mwd":
        return weight[:1], fits and len(weight) == 2 and weight[1:] == shape
    fits = fits and len(weight) == 4 and len(shape) == 3 and weight[1] == shape[0]
    pad, stride, kernel = s["padding"], s["stride"], weight[2:]
    fits = fits and min(stride) >= 1 and all(0 <= p < k for p, k in zip(pad, (*kernel, *kernel), strict=True))
    spans = [shape[a + 1] + pad[a] + pad[a + 2] - kernel[a] for a in (0, 1)]
    return (weight[0], *(span // step + 1 for span, step in zip(spans, stride, strict=True))), fits


def scores(network: Network) -> Network:
    """Return the network of one score for each class: without last ops that keep the order; two for one output."""
    nodes, name, level, single = {n.name: n for n in network.nodes}, network.nodes[-1].name, None, False
    if math.prod(network.shapes[name]) == 1:
        single = True
        while name in nodes and (kind := nodes[name].kind) in ("reshape", "sigmoid", "tanh"):
            own = {"reshape": None, "sigmoid": 0.5, "tanh": 0.0}[kind]
            if own is not None and own != (own if level is None else 0.0):
                break
            level, name = own if level is None else level, nodes[name].inputs[0]
    else:
        while name in nodes and nodes[name].kind in ("reshape", "sigmoid", "tanh", "softmax", "log-softmax"):
            shape = network.shapes[nodes[name].inputs[0]]
            if nodes[name].kind.endswith("softmax") and shape[nodes[name].settings["axis"]] != math.prod(shape):
                break
            name = nodes[name].inputs[0]
    shape = network.shapes[name]
    extra = (
        []
        if len(shape) == 1 and (single or name != INPUT)
        else [Node("", "reshape", [], {"shape": [math.prod(shape)]}, {})]
    )
    if single:
        code = {"float32": "f", "float64": "d"}[network.dtype]
        weight = Tensor({"f": "F32", "d": "F64"}[code], [2, 1], struct.pack(f"<2{code}", 0.0, 1.0))
        extra.append(Node("", "affine", [], {}, {"weight": weight}))
    made, needed = [], {name}
    for node in reversed(network.nodes):
        if node.name in needed:
            needed.update(node.inputs)
            made.append(node)
    made.reverse()
    for number, node in enumerate(extra):
        made.append(Node(f"scores {number}", node.kind, [name], node.settings, node.tensors))
        name = made[-1].name
    return Network(made, network.input_shape, network.dtype)


def without_max_pools(network: Network) -> Network:
    """Return the network with each max pool as a tree of relus, max(a, b) = b + relu(a - b), rows before columns."""
    made = {node.name: node for node in network.nodes}
    if all(node.kind != "max-pool2d" for node in network.nodes):
        return network
    taken, nodes = set(made), list[Node]()
    rising = {name for name, node in made.items() if node.kind in ("relu", "leaky-relu")}
    fresh = (f"pool-{i}" for i in itertools.count())
    for node in network.nodes:
        before = made.get(node.inputs[0])
        if node.kind == "max-pool2d" and before is not None and before.name in rising:
            # The pool of a rising hinge is the hinge of the pool.
            name = next(each for each in fresh if each not in taken)
            taken.add(name)
            nodes.append(Node(name, node.kind, before.inputs, node.settings, {}))
            nodes.append(Node(node.name, before.kind, [name], before.settings, {}))
        else:
            nodes.append(node)
    read = {name for node in nodes for name in node.inputs} | {network.nodes[-1].name}
    pooled = {node.inputs[0] for node in network.nodes if node.kind == "max-pool2d"} & rising
    nodes = [node for node in nodes if node.name in read or node.name not in pooled]
    found = list[Node]()
    for node in nodes:
        is_pool = node.kind == "max-pool2d"
        found += _pool(node, network.shapes[node.inputs[0]], taken) if is_pool else [node]
    return Network(found, network.input_shape, network.dtype)


def _pool(node: Node, shape: tuple[int, ...], taken: set[str]) -> list[Node]:
    nodes, value = list[Node](), node.inputs[0]
    names = (f"{node.name}-{i}" for i in itertools.count())

    def push(kind: str, inputs: list[str], **settings: int) -> str:
        nodes.append(Node(next(name for name in names if name not in taken), kind, inputs, settings, {}))
        return nodes[-1].name

    def gathered(axis: int, places: tuple[int, ...]) -> str:
        if places == tuple(range(shape[axis])):
            return value
        runs = list[list[int]]()
        for place in places:
            run = runs[-1] if runs else []
            step = run[1] - run[0] if len(run) > 1 else place - run[0] if run else 0
            if step >= 1 and place - run[-1] == step:
                run.append(place)
            else:
                runs.append([place])
        joined = ""
        for run in runs:
            step = run[1] - run[0] if len(run) > 1 else 1
            part = push("slice", [value], axis=axis, start=run[0], stop=run[-1] + 1, step=step)
            joined = push("concat", [joined, part], axis=axis) if joined else part
        return joined

    s, outputs = node.settings, output_shape(node, [shape])
    for axis in (1, 2):
        kernel, stride, pad, dilation = (s[name][axis - 1] for name in ("kernel", "stride", "padding", "dilation"))
        columns = []
        for output in range(outputs[axis]):
            # In place of a cell in the padding stands the nearest one of the window.
            inside = [k for k in range(kernel) if 0 <= output * stride - pad + k * dilation < shape[axis]]
            if not inside:
                raise Refused(f"node {node.name!r}: a window lies in the padding alone")
            cells = [min(max(k, inside[0]), inside[-1]) for k in range(kernel)]
            columns.append([output * stride - pad + k * dilation for k in cells])
        rows = sorted(set(zip(*columns, strict=True)))
        values = [gathered(axis, row) for row in rows]
        while len(values) > 1:
            pairs = [
                push("add", [b, push("relu", [push("sub", [a, b])])])
                for a, b in zip(values[::2], values[1::2], strict=False)
            ]
            values = pairs + values[len(values) // 2 * 2 :]
        value = values[0]
    if not nodes:
        value = push("slice", [value], axis=1, start=0, stop=shape[1], step=1)
    nodes[-1].name = node.name
    return nodes


# ------------------------------------------------------------------------------------------ nodes as rows and as bends


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


def whole(values: Iterable[float], scale: int = 0) -> tuple[list[int], int]:
    """Return integers and a scale of at least the given one: the values are integers / 2^scale, exactly."""
    ratios = [value.as_integer_ratio() for value in values]
    scale = max([scale, *(bottom.bit_length() - 1 for _, bottom in ratios)])
    return [top << (scale - bottom.bit_length() + 1) for top, bottom in ratios], scale


def places_of(shape: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """Yield the indices of a shape in C order."""
    return itertools.product(*map(range, shape))


def place(index: Sequence[int], shape: Sequence[int]) -> int:
    """Return the place of an index in C order."""
    found = 0
    for i, size in zip(index, shape, strict=True):
        found = found * size + i
    return found


def window_cells(
    shape: Sequence[int], output: Sequence[int], kernel: Sequence[int], s: dict[str, Any]
) -> list[list[int]]:
    """Return for each output of one map the places of its window's cells, -1 in the padding, in C order."""
    found = []
    for row, column in places_of(output[1:]):
        top, left = row * s["stride"][0] - s["padding"][0], column * s["stride"][1] - s["padding"][1]
        cells = []
        for a, b in places_of(kernel):
            y, x = top + a * s.get("dilation", (1, 1))[0], left + b * s.get("dilation", (1, 1))[1]
            cells.append(y * shape[2] + x if 0 <= y < shape[1] and 0 <= x < shape[2] else -1)
        found.append(cells)
    return found


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
