"""Tables as text: a `.csv` file whose header names the columns, one of them the label and the others the inputs.

Cells are decimal numbers; only labels may be words. What is no number is refused with its line, column and value, for
all columns at once. Read with Python's csv module, row by row into one buffer, within the limits.
"""

from __future__ import annotations

import csv
import math
import re
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np

from encoders.limits import Limits
from verifier.data.archive import check_file
from verifier.data.dataset import Inputs
from verifier.data.error import DataError
from verifier.data.labels import ReadLabels, read_labels

# How tables write a value that is missing, in small letters.
MISSING = frozenset({"", "na", "n/a", "nan", "null", "none", "?"})
# The label column that asks for none.
NO_LABEL = "none"
# Columns and labels that a message names.
NAMED = 8
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)


@dataclass(frozen=True, eq=False)
class Table:
    """The columns that are inputs, their values `(rows, columns)` in float64, and the labels; None without any."""

    columns: tuple[str, ...]
    inputs: Inputs
    labels: ReadLabels | None


def read_table(path: Path, label: str | int | None, limits: Limits, classes: bool = True) -> Table:
    """Return the table of a `.csv` file; label: the name or the place of its column, None: the last, "none": none.

    classes: whether labels are classes; if not, their column is left out.

    Raises DataError for whatever is no table of numbers, LimitError for more than the limits allow.
    """
    limits.check("text_bytes", check_file(path), f"{path}")
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            return _read(path, file, label, limits, classes)
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: no text in UTF-8 ({error}); save it so") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error}") from error


def _read(path: Path, file: IO[str], label: str | int | None, limits: Limits, classes: bool) -> Table:
    rows = _rows(path, file)
    line, header = next(rows, (0, []))
    columns = _checked_header(path, header)
    limits.check("input_values", len(columns), f"{path}: a row")
    place = _label_place(path, columns, label)
    found = _Cells(path, columns, place)
    for line, row in rows:
        found.add(line, row)
        limits.check("data_bytes", 8 * len(found.numbers), f"{path}")
    if place is not None and not classes:
        found.faults.pop(columns[place], None)
    found.refuse()
    if not found.rows:
        raise DataError(f"{path}: no rows below the header {', '.join(columns[:NAMED])}")
    inputs = np.frombuffer(found.numbers, dtype=np.float64).reshape(found.rows, -1)
    names = tuple(name for k, name in enumerate(columns) if k != place)
    return Table(names, inputs, None if place is None or not classes else _labels(path, columns[place], found.labels))


def _rows(path: Path, file: IO[str]) -> Iterator[tuple[int, list[str]]]:
    """Yield the rows that are not empty with the line on which each ends."""
    reader = csv.reader(file, strict=True, skipinitialspace=True)
    try:
        for row in reader:
            if row:
                yield reader.line_num, [cell.strip() for cell in row]
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: {error}") from error


def _checked_header(path: Path, header: Sequence[str]) -> tuple[str, ...]:
    """Return the names of the columns; DataError where they are none."""
    if not header:
        raise DataError(f"{path}: empty; a table has a header with the names of its columns, and rows of numbers")
    if all(NUMBER.fullmatch(name) for name in header):
        raise DataError(f"{path}: its first line holds numbers, {', '.join(header[:NAMED])}; name the columns there")
    if len(header) == 1 and (";" in header[0] or "\t" in header[0]):
        raise DataError(f"{path}: its columns are not divided by commas; save it with commas, and points in numbers")
    empty = [place for place, name in enumerate(header) if not name]
    if empty:
        raise DataError(
            f"{path}: column {empty[0]} has no name; name it, or leave it out (pandas writes its index so: give "
            f"to_csv(..., index=False))"
        )
    twice = sorted({name for name in header if header.count(name) > 1}) if len(set(header)) < len(header) else []
    if twice:
        raise DataError(f"{path}: several columns are called {twice[0]!r}; a name is that of one column")
    return tuple(header)


