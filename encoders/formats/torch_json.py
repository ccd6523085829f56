"""The JSON text of a .pt2 archive: what torch would evaluate, import or execute is checked or taken out."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from encoders.formats.errors import ModelFileError
from encoders.limits import LimitError, Limits

_TARGET = re.compile(
    r"torch\.ops\.(aten\.\w+\.\w+|encoders\.(?:mwd|mwd_conv2d|k_winners)\.default)|_operator\.(getitem|add|mul|floordiv)"
)
_SYMBOL = re.compile(r"[su]\d+")
# Sums and products of symbols and integers as sympy writes them: nothing else that it could call or look up.
_EXPRESSION = re.compile(
    r"(Symbol\('[su]\d+'(, \w+=(True|False))*\)|Integer\(-?\d++\)|-?\d++|[su]\d++|Add\(|Mul\(|\)|, )+"
)
# A size of a plain batch takes some 60 characters; sympy takes milliseconds for each, and seconds for deep ones.
LONGEST_EXPRESSION = 300
# For each tensor: its batch, and up to four strides of a permuted one.
MOST_EXPRESSIONS = 8
# The table of one call, one weight or one tensor nests less; Python's and torch's parsers recurse.
DEEPEST = 100


def checked_program(path: Path, name: str, content: bytes, limits: Limits) -> bytes:
    """Return the program without guards and traces; refuse text that torch would evaluate or import."""
    program = json_object(path, name, content)
    try:
        graph_module = program["graph_module"]
        graph = graph_module["graph"]
        # torch.export.load takes some milliseconds for each of them, and for each expression.
        parts = [graph[part] for part in ("nodes", "tensor_values", "sym_int_values", "inputs", "outputs")]
        asked = max(map(len, [*parts, program["range_constraints"]]))
        limits.check("program_nodes", asked, "the program")
        expressions = check_expressions(path, program)
        if expressions > MOST_EXPRESSIONS * (asked + 10):
            raise ModelFileError(f"{path}: {expressions} symbolic sizes in a program of {asked} nodes; export it again")
        program["guards_code"] = []
        graph_module["metadata"] = {}
        graph_module["module_call_graph"] = [entry for entry in graph_module["module_call_graph"] if entry["fqn"] == ""]
        if len(graph_module["module_call_graph"]) != 1:
            raise ModelFileError(f"{path}: entry {name} does not say once what the program takes and returns")
        for symbol in program["range_constraints"]:
            if not _SYMBOL.fullmatch(symbol):
                raise ModelFileError(f"{path}: range constraint {symbol[:100]!r} is not a symbol")
        for entry in graph_module["module_call_graph"]:
            for key in ("in_spec", "out_spec"):
                _check_tree(path, json.loads(entry["signature"][key])[1])
        unknown = sorted({node["target"] for node in graph["nodes"] if not _TARGET.fullmatch(node["target"])})
        for node in graph["nodes"]:
            node["metadata"] = {}
        text = json.dumps(program).encode()
    except (KeyError, TypeError, AttributeError, IndexError, ValueError, RecursionError) as error:
        if isinstance(error, ModelFileError | LimitError):
            raise
        raise ModelFileError(f"{path}: entry {name} does not follow the schema: {repr(error)[:200]}") from None
    if unknown:
        shown = ", ".join(target[:100] for target in unknown[:20])
        supported = "aten, encoders::mwd, encoders::mwd_conv2d, encoders::k_winners"
        raise ModelFileError(f"{path}: unsupported operators: {shown}; supported: {supported}")
    return text


def json_object(path: Path, name: str, content: bytes) -> dict[str, Any]:
    """Return the JSON object in an entry; raise ModelFileError if it is none, or nested too deep to be one of torch."""
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ModelFileError(f"{path}: entry {name} is not JSON: {str(error)[:200]}") from None
    if not isinstance(value, dict):
        raise ModelFileError(f"{path}: entry {name} is not a JSON object")
    for _, depth in _objects(value):
        if depth > DEEPEST:
            raise ModelFileError(f"{path}: entry {name} is nested deeper than {DEEPEST} levels")
    return value


def check_expressions(path: Path, value: Any) -> int:
    """Return the number of symbolic expressions; refuse any beyond sums and products, which sympy would evaluate."""
    count = 0
    for found, _ in _objects(value):
        if "expr_str" in found:
            count += 1
            text = str(found["expr_str"])
            if len(text) > LONGEST_EXPRESSION or not _EXPRESSION.fullmatch(text):
                raise ModelFileError(f"{path}: expression {text[:100]!r} is not evaluated; export with a plain batch")
        if {"as_custom_obj", "as_operator", "as_graph"} & set(found):
            raise ModelFileError(f"{path}: the program holds objects or subgraphs, which are not supported")
    return count


def _objects(value: Any) -> Iterator[tuple[dict[str, Any], int]]:
    """Yield every JSON object inside a value, and how deep it lies."""
    pending = [(value, 0)]
    while pending:
        current, depth = pending.pop()
        if isinstance(current, dict):
            yield current, depth
            pending.extend((entry, depth + 1) for entry in current.values())
        elif isinstance(current, list):
            pending.extend((entry, depth + 1) for entry in current)


def _check_tree(path: Path, tree: Any) -> None:
    """Raise ModelFileError for input and output structures other than nested tuples, lists and dictionaries."""
    for found, depth in _objects(tree):
        kind, context = found["type"], found["context"]
        plain = kind in (None, "builtins.tuple", "builtins.list", "builtins.dict")
        if not plain or (context is not None and "__enum__" in str(context)) or depth > DEEPEST:
            raise ModelFileError(f"{path}: inputs or outputs of type {kind!r} are not supported; supported: one tensor")
