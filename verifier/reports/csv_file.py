"""Tables as CSV files, written in one step."""

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

from encoders.files import write_atomically


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> Path:
    """Write a line of names and a line for each row; return the path."""
    content = io.StringIO()
    writer = csv.writer(content, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    write_atomically(path, content.getvalue().encode())
    return path
