"""A network as its native file has it: nodes, tensors, shapes and the digest, by docs/certificate-format.md."""

from __future__ import annotations

import hashlib
import json
import math
import struct
from collections.abc import Sequence
from typing import Any

from verifier_check.refusals import MALFORMED, Refused, Undecided

INPUT = "input"


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
REAL_SETTINGS, SWITCHES = {"slope", "epsilon"}, {"keep_axes", "count_padding"}
# How many whole numbers, 0 as many as there are axes; the settings that are not named here are one.
LISTS = {"stride": 2, "padding": 4, "dilation": 2, "kernel": 2, "shape": 0, "permutation": 0, "axes": 0}
# Bytes of a file, values of all nodes together, and products of all rows, beyond which nothing is evaluated: these
# numbers are told from shapes, before anything of that size is made.
MOST_BYTES, MOST_VALUES, MOST_PRODUCTS = 1 << 28, 1 << 24, 1 << 26


class Network:
    """Nodes in their order, the last one the output; shapes of all values."""

    def __init__(self, nodes: list[Node], shape: Sequence[int], dtype: str) -> None:
        self.nodes, self.input_shape, self.dtype = nodes, tuple(shape), dtype
        self.shapes: dict[str, tuple[int, ...]] = {INPUT: self.input_shape}
        for node in nodes:
            if node.name in self.shapes or any(name not in self.shapes for name in node.inputs):
                raise Refused(f"node {node.name!r}: its name is taken, or an input is no earlier node")
            self.shapes[node.name] = output_shape(node, [self.shapes[name] for name in node.inputs])
        self._check_size()

    def _check_size(self) -> None:
        """Refuse to decide about a network that is too large."""
        values = sum(map(math.prod, self.shapes.values()))
        products = sum(math.prod(self.shapes[node.name]) * _products(node) for node in self.nodes)
        if values > MOST_VALUES or products > MOST_PRODUCTS:
            raise Undecided(
                f"it has {values:,} values and {products:,} products, of which at most {MOST_VALUES:,} and "
                f"{MOST_PRODUCTS:,} are evaluated"
            )

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


def _products(node: Node) -> int:
    """Return of how many products a value of a node is the sum; cells of a window count, padded or not."""
    weight = node.tensors["weight"].shape if "weight" in node.tensors else ()
    return math.prod(weight[1:]) * int(math.prod(node.settings.get("kernel", ())))


def read_network(content: bytes) -> Network:
    """Return the network of a file's bytes; Refused if it is none, Undecided if an op is not supported."""
    if len(content) > MOST_BYTES:
        raise Undecided(f"it has {len(content):,} bytes, more than {MOST_BYTES:,}")
    try:
        length = int.from_bytes(content[:8], "little")
        header = json.loads(content[8 : 8 + length])
        texts, data = header.pop("__metadata__"), content[8 + length :]
        if texts["format"] != "robustness-verifier-network" or texts["schema"] != "1":
            raise Refused(f"it is of format {texts['format']!r:.60}, schema {texts['schema']!r:.60}")
        # Before they are unpacked: the same bytes could stand for thousands of tensors.
        spans = [entry["data_offsets"] for entry in header.values()]
        if sum(max(end - start, 0) for start, end in spans) > len(data):
            raise Refused("its tensors overlap")
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
    wrong = sorted(name for name, value in settings.items() if not _fits(name, value))
    if wrong:
        raise Refused(f"node {entry['name']!r} ({kind}): settings {wrong} are not of their kind")
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


def _fits(name: str, value: Any) -> bool:
    """Return whether a setting is of its kind: a switch, a word, a number, or whole numbers, as many as it takes."""
    if name in SWITCHES:
        return type(value) is bool
    if name == "link":
        return type(value) is str
    if name in REAL_SETTINGS:
        return type(value) in (int, float)
    if name not in LISTS:
        return type(value) is int
    count = LISTS[name]
    return type(value) is list and all(type(each) is int for each in value) and (not count or len(value) == count)


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
        fits = axes == sorted(set(axes)) and min(axes, default=-1) >= 0
        kept = [(axis, 1 if axis in axes else n) for axis, n in enumerate(shape) if s["keep_axes"] or axis not in axes]
        found = tuple(n for _, n in kept)
        fits = fits and math.prod(shape[axis] for axis in axes) == s["size"]
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
