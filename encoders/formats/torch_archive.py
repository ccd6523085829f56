"""Open a .pt2 archive without unpickling anything and without evaluating text from it.

`torch.export.load` (read in 2.13) unpickles: sample inputs (weights_only first, then without), weights and
constants flagged `use_pickle`, custom and opaque objects, and whole payloads of older versions (`*.pt`). It also
evaluates symbolic expressions (sympy), imports modules named by pytree contexts, and later executes `guards_code`.
So the file is never given to it. Its entries are checked here, and a new archive in memory, made of what passed
and without sample inputs, guards and stack traces, is what torch opens.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch.export import ExportedProgram

# Registers the op of the MWD layer with torch.
import encoders.layers  # noqa: F401
from encoders.formats.errors import ModelFileError

_MODEL = "models/model.json"
_SAMPLES = "data/sample_inputs/model.pt"
_PAYLOADS = {
    "data/weights/model_weights_config.json": re.compile(r"weight_\d+"),
    "data/constants/model_constants_config.json": re.compile(r"tensor_\d+"),
}
_TARGET = re.compile(
    r"torch\.ops\.(aten\.\w+\.\w+|encoders\.mwd(?:_conv2d)?\.default)|_operator\.(getitem|add|mul|floordiv)"
)
_SYMBOL = re.compile(r"[su]\d+")
# Sums and products of symbols and integers as sympy writes them: nothing else that it could call or look up.
_EXPRESSION = re.compile(
    r"(Symbol\('[su]\d+'(, \w+=(True|False))*\)|Integer\(-?\d++\)|-?\d++|[su]\d++|Add\(|Mul\(|\)|, )+"
)
_VERSIONS = ("archive_format", "archive_version")
# Entries that torch's writer adds by itself.
_BOOKKEEPING = ("byteorder", ".data/version", ".data/serialization_id")


def open_archive(path: Path) -> ExportedProgram:
    """Return the exported program in a .pt2 file.

    Raises ModelFileError naming the entry if the archive holds or asks for anything that is not plain data.
    """
    entries = _entries(path)
    checked = _checked(path, entries)
    buffer = io.BytesIO()
    writer = torch._C.PyTorchFileWriter(buffer)
    for name, content in checked.items():
        writer.write_record(name, content, len(content))
    writer.write_end_of_file()
    buffer.seek(0)
    try:
        return torch.export.load(buffer)
    except Exception as error:
        # The deserialiser raises whatever a malformed program makes it stumble on.
        first = str(error).strip().splitlines() or [type(error).__name__]
        raise ModelFileError(
            f"{path}: torch {torch.__version__} cannot load the program ({first[-1]}); export it again with it"
        ) from None


def _entries(path: Path) -> dict[str, bytes]:
    """Return the records of the archive by name."""
    try:
        reader = torch._C.PyTorchFileReader(io.BytesIO(path.read_bytes()))
        names = reader.get_all_records()
        return {name: reader.get_record(name) for name in names}
    except (RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise ModelFileError(f"{path}: not a complete .pt2 archive: {reason}") from None


def _checked(path: Path, entries: dict[str, bytes]) -> dict[str, bytes]:
    """Return the entries of the new archive; raise ModelFileError for any that is not plain data."""
    if _MODEL not in entries or any(name not in entries for name in _PAYLOADS):
        raise ModelFileError(
            f"{path}: not an exported program of torch 2.9 or later (no {_MODEL}, or weights as a pickle); save it "
            "again with torch.export.save"
        )
    if entries.get("byteorder", b"little") != b"little":
        raise ModelFileError(f"{path}: weights are stored in {entries['byteorder'].decode()}-endian order")
    checked: dict[str, bytes] = {name: entries[name] for name in _VERSIONS if name in entries}
    for config, pattern in _PAYLOADS.items():
        checked[config] = entries[config]
        folder = config.rsplit("/", 1)[0]
        for payload in _payload_names(path, config, entries[config], pattern):
            if f"{folder}/{payload}" not in entries:
                raise ModelFileError(f"{path}: entry {folder}/{payload} is missing")
            checked[f"{folder}/{payload}"] = entries[f"{folder}/{payload}"]
    foreign = sorted(set(entries) - set(checked) - {_MODEL, _SAMPLES, *_BOOKKEEPING})
    foreign = [name for name in foreign if not name.startswith("extra/")]
    if foreign:
        raise ModelFileError(f"{path}: entry {foreign[0]!r} is not part of an exported program, so nothing is opened")
    checked[_MODEL] = _checked_program(path, entries[_MODEL])
    # Empty: the loader takes this for no sample inputs and unpickles nothing.
    checked[_SAMPLES] = b""
    return checked


def _payload_names(path: Path, config: str, content: bytes, pattern: re.Pattern[str]) -> list[str]:
    """Return the names of the raw tensors that a payload table lists; refuse pickled ones."""
    names = []
    table = _json_object(path, config, content).get("config")
    if not isinstance(table, dict):
        raise ModelFileError(f"{path}: entry {config} has no table of tensors")
    for name, payload in table.items():
        file = payload.get("path_name") if isinstance(payload, dict) else None
        if not isinstance(file, str) or payload.get("use_pickle") is not False or not pattern.fullmatch(file):
            raise ModelFileError(f"{path}: {name!r} is stored as a pickle or object ({file}), which is never opened")
        names.append(file)
    _check_expressions(path, table)
    return names


def _checked_program(path: Path, content: bytes) -> bytes:
    """Return the program without guards and traces; refuse text that torch would evaluate or import."""
    program = _json_object(path, _MODEL, content)
    try:
        _check_expressions(path, program)
        graph_module = program["graph_module"]
        program["guards_code"] = []
        graph_module["metadata"] = {}
        graph_module["module_call_graph"] = [entry for entry in graph_module["module_call_graph"] if entry["fqn"] == ""]
        for name in program["range_constraints"]:
            if not _SYMBOL.fullmatch(name):
                raise ModelFileError(f"{path}: range constraint {name!r} is not a symbol")
        for entry in graph_module["module_call_graph"]:
            for key in ("in_spec", "out_spec"):
                _check_tree(path, json.loads(entry["signature"][key])[1])
        unknown = sorted(
            {node["target"] for node in graph_module["graph"]["nodes"] if not _TARGET.fullmatch(node["target"])}
        )
        for node in graph_module["graph"]["nodes"]:
            node["metadata"] = {}
    except (KeyError, TypeError, AttributeError, IndexError, ValueError) as error:
        if isinstance(error, ModelFileError):
            raise
        raise ModelFileError(f"{path}: entry {_MODEL} does not follow the schema: {error!r}") from None
    if unknown:
        supported = "aten, encoders::mwd, encoders::mwd_conv2d"
        raise ModelFileError(f"{path}: unsupported operators: {', '.join(unknown)}; supported: {supported}")
    return json.dumps(program).encode()


def _json_object(path: Path, name: str, content: bytes) -> dict[str, Any]:
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ModelFileError(f"{path}: entry {name} is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise ModelFileError(f"{path}: entry {name} is not a JSON object")
    return value


def _objects(value: Any) -> Iterator[dict[str, Any]]:
    """Yield every JSON object inside a value."""
    pending = [value]
    while pending:
        current = pending.pop()
        if isinstance(current, dict):
            yield current
            pending.extend(current.values())
        elif isinstance(current, list):
            pending.extend(current)


def _check_expressions(path: Path, value: Any) -> None:
    """Raise ModelFileError for symbolic expressions beyond sums and products, which sympy would evaluate."""
    for found in _objects(value):
        if "expr_str" in found and not _EXPRESSION.fullmatch(str(found["expr_str"])):
            raise ModelFileError(
                f"{path}: expression {found['expr_str']!r} is not evaluated; export with a plain batch"
            )
        if {"as_custom_obj", "as_operator", "as_graph"} & set(found):
            raise ModelFileError(f"{path}: the program holds objects or subgraphs, which are not supported")


def _check_tree(path: Path, tree: Any) -> None:
    """Raise ModelFileError for input and output structures other than nested tuples, lists and dictionaries."""
    for found in _objects(tree):
        kind, context = found["type"], found["context"]
        plain = kind in (None, "builtins.tuple", "builtins.list", "builtins.dict")
        if not plain or (context is not None and "__enum__" in str(context)):
            raise ModelFileError(f"{path}: inputs or outputs of type {kind!r} are not supported; supported: one tensor")
