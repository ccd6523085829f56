"""A run on disk: its configuration, one record for each input, and witnesses as arrays.

    run.json         what the run is; another model, data or setting is refused, not mixed
    records.jsonl    one JSON object a line, checked field by field when it is read (`verifier.runs.records`)
    witnesses.npz    arrays `index`, `x`, `distance` of the replayed counterexamples
    witnesses/       the same in pieces while the run goes on
    certificates/    one .npz for each proof that left one; its record names it with its SHA-256
    results.json     the summary that was last printed, and the `offset` of its first input; there only as long as the
                     records are those it sums up

A finished run has a results.json, one record for each input and one witness for each claim of one. The first new
record takes results.json away; from then on an input may have several lines, each of which says at least what the one
before says (brackets narrow, radii that were tried are added; the same label and prediction), until `finish` leaves the
last. Killed at any point, a run continues: a half-written last line is cut off, and witnesses are written before the
records that speak of them.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from encoders.files import write_atomically
from verifier.fields import RecordError
from verifier.npz import ArrayFileError
from verifier.runs.kept_certificate import KeptCertificate
from verifier.runs.kinds import check_configuration
from verifier.runs.record_lines import LARGEST_LINE, RecordLines, read_lines, write_lines
from verifier.runs.records import SCHEMA, Record, configuration_digest, parse_record
from verifier.runs.witness_files import Witnesses, read_witnesses, write_witnesses

__all__ = ["SCHEMA", "Run", "RunError", "StoredRun", "open_run", "read_run"]


class RunError(ValueError):
    """A folder cannot serve as the run that was asked for."""


class Run:
    """An opened run folder. Use `open_run`, which locks it. notices: what was damaged and is made again."""

    def __init__(self, folder: Path, configuration: Mapping[str, Any]) -> None:
        self.folder, self.configuration = folder, configuration
        self.certificates = folder / "certificates"
        self.records_path = folder / "records.jsonl"
        self.results_path = folder / "results.json"
        self.records: dict[int, Record] = {}
        self.notices: list[str] = []
        self._unordered, self._pieces = False, -1

    def read(self) -> None:
        """Take in the records; cut off a last line that was not finished. RunError names a line that is no record."""
        lines = read_lines(self.records_path, self.configuration)
        for fault in lines.faults:
            raise RunError(
                f"{self.records_path}, line {fault.line}: {fault.reason}; remove the line, and its input is worked on "
                "again, or name another folder with --out"
            )
        if self.records_path.exists() and lines.complete < self.records_path.stat().st_size:
            with self.records_path.open("r+b") as file:
                file.truncate(lines.complete)
        self.records, self._unordered = lines.records, bool(lines.repeated) or not _is_rising(lines.records)

    def append(self, records: Sequence[Record], witnesses: Mapping[int, tuple[np.ndarray, float]]) -> None:
        """Write a batch: its witnesses first, then its records, flushed to the disk."""
        digest = configuration_digest(self.configuration)
        marked = {record.index: replace(record, head=replace(record.head, run=digest)) for record in records}
        text = "".join(json.dumps(record.to_json(), allow_nan=False) + "\n" for record in marked.values())
        # The summary is that of the records before.
        self.results_path.unlink(missing_ok=True)
        if witnesses:
            write_witnesses(self._new_piece(min(witnesses)), witnesses)
        try:
            with self.records_path.open("a", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            message = f"{self.records_path} cannot be written: {error}; the same command continues the run"
            raise OSError(message) from None
        last = next(reversed(self.records), -1)
        self._unordered |= not _is_rising([last, *marked]) or not self.records.keys().isdisjoint(marked)
        self.records.update(marked)

    def _new_piece(self, first: int) -> Path:
        """Return the path of a piece of witnesses that is not there yet."""
        pieces = self.folder / "witnesses"
        pieces.mkdir(exist_ok=True)
        if self._pieces < 0:
            self._pieces = len(list(pieces.iterdir()))
        names = (pieces / f"{first:09d}-{number:06d}.npz" for number in itertools.count(self._pieces))
        self._pieces += 1
        return next(path for path in names if not path.exists())

    def replace(self, records: Mapping[int, Record | None]) -> None:
        """Put other records, or none, in the place of those of some inputs, before they are worked on again."""
        self.results_path.unlink(missing_ok=True)
        for index, record in records.items():
            self.records.pop(index)
            if record is not None:
                self.records[index] = record
        write_lines(self.records_path, self.records)
        self._unordered = False

    def witnesses(self) -> Witnesses:
        """Return a witness of each input: the one that its record claims, or else the nearest.

        A file that holds none is set aside (`.damaged`), and noticed.
        """
        stored: list[tuple[int, np.ndarray, float]] = []
        for path in _witness_files(self.folder):
            try:
                stored += read_witnesses(path)
            except ArrayFileError as error:
                aside = path.replace(self.folder / f"{path.name}.damaged")
                self.notices.append(f"{path} holds no witnesses: {error}; it is {aside.name} now")
        return self._claimed(stored)

    def _claimed(self, stored: Sequence[tuple[int, np.ndarray, float]]) -> Witnesses:
        """Return of each index the witness that its record claims, or else the nearest."""
        nearest: Witnesses = {}
        for index, point, distance in stored:
            record = self.records.get(index)
            claim = None if record is None else record.claimed_distance
            held = nearest.get(index)
            if held is None or distance == claim or (held[1] != claim and distance < held[1]):
                nearest[index] = (point, distance)
        return nearest

    def keep_witnesses(self, witnesses: Witnesses) -> None:
        """Leave these witnesses and no others, in one file."""
        if witnesses:
            write_witnesses(self.folder / "witnesses.npz", witnesses)
        else:
            (self.folder / "witnesses.npz").unlink(missing_ok=True)
        pieces = self.folder / "witnesses"
        if pieces.exists():
            for path in pieces.iterdir():
                path.unlink()
            pieces.rmdir()

    def finish(self, results: Mapping[str, Any]) -> None:
        """Leave one record an input and one witness a claim, and write the summary. Safe to repeat."""
        claims = {index: record.claimed_distance for index, record in self.records.items()}
        self.keep_witnesses({i: value for i, value in self.witnesses().items() if claims.get(i) == value[1]})
        if self._unordered:
            write_lines(self.records_path, self.records)
            self._unordered = False
        self._drop_unnamed_certificates()
        write_atomically(self.results_path, json.dumps(results, indent=2, allow_nan=False).encode())

    def _drop_unnamed_certificates(self) -> None:
        """Remove certificates of which no record speaks: those of proofs that later ones have replaced."""
        # Nothing is removed through a link: the folder behind it may be that of another run.
        if not self.certificates.is_dir() or self.certificates.is_symlink():
            return
        files = [r.certificate for r in self.records.values() if isinstance(r, KeptCertificate)]
        named = {Path(certificate.file).name for certificate in files if certificate is not None}
        for path in self.certificates.iterdir():
            if path.suffix == ".npz" and path.name not in named:
                path.unlink()


@dataclass(frozen=True, eq=False)
class StoredRun:
    """What a run folder holds: configuration, lines of records, witnesses by index, the summary.

    results: None as long as the run is not finished; a sentence where the file holds no summary.
    """

    configuration: dict[str, Any]
    lines: RecordLines
    witnesses: Witnesses
    results: dict[str, Any] | str | None = field(default=None)


def read_run(folder: Path) -> StoredRun:
    """Return what a run folder holds, changing nothing. Raises RunError if it holds no run."""
    path = folder / "run.json"
    try:
        if not path.is_file():
            raise RunError(f"{folder} holds no run: there is no {path.name} in it that can be read")
        if path.stat().st_size > LARGEST_LINE:
            raise RunError(f"{path} cannot be read: it is longer than {LARGEST_LINE:,} bytes")
        configuration = parse_record(path.read_bytes())
        check_configuration(configuration)
    except OSError:
        raise RunError(f"{folder} holds no run: there is no {path.name} in it that can be read") from None
    except RecordError as error:
        raise RunError(f"{path} cannot be read: {error}") from None
    try:
        run = Run(folder, configuration)
        lines = read_lines(run.records_path, configuration)
        for fault in lines.faults:
            if fault.index is None:
                raise RunError(f"{run.records_path}, line {fault.line}: {fault.reason}")
        run.records = lines.records
        stored = [witness for path in _witness_files(folder) for witness in _read_witnesses(path)]
        return StoredRun(configuration, lines, run._claimed(stored), _read_results(run.results_path))
    except OSError as error:
        raise RunError(f"{folder} cannot be read: {error}") from None


def _is_rising(indices: Iterable[int]) -> bool:
    return all(before < after for before, after in itertools.pairwise(indices))


def _witness_files(folder: Path) -> list[Path]:
    whole = folder / "witnesses.npz"
    return [*([whole] if whole.exists() else []), *sorted((folder / "witnesses").glob("*.npz"))]


def _read_witnesses(path: Path) -> list[tuple[int, np.ndarray, float]]:
    try:
        return read_witnesses(path)
    except ArrayFileError as error:
        raise RunError(
            f"{path} holds no witnesses: {error}; the command of the run, given again, searches for them"
        ) from None


def _read_results(path: Path) -> dict[str, Any] | str | None:
    if not path.exists():
        return None
    if path.stat().st_size > LARGEST_LINE:
        return f"it is longer than {LARGEST_LINE:,} bytes"
    try:
        return parse_record(path.read_bytes())
    except RecordError as error:
        return str(error)


@contextlib.contextmanager
def open_run(folder: Path, configuration: Mapping[str, Any], origin: Mapping[str, Any] | None = None) -> Iterator[Run]:
    """Open or create a run folder for this configuration and lock it against other processes.

    origin: where model and data came from; kept beside the configuration, but another one is no other run.

    Raises RunError, with nothing written, if the folder holds another run or something else, or a line that is no
    record of this run.
    """
    configuration = {"schema": SCHEMA, **configuration}
    path = folder / "run.json"
    if folder.exists() and not folder.is_dir():
        raise RunError(f"{folder} is a file; --out takes a folder")
    if path.exists():
        _check_stored(path, configuration)
    elif folder.exists() and any(entry.name not in (".lock", "run.json") for entry in folder.iterdir()):
        raise RunError(f"{folder} is not empty and holds no run; name another folder with --out")
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise RunError(f"{folder} is in use by another process") from None
        if path.exists():
            _check_stored(path, configuration)
        else:
            stored = {**configuration, "origin": dict(origin or {})}
            write_atomically(path, json.dumps(stored, indent=2, allow_nan=False).encode())
        run = Run(folder, json.loads(json.dumps(configuration)))
        run.read()
        yield run


def _check_stored(path: Path, configuration: Mapping[str, Any]) -> None:
    """Raise RunError unless run.json states this configuration and nothing else."""
    try:
        stored = parse_record(path.read_bytes())
    except (OSError, RecordError) as error:
        raise RunError(f"{path} cannot be read: {error}; remove the folder or name another with --out") from None
    wanted = json.loads(json.dumps(configuration))
    keys = [key for key in (*wanted, *stored) if key != "origin" and stored.get(key) != wanted.get(key)]
    if keys:
        key = keys[0]
        raise RunError(
            f"{path.parent} holds another run: {key} is {stored.get(key)!r} there and {wanted.get(key)!r} here; "
            "name another folder with --out"
        )
