"""The result of `compare`: a row for each method, and two figures of tightness and brackets."""

from collections.abc import Iterator
from itertools import cycle
from pathlib import Path

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import RenderableType
from rich.table import Table

from verifier.commands.compare import CompareResult
from verifier.reports.csv_file import write_csv
from verifier.reports.figure import MARKERS, new_axes, save
from verifier.reports.footnotes import EXECUTION_ONLY, TRUSTED


def shown(result: CompareResult) -> Iterator[RenderableType]:
    """Yield what a terminal shows."""
    yield table(result)
    for name, reason in result.left_out.items():
        yield f"left out: {name}: {reason}"


def write(result: CompareResult, folder: Path) -> list[Path]:
    """Write comparison.csv, and tightness.png and brackets.png, each with the numbers that it shows as CSV."""
    rows = [vars(row) for row in result.rows]
    tight = [[row.method, row.median_seconds, row.mean_lower] for row in result.rows if row.direction != "finds"]
    return [
        write_csv(folder / "comparison.csv", list(rows[0]), (list(row.values()) for row in rows)),
        write_csv(folder / "tightness.csv", ["method", "median_seconds", "mean_lower"], tight),
        tightness_figure(result, folder / "tightness.png"),
        write_brackets(result, folder / "brackets.csv"),
        brackets_figure(result, folder / "brackets.png"),
    ]


def problems(result: CompareResult) -> Iterator[str]:
    """Yield a sentence for each input that one method proves and another breaks."""
    for index, prover, finder in result.violations:
        sentence = f"error: input {index}: {prover} proves safe what {finder} breaks; please report"
        yield sentence if result.records is None else f"{sentence}, it is saved in {result.records.parent}"


def table(result: CompareResult) -> Table:
    """Return one row for each method; columns of what there may be none of only where there is some."""
    title = f"{result.model}: {result.inputs} inputs, epsilon {result.epsilon:g} ({result.norm}-norm)"
    # Without lines between them all columns fit into 80 characters.
    rows = Table(title=title, title_justify="left", caption_justify="left", box=SIMPLE_HEAD, padding=0)
    columns = {
        "method": [row.method for row in result.rows],
        "certified": [str(row.certified) for row in result.rows],
        "trusted": [str(row.trusted or "") for row in result.rows],
        "falsified": [str(row.falsified) for row in result.rows],
        "execution\nonly": [str(row.execution_only or "") for row in result.rows],
        "mean\nlower": [f"{row.mean_lower:.4g}" for row in result.rows],
        "mean\nupper": [f"{row.mean_upper:.4g}" for row in result.rows],
        "gap\nclosed": ["" if row.gap_closed is None else f"{row.gap_closed:.1%}" for row in result.rows],
        "open\nunits": ["" if row.median_open_units is None else f"{row.median_open_units:g}" for row in result.rows],
        "median\nseconds": [f"{row.median_seconds:.2g}" for row in result.rows],
    }
    filled = {name: cells for name, cells in columns.items() if any(cells)}
    footnotes = {"trusted": f"trusted: {TRUSTED} and moves no mean", "execution\nonly": EXECUTION_ONLY}
    rows.caption = "\n".join(words for name, words in footnotes.items() if name in filled) or None
    for name in filled:
        rows.add_column(name, justify="left" if name == "method" else "right", no_wrap=True)
    for cells in zip(*filled.values(), strict=True):
        rows.add_row(*cells)
    return rows


def tightness_figure(result: CompareResult, path: Path) -> Path:
    """Write tightness against time: the mean lower end of each method that proves, its median seconds an input.

    The dashed line is the mean of the least upper ends: no sound lower end can lie above it.
    """
    from matplotlib.ticker import NullFormatter

    figure, axes = new_axes(6.5, 4.2)
    for row, marker in zip((row for row in result.rows if row.direction != "finds"), cycle(MARKERS), strict=False):
        axes.plot(row.median_seconds, row.mean_lower, marker=marker, linestyle="", label=row.method)
    upper = np.min([[min(b.upper, result.epsilon) for b in every] for every in result.brackets.values()], axis=0)
    axes.axhline(float(upper.mean()), color="gray", linestyle="--", linewidth=1, label="best attack")
    axes.set_xscale("log")
    # Labels between the powers of ten would overlap.
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set(
        xlabel="median seconds an input", ylabel="mean proved radius, cut to epsilon", ylim=(0, result.epsilon * 1.05),
        title=f"{result.model}, epsilon {result.epsilon:g}",
    )  # fmt: skip
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return save(figure, path)


def write_brackets(result: CompareResult, path: Path) -> Path:
    """Write of each input the least upper end, cut to epsilon, and the lower end of each method that proves."""
    cap = result.epsilon
    provers = [row.method for row in result.rows if row.direction != "finds"]
    upper = np.min([[min(b.upper, cap) for b in every] for every in result.brackets.values()], axis=0)
    lower = [[min(max(b.lower, 0.0), cap) for b in result.brackets[name]] for name in provers]
    return write_csv(path, ["index", "least_upper", *provers], zip(result.indices, upper.tolist(), *lower, strict=True))


def brackets_figure(result: CompareResult, path: Path) -> Path:
    """Write the lower ends of each method and the least upper end of each input, sorted by the latter."""
    cap = result.epsilon
    upper = np.min([[min(b.upper, cap) for b in every] for every in result.brackets.values()], axis=0)
    best = np.max([[min(max(b.lower, 0.0), cap) for b in every] for every in result.brackets.values()], axis=0)
    order = np.lexsort((best, upper))
    figure, axes = new_axes(7, 4.2)
    places = np.arange(len(order))
    axes.fill_between(places, best[order], upper[order], step="mid", alpha=0.2, color="gray", label="open")
    provers = [row for row in result.rows if row.direction != "finds"]
    sizes = range(2 * len(provers) + 2, 2, -2)
    for size, row, marker in zip(sizes, provers, cycle(MARKERS), strict=False):
        # Smaller markers on larger ones, so that equal ends stay visible.
        lower = np.array([min(max(b.lower, 0.0), cap) for b in result.brackets[row.method]])
        axes.plot(places, lower[order], marker=marker, linestyle="", markersize=size / 2, label=row.method)
    axes.step(places, upper[order], where="mid", color="black", linewidth=1, label="best attack")
    axes.set(xlabel="inputs, sorted", ylabel="radius, cut to epsilon", title=f"{result.model}, epsilon {cap:g}")
    axes.set_ylim(0, cap * 1.05)
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return save(figure, path)
