"""records.jsonl, line by line: which records it holds, and what is wrong with which line.

An input may have several lines while a run goes on, each saying at least what the one before says; the last counts.
A file with a half-written last line is one whose writer was killed.
"""

from __future__ import annotations

import contextlib
import gc
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from encoders.files import replacing
from verifier.fields import RecordError
from verifier.runs.kinds import RECORDS
from verifier.runs.records import Configuration, Identified, Record, index_of, parse_record

# A record of a comparison takes some ten thousand bytes.
LARGEST_LINE = 1 << 24


@dataclass(frozen=True)
class Fault:
    """What is wrong with a line, counted from 1; index: of the input it is about, None where nobody can tell."""

    line: int
    index: int | None
    reason: str


@dataclass(eq=False)
class RecordLines:
    """What a file of records holds. records: the last valid one of each index; lines: the numbers of all its lines.

    complete: the length in bytes of the lines that are finished. faults: in the order of the lines.
    """

    records: dict[int, Record] = field(default_factory=dict)
    lines: dict[int, list[int]] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    complete: int = 0

    @property
    def repeated(self) -> dict[int, list[int]]:
        """The lines of inputs that have several."""
        return {index: lines for index, lines in self.lines.items() if len(lines) > 1}


def read_lines(path: Path, configuration: Configuration) -> RecordLines:
    """Return what a file of records of a run holds; nothing if there is none. OSError if it cannot be read."""
    held, kind = RecordLines(), RECORDS[configuration["command"]]
    configuration = Identified(configuration)
    if not path.exists():
        return held
    if not path.is_file():
        raise OSError(f"{path} is no file")
    with _without_collection():
        _read_into(held, path, kind, configuration)
    return held


def _read_into(held: RecordLines, path: Path, kind: type[Record], configuration: Configuration) -> None:
    for number, (line, end) in enumerate(_finished_lines(path), start=1):
        held.complete = end
        index = None
        try:
            if len(line) > LARGEST_LINE:
                raise RecordError(f"not a record: it is longer than {LARGEST_LINE:,} bytes")
            values = parse_record(line)
            index = index_of(values)
            held.lines.setdefault(index, []).append(number)
            record = kind.from_json(values, configuration)
            before = held.records.get(index)
            worse = None if before is None else record.weakened(before)
            if worse is not None:
                raise RecordError(f"input {index} has an earlier record, line {held.lines[index][0]}, and {worse}")
            held.records[index] = record
        except RecordError as error:
            held.faults.append(Fault(number, index, str(error)))


@contextlib.contextmanager
def _without_collection() -> Iterator[None]:
    """Look for no cycles inside: records have none, and a look at all that are read already takes a quarter longer."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def write_lines(path: Path, records: Mapping[int, Record]) -> None:
    """Write one line for each input in one atomic step."""
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(records[index].to_json(), allow_nan=False) + "\n" for index in sorted(records))


def _finished_lines(path: Path) -> Iterator[tuple[bytes, int]]:
    """Yield (line, where it ends in the file) of those that end; of a longer one than is read only the beginning."""
    end = 0
    with path.open("rb") as file:
        while line := file.readline(LARGEST_LINE + 1):
            end += len(line)
            last = line
            while not last.endswith(b"\n"):
                last = file.readline(LARGEST_LINE + 1)
                if not last:
                    return
                end += len(last)
            yield line, end
