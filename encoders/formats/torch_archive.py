"""Open a .pt2 archive without unpickling anything and without evaluating text from it.

`torch.export.load` (read in 2.13) unpickles: sample inputs (weights_only first, then without), weights and
constants flagged `use_pickle`, custom and opaque objects, and whole payloads of older versions (`*.pt`). It also
evaluates symbolic expressions (sympy), imports modules named by pytree contexts, and later executes `guards_code`.
So the file is never given to it. Its entries are checked here, and a new archive in memory, made of what passed
and without sample inputs, guards and stack traces, is what torch opens. Sizes are checked before anything is read:
entries are stored as they are (torch compresses none), so all of them together are no larger than the file.
"""

from __future__ import annotations

import io
import re
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch.export import ExportedProgram

# Registers the op of the MWD layer with torch.
import encoders.layers  # noqa: F401
from encoders.formats.errors import ModelFileError
from encoders.formats.torch_json import check_expressions, checked_program, json_object
from encoders.limits import LimitError, Limits

_MODEL = "models/model.json"
_SAMPLES = "data/sample_inputs/model.pt"
_PAYLOADS = {
    "data/weights/model_weights_config.json": re.compile(r"weight_\d{1,9}"),
    "data/constants/model_constants_config.json": re.compile(r"tensor_\d{1,9}"),
}
_VERSIONS = ("archive_format", "archive_version")
# Entries that torch's writer adds by itself.
_BOOKKEEPING = ("byteorder", ".data/version", ".data/serialization_id")


def open_archive(path: Path, limits: Limits = Limits()) -> ExportedProgram:
    """Return the exported program in a .pt2 file.

    Raises ModelFileError naming the entry if the archive holds or asks for anything that is not plain data, and
    LimitError for what is too large.
    """
    entries = _entries(path, limits)
    checked = _checked(path, entries, limits)
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


def _entries(path: Path, limits: Limits) -> dict[str, bytes]:
    """Return the records of the archive by name, without the folder that holds them all."""
    entries: dict[str, bytes] = {}
    try:
        with zipfile.ZipFile(path) as archive:
            records = archive.infolist()
            _check_sizes(path, records, limits)
            for record in records:
                name = record.filename.partition("/")[2]
                if name in entries:
                    raise ModelFileError(f"{path}: entry {name!r} is there twice")
                entries[name] = archive.read(record)
    except (ModelFileError, LimitError):
        raise
    except (zipfile.BadZipFile, OSError, EOFError, RuntimeError, NotImplementedError, ValueError) as error:
        # An archive may be cut off, encrypted, or of a version that is not known; names may be no text.
        raise ModelFileError(f"{path}: not a complete .pt2 archive: {error}") from None
    if ".data/version" not in entries:
        raise ModelFileError(f"{path}: not a complete .pt2 archive: it has no .data/version, so torch did not write it")
    return entries


def _check_sizes(path: Path, records: list[zipfile.ZipInfo], limits: Limits) -> None:
    """Raise ModelFileError for compressed or overlapping entries, whose content may be larger than the file."""
    total = 0
    for record in records:
        if record.compress_type != zipfile.ZIP_STORED or record.file_size != record.compress_size:
            raise ModelFileError(
                f"{path}: entry {record.filename!r} is compressed, which torch never does; save it with "
                "torch.export.save"
            )
        total += record.file_size
        limits.check("member_bytes", record.file_size, f"entry {record.filename!r}")
        if record.filename.endswith(".json"):
            limits.check("text_bytes", record.file_size, f"entry {record.filename!r}")
    size = path.stat().st_size
    if total > size:
        raise ModelFileError(f"{path}: its entries say to hold {total:,} bytes, the file has {size:,}")


