"""The project's own files: safetensors (weights as stored, no pickle) with the graph as JSON in the header.

Lossless: ops, settings, weights in their dtype, wiring, names. Nothing here knows an op by name; an op is its row
in the table `OPS` and the fields of its dataclass.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import sys
import types
import typing
from collections.abc import Sequence, Set
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from encoders.box import Shape
from encoders.files import write_atomically
from encoders.formats.errors import ModelFileError
from encoders.formats.graph import operations
from encoders.formats.runtime import Array, Runtime
from encoders.formats.window_limits import check_windows
from encoders.limits import LimitError, Limits
from encoders.network import INPUT, Network, Node
from encoders.ops import OPS, Op

FORMAT = "robustness-verifier-network"
SCHEMA = "1"

_DTYPES = {"float32": torch.float32, "float64": torch.float64}
_WEIGHTS = (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.bool)
# What fits the index arithmetic of every op, and the number of axes that torch takes.
_LARGEST_NUMBER = 2**31 - 1
_MOST_AXES = 64


def write_network(network: Network, path: Path, metadata: dict[str, Any] | None = None) -> None:
    """Write the network and a JSON object; the file appears complete or not at all."""
    graph = {
        "input_shape": list(network.input_shape),
        "dtype": str(network.dtype).removeprefix("torch."),
        "nodes": [
            {"name": node.name, "op": node.op.kind, "inputs": list(node.inputs), "settings": node.op.settings()}
            for node in network.nodes
        ],
    }
    # Copies, because nodes may share storage, which safetensors refuses.
    tensors = {
        f"{index}.{name}": value.detach().cpu().clone(memory_format=torch.contiguous_format)
        for index, node in enumerate(network.nodes)
        for name, value in node.op.parameters().items()
    }
    try:
        header = {
            "format": FORMAT,
            "schema": SCHEMA,
            "network": json.dumps(graph, allow_nan=False),
            "metadata": json.dumps(metadata or {}, allow_nan=False),
        }
    except (TypeError, ValueError) as error:
        raise ModelFileError(f"{path}: metadata and settings must be plain JSON values: {error}") from None
    try:
        write_atomically(path, save(tensors, header))
    except OSError as error:
        raise ModelFileError(f"{path}: cannot be written: {error.strerror}") from None


def read_network(path: Path, limits: Limits = Limits()) -> Network:
    """Return the network in a file; raise ModelFileError if anything in it is unknown, missing or superfluous.

    Raises LimitError for what is too large, before it is computed with.
    """
    limits.check("weight_bytes", path.stat().st_size, "the file")
    header, tensors = _read(path, True, limits)
    graph = _json(path, header, "network")
    _fields(path, "the network", graph, {"input_shape", "dtype", "nodes"})
    if not isinstance(graph["dtype"], str) or graph["dtype"] not in _DTYPES:
        raise ModelFileError(f"{path}: dtype {graph['dtype']!r} is unknown; supported: {', '.join(_DTYPES)}")
    shape = _converted(graph["input_shape"], tuple[int, ...], f"{path}: input_shape")
    if not isinstance(graph["nodes"], list):
        raise ModelFileError(f"{path}: nodes must be a list")
    limits.check("nodes", len(graph["nodes"]), "the network")
    nodes = tuple(_node(path, index, entry, tensors) for index, entry in enumerate(graph["nodes"]))
    if tensors:
        raise ModelFileError(f"{path}: tensor {min(tensors)!r} belongs to no node")
    _check_sizes(path, nodes, shape, limits)
    try:
        return Network(nodes, shape, _DTYPES[graph["dtype"]], str(path))
    except ValueError as error:
        raise ModelFileError(f"{path}: {str(error).removeprefix(f'{path}: ')}") from None


def _check_sizes(path: Path, nodes: tuple[Node, ...], input_shape: Shape, limits: Limits) -> None:
    """Raise ModelFileError for shapes that cannot be, and LimitError for values and windows beyond the limits."""
    if len(input_shape) > _MOST_AXES or min(input_shape, default=1) < 1:
        raise ModelFileError(f"{path}: input_shape {list(input_shape[:10])} must be up to {_MOST_AXES} positive sizes")
    limits.check("input_values", math.prod(input_shape), f"the input of shape {input_shape}")
    shapes = {INPUT: input_shape}
    total = 0
    for node in nodes:
        where = f"node {node.name[:200]!r} ({node.op.kind})"
        if len(node.inputs) != node.op.arity or any(name not in shapes for name in node.inputs):
            # The network says so, with its own words.
            return
        given = [shapes[name] for name in node.inputs]
        try:
            check_windows(node.op, given[0], limits, where)
            shape = node.op.output_shape(*given)
            total += operations(node.op, shape)
        except LimitError:
            raise
        except (ValueError, IndexError, TypeError, RuntimeError, OverflowError) as error:
            raise ModelFileError(f"{path}: {where}: {error}") from None
        if len(shape) > _MOST_AXES:
            raise ModelFileError(f"{path}: {where}: has {len(shape)} axes; supported: up to {_MOST_AXES}")
        limits.check("node_values", math.prod(shape), where)
        limits.check("operations", total, "the network")
        shapes[node.name] = shape


def read_metadata(path: Path) -> dict[str, Any]:
    """Return the JSON object that was written with the network."""
    return _json(path, _read(path, False, Limits())[0], "metadata")


def open_runtime(path: Path, limits: Limits = Limits()) -> Runtime:
    """Return the network evaluated in its own dtype."""
    network = read_network(path, limits)

    def run(x: Array) -> Array:
        with torch.no_grad():
            result: Array = network.evaluate(torch.from_numpy(np.array(x))).numpy()
        return result

    dtype = torch.empty(0, dtype=network.dtype).numpy().dtype
    return Runtime(f"robustness-verifier on torch {torch.__version__}", network.input_shape, dtype, "any", run)


def _read(path: Path, with_tensors: bool, limits: Limits) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Return header and tensors; refuse files that are not ours."""
    tensors = {}
    try:
        with safe_open(str(path), framework="pt") as file:
            header = file.metadata() or {}
            for name, text in header.items():
                limits.check("text_bytes", len(text), f"{name[:100]!r} in the header")
            if with_tensors:
                # safe_open has keys() but is no dictionary.
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except LimitError:
        raise
    except (SafetensorError, OSError, ValueError, RuntimeError, TypeError, AttributeError, OverflowError) as error:
        # Element types that torch does not have, shapes that overflow: the library raises as it comes.
        raise ModelFileError(f"{path}: not a complete safetensors file: {error}") from None
    if header.get("format") != FORMAT:
        raise ModelFileError(
            f"{path}: a safetensors file without a network of this project (format {header.get('format')!r}); weights "
            "alone do not say what to compute: export the model as .pt2 or .onnx"
        )
    if header.get("schema") != SCHEMA:
        raise ModelFileError(f"{path}: schema {header.get('schema')!r} is unknown; this version reads {SCHEMA!r}")
    return header, tensors


