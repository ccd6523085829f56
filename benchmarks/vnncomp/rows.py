"""Results as a CSV file that grows row by row: what was stopped goes on where it was, with the same settings alone."""

from __future__ import annotations

import csv
import dataclasses
import io
import os
import types
import typing
from pathlib import Path
from typing import Any

from instances import Row, Settings

COLUMNS = [field.name for field in dataclasses.fields(Row)]


class RowFile:
    """The rows of a file, and those that are added. ValueError where the file is not one, or of other settings."""

    def __init__(self, path: Path, settings: Settings) -> None:
        self.path, self.rows = path, _read(path)
        mine = (settings.method, settings.limit, settings.threads, settings.certificates)
        for row in self.rows:
            theirs = (row.asked, row.limit, row.threads, row.certificates)
            if theirs != mine:
                raise ValueError(
                    f"{path} holds results of other settings (method, limit, threads, certificates): {theirs}, not "
                    f"{mine}; name another --out, or repeat those"
                )

    def add(self, row: Row) -> None:
        """Append a row, in one piece and onto the disk."""
        fresh = not self.path.exists() or not self.path.stat().st_size
        with self.path.open("a", newline="") as file:
            file.write((_line(COLUMNS) if fresh else "") + _line([_written(getattr(row, name)) for name in COLUMNS]))
            file.flush()
            os.fsync(file.fileno())
        self.rows.append(row)


def _read(path: Path) -> list[Row]:
    """Return the rows of a file, none where there is none; a last line without its end is cut off."""
    if not path.exists():
        return []
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if len(whole) < len(content):
        with path.open("r+b") as file:
            file.truncate(len(whole))
    lines = list(csv.reader(io.StringIO(whole.decode(), newline="")))
    if lines and lines[0] != COLUMNS:
        raise ValueError(f"{path} is no table of this program: its columns are {lines[0]}, not {COLUMNS}")
    kinds = typing.get_type_hints(Row)
    return [
        Row(**{name: _value(kinds[name], text) for name, text in zip(COLUMNS, line, strict=True)}) for line in lines[1:]
    ]


def _line(values: list[str]) -> str:
    """Return a line of CSV; what would end it becomes a space, so that a line is a row."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow([" ".join(value.splitlines()) for value in values])
    return text.getvalue()


def _written(value: Any) -> str:
    return "" if value is None else str(value)


def _value(kind: Any, text: str) -> Any:
    """Return what a text says, of a kind of the fields of a row."""
    if isinstance(kind, types.UnionType):
        return None if not text else _value(next(k for k in kind.__args__ if k is not type(None)), text)
    return text == "True" if kind is bool else kind(text)
