"""Runs of parts made one run of all: their records, witnesses and certificates side by side, nothing worked on again.

What is refused: a run of another question, one that is not finished or damaged, a part that is missing, and inputs that
several runs have and disagree on. Where one of two records says at least what the other says, it is taken.
"""

from __future__ import annotations

import dataclasses
import hashlib
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from verifier.fields import RecordError
from verifier.runs.folder import RunError, StoredRun, read_run
from verifier.runs.kept_certificate import KeptCertificate
from verifier.runs.manifest import Manifest, read_manifest, source_of
from verifier.runs.property_files import FOLDER as PROPERTIES
from verifier.runs.records import Record, configuration_digest
from verifier.runs.witness_files import Witnesses, write_witnesses

CERTIFICATES = "certificates"


@dataclasses.dataclass(frozen=True, eq=False)
class Part:
    """A finished run. inputs: those that its summary is about."""

    folder: Path
    stored: StoredRun
    results: Mapping[str, Any]
    inputs: range
    manifest: Manifest | None


@dataclasses.dataclass(frozen=True, eq=False)
class Parts:
    """Runs that make up one. whole: its inputs. records: of each input; homes: the number of the run that has it."""

    parts: Sequence[Part]
    whole: range
    records: dict[int, Record]
    homes: dict[int, int]

    @property
    def configuration(self) -> dict[str, Any]:
        """What run.json states: that of the first run."""
        return self.parts[0].stored.configuration

    def manifest(self) -> Manifest:
        """Return the manifest of the merged run."""
        sources = tuple(
            source_of(part.folder, part.inputs, hashlib.sha256(_records_path(part).read_bytes()).hexdigest())
            for part in self.parts
        )
        return Manifest(configuration_digest(self.configuration), self.whole, self.whole, None, sources)

    def write(self, folder: Path) -> None:
        """Write records, witnesses, certificates and properties into an empty folder."""
        lines: dict[int, bytes] = {}
        witnesses: Witnesses = {}
        for number, part in enumerate(self.parts):
            written = _records_path(part).read_bytes().splitlines(keepends=True)
            for index, numbers in part.stored.lines.lines.items():
                if self.homes[index] == number:
                    lines[index] = written[numbers[-1] - 1]
                    _copy_certificate(self.records[index], part.folder, folder)
                    self._take_witness(index, part, witnesses)
            if (part.folder / PROPERTIES).is_dir():
                shutil.copytree(part.folder / PROPERTIES, folder / PROPERTIES, dirs_exist_ok=True)
        with (folder / "records.jsonl").open("wb") as file:
            file.writelines(lines[index] for index in sorted(lines))
        if witnesses:
            write_witnesses(folder / "witnesses.npz", witnesses)

    def _take_witness(self, index: int, part: Part, witnesses: Witnesses) -> None:
        claim, held = self.records[index].claimed_distance, part.stored.witnesses.get(index)
        if claim is None:
            return
        if held is None or held[1] != claim:
            raise RunError(f"{part.folder} lacks the witness of input {index}; the command of the run finds it again")
        witnesses[index] = held


def read_parts(folders: Sequence[Path]) -> Parts:
    """Return the runs of some folders as one; RunError names the first thing that keeps them from being that."""
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise RunError("the same run is named twice")
    parts = [_read(folder) for folder in folders]
    for part in parts[1:]:
        _check_same(parts[0], part)
    records: dict[int, Record] = {}
    homes: dict[int, int] = {}
    for number, part in enumerate(parts):
        for index, record in part.stored.lines.records.items():
            if index not in records or _says_more(index, (parts[homes[index]], records[index]), (part, record)):
                records[index], homes[index] = record, number
    return Parts(parts, _whole(parts, records), records, homes)


def _read(folder: Path) -> Part:
    stored = read_run(folder)
    results = stored.results
    if not isinstance(results, Mapping):
        why = "it is not finished" if results is None else f"its results.json cannot be read: {results}"
        raise RunError(f"{folder}: {why}; the command of the run, given again, goes on with it")
    for fault in stored.lines.faults:
        raise RunError(f"{folder / 'records.jsonl'}, line {fault.line}: {fault.reason}")
    try:
        manifest = read_manifest(folder)
    except RecordError as error:
        raise RunError(str(error)) from None
    offset, count = results.get("offset"), results.get("inputs")
    if type(offset) is not int or type(count) is not int or offset < 0 or count < 1:
        raise RunError(f"{folder}: its results.json does not say which inputs it is about; give the command again")
    if manifest is not None and manifest.run != configuration_digest(stored.configuration):
        raise RunError(f"{folder}: its manifest.json is of another run")
    return Part(folder, stored, results, range(offset, offset + count), manifest)


def _check_same(first: Part, other: Part) -> None:
    """Raise RunError unless two runs ask the same of the same model and data."""
    ours, theirs = ({k: v for k, v in p.stored.configuration.items() if k != "origin"} for p in (first, other))
    for name in (*ours, *theirs):
        if ours.get(name) != theirs.get(name):
            raise RunError(
                f"{other.folder} is another run than {first.folder}: {name} is {theirs.get(name)!r} there and "
                f"{ours.get(name)!r} here"
            )


def _says_more(index: int, before: tuple[Part, Record], after: tuple[Part, Record]) -> bool:
    """Return whether the later of two records of an input is to be taken; RunError where they disagree."""
    if after[1].weakened(before[1]) is None:
        # Of two that say the same the first stays.
        return before[1].weakened(after[1]) is not None
    worse = before[1].weakened(after[1])
    if worse is not None:
        raise RunError(
            f"{before[0].folder} and {after[0].folder} disagree on input {index}: in one of them {worse}; `verifier "
            "check` says which holds"
        )
    return False


def _whole(parts: Sequence[Part], records: Iterable[int]) -> range:
    """Return the inputs of all parts together; RunError where some are in none, or beyond."""
    stated = {part.manifest.whole for part in parts if part.manifest is not None}
    if len(stated) > 1:
        ends = sorted((whole.start, whole.stop) for whole in stated)
        raise RunError(f"the runs are parts of different inputs: from {ends[0][0]} to {ends[0][1] - 1}, and others")
    first, last = min(part.inputs.start for part in parts), max(part.inputs.stop for part in parts)
    whole = next(iter(stated), range(first, last))
    if first < whole.start or last > whole.stop:
        raise RunError(f"the runs go beyond inputs {whole.start} to {whole.stop - 1}, of which they are parts")
    covered = set(records)
    if parts[0].stored.configuration["command"] == "verify":
        # Boxes behind one that is broken are not asked about.
        covered |= {index for part in parts for index in part.inputs}
    missing = [index for index in whole if index not in covered]
    if missing:
        here = ", ".join(part.manifest.shard for part in parts if part.manifest and part.manifest.shard)
        shards = f" (the shards {here} are here)" if here else ""
        raise RunError(f"{len(missing)} inputs from {missing[0]} on are in none of the runs{shards}; name all parts")
    return whole


def _records_path(part: Part) -> Path:
    return part.folder / "records.jsonl"


def _copy_certificate(record: Record, source: Path, folder: Path) -> None:
    if not isinstance(record, KeptCertificate) or record.certificate is None:
        return
    name = Path(record.certificate.file).name
    (folder / CERTIFICATES).mkdir(exist_ok=True)
    try:
        shutil.copyfile(source / CERTIFICATES / name, folder / CERTIFICATES / name)
    except FileNotFoundError:
        raise RunError(
            f"{source} lacks the certificate of input {record.index}; the command of the run makes it again"
        ) from None