def _json(path: Path, header: dict[str, str], key: str) -> dict[str, Any]:
    try:
        value = json.loads(header[key])
    except (KeyError, ValueError, RecursionError) as error:
        raise ModelFileError(f"{path}: its {key!r} is missing or not JSON: {error}") from None
    if not isinstance(value, dict):
        raise ModelFileError(f"{path}: its {key!r} must be a JSON object")
    return value


def _fields(path: Path, what: str, found: Any, expected: Set[str], optional: Set[str] = frozenset()) -> None:
    """Raise ModelFileError unless `found` is an object with exactly the expected keys, of which some may be missing."""
    if not isinstance(found, dict):
        raise ModelFileError(f"{path}: {what} must be a JSON object, got {found!r}")
    for word, names in (("unknown", set(found) - expected), ("missing", expected - optional - set(found))):
        if names:
            raise ModelFileError(f"{path}: {what}: {min(names)!r} is {word}; expected: {', '.join(sorted(expected))}")


def _node(path: Path, index: int, entry: Any, tensors: dict[str, Tensor]) -> Node:
    """Return a node from its entry, taking its tensors out of the dictionary."""
    _fields(path, f"node {index}", entry, {"name", "op", "inputs", "settings"})
    if not isinstance(entry["name"], str):
        raise ModelFileError(f"{path}: node {index}: its name must be text, got {entry['name']!r}")
    where = f"{path}: node {entry['name']!r}"
    kind, inputs = entry["op"], entry["inputs"]
    if not isinstance(kind, str) or kind not in OPS:
        raise ModelFileError(f"{where}: op {kind!r} is unknown; supported: {', '.join(OPS)}")
    if not isinstance(inputs, list) or not all(isinstance(name, str) for name in inputs):
        raise ModelFileError(f"{where}: inputs must be a list of names, got {inputs!r}")
    op = OPS[kind]
    fields, settings, optional = _declared(op)
    _fields(path, f"settings of node {entry['name']!r}", entry["settings"], settings, optional)
    # Settings that are None are not written.
    given = sorted(settings & set(entry["settings"]))
    values = {name: _converted(entry["settings"][name], fields[name], f"{where}: {name}") for name in given}
    for name in set(fields) - settings:
        dtypes = (torch.int64,) if name in op.whole_numbers else _WEIGHTS
        values[name] = _tensor(tensors.pop(f"{index}.{name}", None), fields[name], dtypes, f"{where}: tensor {name!r}")
    return Node(entry["name"], _constructed(op, values, where), tuple(inputs))