def _checked(path: Path, entries: dict[str, bytes], limits: Limits) -> dict[str, bytes]:
    """Return the entries of the new archive; raise ModelFileError for any that is not plain data."""
    if _MODEL not in entries or any(name not in entries for name in _PAYLOADS):
        raise ModelFileError(
            f"{path}: not an exported program of torch 2.9 or later (no {_MODEL}, or weights as a pickle); save it "
            "again with torch.export.save"
        )
    if entries.get("byteorder", b"little") != b"little":
        raise ModelFileError(f"{path}: weights are stored in {entries['byteorder'][:20]!r}-endian order")
    checked: dict[str, bytes] = {name: entries[name] for name in _VERSIONS if name in entries}
    for config, pattern in _PAYLOADS.items():
        checked[config] = entries[config]
        folder = config.rsplit("/", 1)[0]
        for payload in _payload_names(path, config, entries, pattern, limits):
            checked[f"{folder}/{payload}"] = entries[f"{folder}/{payload}"]
    foreign = sorted(set(entries) - set(checked) - {_MODEL, _SAMPLES, *_BOOKKEEPING})
    foreign = [name for name in foreign if not name.startswith("extra/")]
    if foreign:
        raise ModelFileError(f"{path}: entry {foreign[0]!r} is not part of an exported program, so nothing is opened")
    checked[_MODEL] = checked_program(path, _MODEL, entries[_MODEL], limits)
    # Empty: the loader takes this for no sample inputs and unpickles nothing.
    checked[_SAMPLES] = b""
    return checked


def _payload_names(
    path: Path, config: str, entries: dict[str, bytes], pattern: re.Pattern[str], limits: Limits
) -> list[str]:
    """Return the names of the raw tensors that a payload table lists; refuse pickled ones and wrong sizes."""
    names: dict[str, int] = {}
    table = json_object(path, config, entries[config]).get("config")
    if not isinstance(table, dict):
        raise ModelFileError(f"{path}: entry {config} has no table of tensors")
    folder, repeated = config.rsplit("/", 1)[0], 0
    check_expressions(path, table)
    for name, payload in table.items():
        file = payload.get("path_name") if isinstance(payload, dict) else None
        if not isinstance(file, str) or payload.get("use_pickle") is not False or not pattern.fullmatch(file):
            raise ModelFileError(f"{path}: {name!r} is stored as a pickle or object ({file}), which is never opened")
        if f"{folder}/{file}" not in entries:
            raise ModelFileError(f"{path}: entry {folder}/{file} is missing")
        names[file] = len(entries[f"{folder}/{file}"])
        repeated += _repeated_values(path, name, payload.get("tensor_meta"), names[file])
        # A value that is stored once may be shown many times, by strides of 0; each takes up to 8 bytes when copied.
        limits.check("constant_bytes", 8 * repeated, f"tensor {name!r} ({config})")
    limits.check("weight_bytes", sum(names.values()), config)
    return list(names)


def _repeated_values(path: Path, name: str, meta: Any, stored: int) -> int:
    """Return how many values a tensor shows beyond the `stored` bytes; refuse one that reaches outside of them."""
    try:
        sizes = [entry["as_int"] for entry in meta["sizes"]]
        strides = [entry["as_int"] for entry in meta["strides"]]
        offset = meta["storage_offset"]["as_int"]
        if any(type(number) is not int or number < 0 for number in (*sizes, *strides, offset)):
            raise ValueError("sizes, strides and offset must be whole numbers")
        values = 1
        for size in sizes:
            values *= size
            if values > 2**62:
                raise ValueError(f"shape {sizes[:10]} is not possible")
        last = offset + sum((size - 1) * stride for size, stride in zip(sizes, strides, strict=True))
    except (KeyError, TypeError, ValueError) as error:
        raise ModelFileError(f"{path}: tensor {name!r}: its shape cannot be read: {error!r}") from None
    if values > 0 and last >= stored:
        raise ModelFileError(
            f"{path}: tensor {name!r} of shape {sizes} reaches beyond the {stored} bytes stored for it"
        )
    return max(values - stored, 0)
