"""A run on disk: its configuration, one appended record for each input, and witnesses as arrays.

    run.json         what the run is; another model, data or setting is refused, not mixed
    records.jsonl    one JSON object a line; for an index the last complete line counts
    witnesses.npz    arrays `index`, `x`, `distance` of the replayed counterexamples
    witnesses/       the same in pieces while the run goes on
    results.json     the summary that was last printed

Killed at any point, a run continues: a half-written last line is cut off, and witnesses are written before the
records that speak of them.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator, Mapping, Sequence
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
            with np.load(path, allow_pickle=False) as arrays:
                for index, x, distance in zip(arrays["index"], arrays["x"], arrays["distance"], strict=True):
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
        write_atomically(self.folder / "results.json", json.dumps(results, indent=2, allow_nan=False).encode())


@contextlib.contextmanager
def open_run(folder: Path, configuration: Mapping[str, Any]) -> Iterator[Run]:
    """Open or create a run folder for this configuration and lock it against other processes.

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
            write_atomically(path, json.dumps(configuration, indent=2, allow_nan=False).encode())
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
    if not path.exists():
        return {}
    content = path.read_bytes()
    complete = content.rfind(b"\n") + 1
    if complete < len(content):
        with path.open("r+b") as file:
            file.truncate(complete)
    records: dict[int, dict[str, Any]] = {}
    for number, line in enumerate(content[:complete].splitlines(), start=1):
        try:
            record = json.loads(line)
            records[int(record["index"])] = record
        except (ValueError, KeyError, TypeError):
            raise RunError(f"{path}, line {number}: not a record; remove the line or the folder") from None
    return records


def _write_witnesses(path: Path, witnesses: Mapping[int, tuple[np.ndarray, float]]) -> None:
    order = sorted(witnesses)
    arrays = {
        "index": np.array(order, dtype=np.int64),
        "x": np.stack([witnesses[i][0] for i in order]),
        "distance": np.array([witnesses[i][1] for i in order], dtype=np.float64),
    }
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)
