"""A run on disk: its configuration, one appended record for each input, and witnesses as arrays.

    run.json         what the run is; another model, data or setting is refused, not mixed
    records.jsonl    one JSON object a line; for an index the last complete line counts
    witnesses.npz    arrays `index`, `x`, `distance` of the replayed counterexamples
    witnesses/       the same in pieces while the run goes on
    certificates/    one .npz for each proof that left one; its record names it with its SHA-256
    results.json     the summary that was last printed

Killed at any point, a run continues: a half-written last line is cut off, and witnesses are written before the
records that speak of them.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from encoders.files import replacing, write_atomically

SCHEMA = 1


class RunError(ValueError):
    """A folder cannot serve as the run that was asked for."""


class Run:
    """An opened run folder. Use `open_run`, which locks it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.certificates = folder / "certificates"
        self.records_path = folder / "records.jsonl"
        self.records: dict[int, dict[str, Any]] = {}

    def append(self, records: Sequence[Mapping[str, Any]], witnesses: Mapping[int, tuple[np.ndarray, float]]) -> None:
        """Write a batch: its witnesses first, then its records, flushed to the disk."""
        if witnesses:
            pieces = self.folder / "witnesses"
            pieces.mkdir(exist_ok=True)
            _write_witnesses(pieces / f"{min(witnesses):09d}-{len(list(pieces.iterdir())):06d}.npz", witnesses)
        text = "".join(json.dumps(record, allow_nan=False) + "\n" for record in records)
        try:
            with self.records_path.open("a", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            message = f"{self.records_path} cannot be written: {error}; the same command continues the run"
            raise OSError(message) from None
        self.records.update({record["index"]: dict(record) for record in records})

    def witnesses(self) -> dict[int, tuple[np.ndarray, float]]:
        """Return the nearest witness of each input, by index: (point, distance)."""
        found: dict[int, tuple[np.ndarray, float]] = {}
        paths = [self.folder / "witnesses.npz", *sorted((self.folder / "witnesses").glob("*.npz"))]
        for path in paths:
            if not path.exists():
                continue
            try:
                with np.load(path, allow_pickle=False) as arrays:
                    stored = [arrays[name] for name in ("index", "x", "distance")]
            except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, TypeError) as error:
                raise RunError(f"{path} holds no witnesses: {error}; remove it") from None
            for index, x, distance in zip(*stored, strict=True):
                if int(index) not in found or distance < found[int(index)][1]:
                    found[int(index)] = (x, float(distance))
        return found

    def finish(self, results: Mapping[str, Any]) -> None:
        """Merge the pieces of witnesses and write the summary. Safe to repeat."""
        pieces = self.folder / "witnesses"
        if pieces.exists():
            merged = self.witnesses()
            if merged:
                _write_witnesses(self.folder / "witnesses.npz", merged)
            for path in pieces.iterdir():
                path.unlink()
            pieces.rmdir()
        self._drop_unnamed_certificates()
        write_atomically(self.folder / "results.json", json.dumps(results, indent=2, allow_nan=False).encode())

    def _drop_unnamed_certificates(self) -> None:
        """Remove certificates of which no record speaks: those of proofs that later ones have replaced."""
        if not self.certificates.exists():
            return
        named = {
            Path(record["certificate"]["file"]).name for record in self.records.values() if record.get("certificate")
        }
        for path in self.certificates.iterdir():
            if path.suffix == ".npz" and path.name not in named:
                path.unlink()


@dataclass(frozen=True, eq=False)
class StoredRun:
    """What a run folder holds: configuration, records by index, witnesses by index as (point, distance)."""

    configuration: dict[str, Any]
    records: dict[int, dict[str, Any]]
    witnesses: dict[int, tuple[np.ndarray, float]]


def read_run(folder: Path) -> StoredRun:
    """Return what a run folder holds, changing nothing. Raises RunError if it holds no run."""
    path = folder / "run.json"
    try:
        configuration = json.loads(path.read_text(encoding="utf-8"))
    except OSError:
        raise RunError(f"{folder} holds no run: there is no {path.name} in it that can be read") from None
    except ValueError as error:
        raise RunError(f"{path} cannot be read: {error}") from None
    if not isinstance(configuration, dict):
        raise RunError(f"{path} cannot be read: it holds no object")
    run = Run(folder)
    return StoredRun(configuration, _complete_records(run.records_path)[0], run.witnesses())


@contextlib.contextmanager
def open_run(folder: Path, configuration: Mapping[str, Any], origin: Mapping[str, Any] | None = None) -> Iterator[Run]:
    """Open or create a run folder for this configuration and lock it against other processes.

    origin: where model and data came from; kept beside the configuration, but another one is no other run.

    Raises RunError, with nothing written, if the folder holds another run or something else.
    """
    configuration = {"schema": SCHEMA, **configuration}
    path = folder / "run.json"
    if folder.exists() and not folder.is_dir():
        raise RunError(f"{folder} is a file; --out takes a folder")
    if path.exists():
        _check_configuration(path, configuration)
    elif folder.exists() and any(entry.name not in (".lock", "run.json") for entry in folder.iterdir()):
        raise RunError(f"{folder} is not empty and holds no run; name another folder with --out")
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise RunError(f"{folder} is in use by another process") from None
        if path.exists():
            _check_configuration(path, configuration)
        else:
            stored = {**configuration, "origin": dict(origin or {})}
            write_atomically(path, json.dumps(stored, indent=2, allow_nan=False).encode())
        run = Run(folder)
        run.records = _read_records(run.records_path)
        yield run


def _check_configuration(path: Path, configuration: Mapping[str, Any]) -> None:
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read: {error}; remove the folder or name another with --out") from None
    wanted = json.loads(json.dumps(configuration))
    keys = [key for key in wanted if not isinstance(stored, dict) or stored.get(key) != wanted[key]]
    if keys:
        key = keys[0]
        found = stored.get(key) if isinstance(stored, dict) else None
        raise RunError(
            f"{path.parent} holds another run: {key} is {found!r} there and {wanted[key]!r} here; "
            "name another folder with --out"
        )


def _read_records(path: Path) -> dict[int, dict[str, Any]]:
    """Return the last record of each index; cut off a last line that was not finished."""
    records, complete = _complete_records(path)
    if path.exists() and complete < path.stat().st_size:
        with path.open("r+b") as file:
            file.truncate(complete)
    return records


def _complete_records(path: Path) -> tuple[dict[int, dict[str, Any]], int]:
    """Return the last record of each index, and the length of the lines that are finished."""
    content = path.read_bytes() if path.exists() else b""
    complete = content.rfind(b"\n") + 1
    records: dict[int, dict[str, Any]] = {}
    for number, line in enumerate(content[:complete].splitlines(), start=1):
        try:
            record = json.loads(line)
            records[int(record["index"])] = record
        except (ValueError, KeyError, TypeError, OverflowError):
            raise RunError(f"{path}, line {number}: not a record; remove the line or the folder") from None
    return records, complete


def _write_witnesses(path: Path, witnesses: Mapping[int, tuple[np.ndarray, float]]) -> None:
    order = sorted(witnesses)
    arrays = {
        "index": np.array(order, dtype=np.int64),
        "x": np.stack([witnesses[i][0] for i in order]),
        "distance": np.array([witnesses[i][1] for i in order], dtype=np.float64),
    }
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)