def _label_place(path: Path, columns: Sequence[str], label: str | int | None) -> int | None:
    """Return the place of the label column, None for no labels; DataError where there is no such column."""
    if label is None:
        place = len(columns) - 1
    elif label in columns:
        place = list(columns).index(str(label))
    elif label == NO_LABEL:
        return None
    elif re.fullmatch(r"-?[0-9]{1,9}", str(label)) and -len(columns) <= int(label) < len(columns):
        place = int(label) % len(columns)
    else:
        named = ", ".join(columns[:NAMED]) + (", ..." if len(columns) > NAMED else "")
        raise DataError(
            f"{path}: no column {label!r} for the label; there are {named} (places 0 to {len(columns) - 1}), or "
            f"{NO_LABEL!r} where all columns are inputs"
        )
    if len(columns) == 1:
        raise DataError(f"{path}: its only column is the label, {columns[0]!r}; name inputs too, or --label {NO_LABEL}")
    return place


@dataclass(eq=False)
class _Cells:
    """The cells read so far. faults: by column, the line and the value of the first cell that is no number."""

    path: Path
    columns: tuple[str, ...]
    label: int | None
    numbers: array[float] = field(default_factory=lambda: array("d"))
    labels: list[tuple[int, str]] = field(default_factory=list)
    faults: dict[str, tuple[int, str]] = field(default_factory=dict)
    rows: int = 0

    def add(self, line: int, row: list[str]) -> None:
        """Take in a row; DataError where it has another number of cells than the header."""
        if len(row) != len(self.columns):
            raise DataError(f"{self.path}, line {line}: {len(row)} cells, the header names {len(self.columns)} columns")
        self.rows += 1
        if self.label is not None:
            self.labels.append((line, row.pop(self.label)))
            if self.labels[-1][1].lower() in MISSING:
                self.faults.setdefault(self.columns[self.label], self.labels[-1])
        names = None
        for place, cell in enumerate(row):
            value = float(cell) if NUMBER.fullmatch(cell) else math.nan
            if not math.isfinite(value):
                names = names or [name for k, name in enumerate(self.columns) if k != self.label]
                self.faults.setdefault(names[place], (line, cell))
            self.numbers.append(value)

    def refuse(self) -> None:
        """Raise DataError naming every column with a cell that is no number, and what to do."""
        missing = {name: at for name, at in self.faults.items() if at[1].lower() in MISSING}
        words = {name: at for name, at in self.faults.items() if name not in missing}
        parts = []
        if missing:
            shown = "; ".join(f"{name!r} first at line {line} ({cell!r})" for name, (line, cell) in _first(missing))
            parts.append(f"missing values in column {shown}: fill them, or leave their rows out")
        if words:
            first = _first(words)
            shown = "; ".join(f"column {name!r} holds {cell[:40]!r} at line {line}" for name, (line, cell) in first)
            parts.append(
                f"{shown}, which is no finite number: leave such columns out, or encode them as the model was "
                f"trained, mostly as a column of 0 and 1 for each value"
            )
        if parts:
            raise DataError(f"{self.path}: {'; '.join(parts)}")


def _first(faults: dict[str, tuple[int, str]]) -> list[tuple[str, tuple[int, str]]]:
    return list(faults.items())[:NAMED]


def _labels(path: Path, column: str, cells: Sequence[tuple[int, str]]) -> ReadLabels:
    """Return labels as numbers, or words numbered in sorted order; DataError for a mixture of both."""
    numeric = [bool(NUMBER.fullmatch(cell)) for _, cell in cells]
    if all(numeric):
        values: Any = np.array([float(cell) for _, cell in cells])
        try:
            read = read_labels(str(path), values, len(values))
        except DataError as error:
            remedy = "classes are whole numbers or words; name the column of the classes with --label"
            raise DataError(f"{error} (column {column!r}; {remedy})") from None
        return ReadLabels(read.labels, f"labels from column {column!r}")
    if any(numeric):
        line, cell = cells[numeric.index(False)]
        raise DataError(
            f"{path}, line {line}: label {cell[:40]!r} in column {column!r}, which also holds numbers; a label is a "
            f"number in all rows, or a word in all rows"
        )
    words = sorted({cell for _, cell in cells})
    numbers = {word: number for number, word in enumerate(words)}
    shown = ", ".join(f"{word[:40]!r} as {number}" for word, number in list(numbers.items())[:NAMED])
    shown += ", ..." if len(words) > NAMED else ""
    labels = np.array([numbers[cell] for _, cell in cells], dtype=np.int64)
    return ReadLabels(labels, f"labels from column {column!r} in sorted order, {shown}", len(words))
