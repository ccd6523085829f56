"""Tables of a run for papers and other programs: its counts, or a line for each input."""

from __future__ import annotations

import csv
import dataclasses
import importlib
import io
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from encoders.files import replacing, write_atomically
from verifier.pages.rows import rows_of
from verifier.pages.tables import RunRecords, Table, per_class, per_input, records_in_order, summary
from verifier.runs.folder import RunError, read_run
from verifier.runs.records import SCHEMA

TABLES, SMT_LIB = ("summary", "classes", "inputs"), "smt-lib"
# What LaTeX reads as commands.
LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
}  # fmt: skip


@dataclasses.dataclass(frozen=True, eq=False)
class ExportResult:
    """What `export` returns: the table as text where it went into no file."""

    table: Table
    out: Path | None
    text: str | None

    def to_json(self) -> dict[str, Any]:
        """Return the object that `--json` prints."""
        rows = [[_finite(cell) for cell in row] for row in self.table.rows]
        out = None if self.out is None else str(self.out)
        return {"schema": SCHEMA, "command": "export", "columns": list(self.table.columns), "rows": rows, "out": out}


def export(
    run: str | Path, *, format: str = "csv", table: str = "summary", out: str | Path | None = None
) -> ExportResult:
    """Return a table of a run folder, computed from its records; write it where `out` says.

    format: csv, latex (booktabs), or parquet, which needs `out` and pyarrow. table: summary, a row for each radius,
    attack, method or property; classes, the outcomes at the largest radius by label; inputs, a row for each input. Or
    smt-lib: each certificate goes into a file of the new folder `out`, of which the table has a row for each.
    Raises ValueError with what is wrong, and where `out` exists.
    """
    if format not in (*FORMATS, SMT_LIB):
        raise ValueError(f"unknown format {format!r}; supported: {', '.join(FORMATS)}, {SMT_LIB}")
    if table not in TABLES:
        raise ValueError(f"unknown table {table!r}; supported: {', '.join(TABLES)}")
    path = None if out is None else Path(out)
    if path is None and format in ("parquet", SMT_LIB):
        what = "parquet is no text; name a file" if format == "parquet" else f"{SMT_LIB} is many files; name a folder"
        raise ValueError(f"{what} with --out")
    if path is not None and (path.exists() or not path.parent.is_dir()):
        wrong = "exists" if path.exists() else f"has no folder {path.parent}"
        raise ValueError(f"--out {path} {wrong}; name another file")
    if format == SMT_LIB:
        assert path is not None
        return _proofs(Path(run), path)
    if format == "parquet":
        _pyarrow()
    found = _table(Path(run), table)
    content = FORMATS[format](found)
    text = None
    if path is None:
        assert isinstance(content, str)
        text = content
    elif isinstance(content, str):
        write_atomically(path, content.encode())
    else:
        with replacing(path) as temporary:
            importlib.import_module("pyarrow.parquet").write_table(content, str(temporary))
    return ExportResult(found, path, text)


def _proofs(run: Path, folder: Path) -> ExportResult:
    # Imported here: tables need neither model nor data.
    written = importlib.import_module("verifier.commands.smt_export").write_proofs(run, folder)
    return ExportResult(written, folder, _csv(written))


def _table(folder: Path, name: str) -> Table:
    stored = read_run(folder)
    if not stored.lines.records:
        raise RunError(f"{folder} holds no records, so there is nothing to export; the command of the run makes them")
    results = stored.results if isinstance(stored.results, dict) else {}
    run = RunRecords(stored.configuration, records_in_order(stored.lines.records), results)
    if name == "summary":
        return summary(run)
    rows = rows_of(stored.lines.records)
    if name == "inputs":
        return per_input(rows)
    if stored.configuration["command"] == "verify":
        raise ValueError(f"{folder} is a run of verify, whose boxes have no classes; its tables: summary, inputs")
    return per_class(rows, max(run.epsilons, default=0.0))


def _csv(table: Table) -> str:
    """Return lines of comma-separated values; numbers read back as they are, what is missing is empty."""
    content = io.StringIO()
    writer = csv.writer(content, lineterminator="\n")
    writer.writerow(table.columns)
    writer.writerows([repr(v) if isinstance(v, float) else v for v in map(_finite, row)] for row in table.rows)
    return content.getvalue()


def _latex(table: Table) -> str:
    """Return a tabular with the rules of booktabs, numbers to four digits."""
    align = "".join("r" if _is_number(table, place) else "l" for place in range(len(table.columns)))
    lines = [rf"\begin{{tabular}}{{{align}}}", r"\toprule", _latex_row(n.replace("_", " ") for n in table.columns)]
    lines += [r"\midrule", *(_latex_row(map(_latex_cell, row)) for row in table.rows), r"\bottomrule", r"\end{tabular}"]
    return "\n".join(lines) + "\n"


def _latex_row(cells: Any) -> str:
    return " & ".join("".join(LATEX.get(c, c) for c in " ".join(cell.split())) for cell in cells) + r" \\"


def _latex_cell(value: Any) -> str:
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return "--"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _is_number(table: Table, place: int) -> bool:
    return all(row[place] is None or isinstance(row[place], int | float) for row in table.rows)


def _parquet(table: Table) -> Any:
    columns = zip(*table.rows, strict=True) if table.rows else ([] for _ in table.columns)
    arrays = {name: [_finite(cell) for cell in cells] for name, cells in zip(table.columns, columns, strict=True)}
    return _pyarrow().table(arrays)


def _pyarrow() -> Any:
    try:
        return importlib.import_module("pyarrow")
    except ImportError:
        raise ValueError(
            "format parquet needs pyarrow, which is not installed: pip install 'robustness-verifier[parquet]', or take "
            "csv"
        ) from None


def _finite(value: Any) -> Any:
    """Return a cell, None for an infinity: JSON has none, and a paper prints none."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


# By name: a table as text, or what pyarrow writes.
FORMATS: Mapping[str, Callable[[Table], Any]] = {"csv": _csv, "latex": _latex, "parquet": _parquet}
