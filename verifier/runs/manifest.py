"""manifest.json: which part of which inputs a run is about, or of which runs it was merged.

No part of a run's identity: the answers about an input are the same in every part. Digests are SHA-256; ranges are
[first, one past the last] of positions in the data (of `verify` of boxes).
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from encoders.files import write_atomically
from verifier.fields import TEXT, Kind, Kinds, RecordError, check_fields, is_object, is_whole, or_null
from verifier.runs.folder import StoredRun
from verifier.runs.record_lines import LARGEST_LINE
from verifier.runs.records import SCHEMA, SCHEMA_FIELD, configuration_digest, parse_record

NAME = "manifest.json"


def _is_range(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(map(is_whole(0), value)) and value[0] < value[1]


RANGE = Kind(_is_range, "two whole numbers, the smaller first")
SOURCE: Kinds = {"folder": (TEXT, True), "inputs": (RANGE, True), "records": (TEXT, True)}
SOURCES = Kind(lambda value: isinstance(value, list) and all(map(is_object, value)), "a list of objects")
FIELDS: Kinds = {
    **SCHEMA_FIELD,
    "run": (TEXT, True), "whole": (RANGE, True), "inputs": (RANGE, True), "shard": (or_null(TEXT), True),
    "merged": (SOURCES, False),
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Manifest:
    """What a run covers.

    run: the digest of its configuration. whole: the inputs of which it is a part. inputs: its own. shard: "i/n", None
    of a merged run. merged: of each run that it was merged of its folder, its inputs and the digest of its records.
    """

    run: str
    whole: range
    inputs: range
    shard: str | None
    merged: tuple[Mapping[str, Any], ...] = ()

    @classmethod
    def of_shard(cls, run: str, shard: object, whole: range, inputs: range) -> Manifest:
        """Return the manifest of a part that is worked on."""
        return cls(run, whole, inputs, str(shard))

    def to_json(self) -> dict[str, Any]:
        """Return what the file holds."""
        ranges = {"whole": _ends(self.whole), "inputs": _ends(self.inputs)}
        merged = {"merged": [dict(source) for source in self.merged]} if self.merged else {}
        return {"schema": SCHEMA, "run": self.run, **ranges, "shard": self.shard, **merged}


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write the manifest of a run into its folder."""
    write_atomically(folder / NAME, json.dumps(manifest.to_json(), indent=2, allow_nan=False).encode())


def read_manifest(folder: Path) -> Manifest | None:
    """Return the manifest of a run, None where it has none; RecordError where the file holds none."""
    path = folder / NAME
    if not path.is_file():
        return None
    if path.stat().st_size > LARGEST_LINE:
        raise RecordError(f"{path} is longer than {LARGEST_LINE:,} bytes")
    try:
        values = parse_record(path.read_bytes())
        check_fields(FIELDS, values)
        for source in values.get("merged", []):
            check_fields(SOURCE, source, "merged.")
    except RecordError as error:
        raise RecordError(f"{path} cannot be read: {error}") from None
    ranges = {name: range(*values[name]) for name in ("whole", "inputs")}
    return Manifest(values["run"], **ranges, shard=values["shard"], merged=tuple(values.get("merged", ())))


def manifest_faults(folder: Path, stored: StoredRun) -> list[str]:
    """Return in what the manifest of a run is not that of its records, in sentences."""
    try:
        manifest = read_manifest(folder)
    except RecordError as error:
        return [str(error)]
    if manifest is None:
        return []
    if manifest.run != configuration_digest(stored.configuration):
        return [f"{NAME} is of another run"]
    if stored.results is None or stored.configuration["command"] == "verify":
        return []
    missing = [index for index in manifest.inputs if index not in stored.lines.lines]
    return [f"{NAME} names input {missing[0]}, of which there is no record"] if missing else []


def source_of(folder: Path, inputs: range, records: str) -> dict[str, Any]:
    """Return what a manifest says of a run that was merged; records: the digest of its records.jsonl."""
    return {"folder": str(folder.resolve()), "inputs": _ends(inputs), "records": records}


def _ends(inputs: range) -> list[int]:
    return [inputs.start, inputs.stop]