@functools.cache
def _declared(op: type[Op]) -> tuple[dict[str, Any], frozenset[str], frozenset[str]]:
    """Return the fields of an op with their annotated types, which are settings, and which of these may lack."""
    hints = typing.get_type_hints(op)
    fields = {field.name: hints[field.name] for field in dataclasses.fields(op)}
    settings = frozenset(name for name, hint in fields.items() if not _is_tensor(hint))
    optional = frozenset(name for name in settings if types.NoneType in typing.get_args(fields[name]))
    return fields, settings, optional


def _constructed(op: type[Op], values: dict[str, Any], where: str) -> Op:
    try:
        return op(**values)
    except (ValueError, IndexError, TypeError, RuntimeError, OverflowError) as error:
        raise ModelFileError(f"{where}: {error}") from None


def _is_tensor(hint: Any) -> bool:
    return hint is Tensor or Tensor in typing.get_args(hint)


def _tensor(value: Tensor | None, hint: Any, dtypes: Sequence[torch.dtype], where: str) -> Tensor | None:
    """Return a weight, None if the op can do without; refuse other element types than the given ones."""
    if value is None and types.NoneType not in typing.get_args(hint):
        raise ModelFileError(f"{where} is missing")
    if value is not None and value.dtype not in dtypes:
        known = ", ".join(str(dtype).removeprefix("torch.") for dtype in dtypes)
        raise ModelFileError(f"{where} has element type {value.dtype}; supported: {known}")
    return value


def _converted(value: Any, hint: Any, where: str) -> Any:
    """Return a JSON value as the annotated type of a setting: int, float, bool, str, a tuple of them, or X | None."""
    if types.NoneType in typing.get_args(hint):
        (hint,) = set(typing.get_args(hint)) - {types.NoneType}
    if typing.get_origin(hint) is tuple:
        arguments = typing.get_args(hint)
        if not isinstance(value, list):
            raise ModelFileError(f"{where} must be a list, got {repr(value)[:100]}")
        kinds = [arguments[0]] * len(value) if arguments[-1] is Ellipsis else list(arguments)
        if len(kinds) != len(value):
            raise ModelFileError(f"{where} must have {len(kinds)} entries, got {repr(value)[:100]}")
        return tuple(_converted(entry, kind, where) for entry, kind in zip(value, kinds, strict=True))
    # Compared with the largest float, since a file may hold whole numbers that are none; NaN is not smaller either.
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if hint is float and number and abs(value) <= sys.float_info.max:
        return float(value)
    # type() rather than isinstance: True is an int in Python, not in a file.
    if hint is int and type(value) is int and abs(value) > _LARGEST_NUMBER:
        raise ModelFileError(f"{where} is {str(value)[:30]}; supported: up to {_LARGEST_NUMBER}")
    if hint is not float and type(value) is hint:
        return value
    raise ModelFileError(f"{where} must be {getattr(hint, '__name__', hint)}, got {repr(value)[:100]}")
