"""Several runs as one HTML file that loads nothing: jinja2 escapes every text, no script runs but the page's own."""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from verifier.pages import facts
from verifier.pages.drawing import Curve, Mark, accuracy_chart, legend
from verifier.pages.run_page import RunPage
from verifier.pages.tables import Table, per_input

# Rows of inputs that stand in the file as such, for print and without a script.
FIRST_ROWS = 25


def page(runs: Sequence[RunPage], title: str) -> str:
    """Return the page of some runs, side by side where they are several."""
    folder = Path(__file__).parent
    environment = Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"cell": cell, "heading": heading}
    style, script = ((folder / f"page.{kind}").read_text(encoding="utf-8") for kind in ("css", "js"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return environment.get_template("page.html").render(
        title=title, runs=runs, facts=facts, together=_together(runs), overview=_overview(runs), first_rows=_first_rows,
        style=Markup(style), script=Markup(script), script_digest=digest, version=version("robustness-verifier"),
    )  # fmt: skip


def cell(value: Any, column: str = "") -> str:
    """Return a cell of a table as it is read: shares in per cent, numbers to four digits, nothing as a dash."""
    if value is None or value == "":
        return "-"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if isinstance(value, int):
        return f"{value:,}" if column not in ("index", "class", "label") else str(value)
    if not math.isfinite(value):
        return "\u221e" if value > 0 else "-"
    shares = ("accuracy", "share", "ci95", "frequency", "unresolved", "gap_closed")
    return f"{value:.1%}" if any(word in column for word in shares) else f"{value:.4g}"


def heading(column: str) -> str:
    """Return the heading of a column."""
    return column.replace("ci95_low", "from (95 %)").replace("ci95_high", "to (95 %)").replace("_", " ")


def _first_rows(run: RunPage) -> Table:
    table = per_input(run.rows[:FIRST_ROWS])
    shown = ("index", "label", "prediction", "lower", "upper", "proved_by", "found_by", "reason")
    places = [table.columns.index(name) for name in shown]
    return Table(
        (*shown[:3], "outcome", *shown[3:]),
        tuple(
            (*(cells[place] for place in places[:3]), row.at(run.epsilon), *(cells[place] for place in places[3:]))
            for row, cells in zip(run.rows, table.rows, strict=False)
        ),
    )


def _overview(runs: Sequence[RunPage]) -> Table:
    """Return a row for each run: what can be compared of all of them."""
    rows = []
    for run in runs:
        words = [row.at(run.epsilon) for row in run.rows]
        counts = [words.count(word) for word in ("certified", "falsified", "open", "wrong")]
        seconds = sum(record.head.seconds for record in run.run.records)
        rows.append((run.name, run.command, run.model, run.method, run.epsilon, len(words), *counts, seconds))
    about = ("run", "command", "model", "method", "epsilon", "inputs")
    return Table((*about, "certified", "falsified", "open", "wrong", "seconds"), tuple(rows))


def _together(runs: Sequence[RunPage]) -> Markup | None:
    """Return the curves of all runs in one picture, where several have some in one norm."""
    shown = [run for run in runs if run.is_about_radii]
    if len(shown) < 2 or len({run.norm for run in shown}) > 1:
        return None
    curves: list[Curve] = []
    marks: list[Mark] = []
    for number, run in enumerate(shown):
        curves += run.curves(number, named=True)
        marks += run.marks(number)
    limit = max(run.limit for run in shown)
    words = f"Certified and attack accuracy of {len(shown)} runs against the radius."
    return legend(curves) + accuracy_chart(curves, marks, limit, shown[0].norm, words)
