"""The table, the CSV file and the figures of a comparison of methods."""

import csv
import io
from pathlib import Path

import matplotlib
import numpy as np
from rich.box import SIMPLE_HEAD
from rich.table import Table

from encoders.files import write_atomically
from verifier.commands.compare import CompareResult
from verifier.reports.tables import EXECUTION_ONLY

matplotlib.use("Agg")


def comparison_table(result: CompareResult) -> Table:
    """Return one row for each method; columns of what there may be none of only where there is some."""
    title = f"{result.model}: {result.inputs} inputs, epsilon {result.epsilon:g} ({result.norm}-norm)"
    # Without lines between them all columns fit into 80 characters.
    table = Table(title=title, title_justify="left", caption_justify="left", box=SIMPLE_HEAD, padding=0)
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
    shown = {name: cells for name, cells in columns.items() if any(cells)}
    captions = {
        "trusted": "trusted: safe by the word of a solver alone, which certifies nothing and moves no mean",
        "execution\nonly": EXECUTION_ONLY,
    }
    table.caption = "\n".join(words for name, words in captions.items() if name in shown) or None
    for name in shown:
        table.add_column(name, justify="left" if name == "method" else "right", no_wrap=True)
    for cells in zip(*shown.values(), strict=True):
        table.add_row(*cells)
    return table


def write_comparison(result: CompareResult, path: Path) -> None:
    """Write the rows as CSV."""
    text = io.StringIO()
    rows = [vars(row) for row in result.rows]
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(path, text.getvalue().encode())


def tightness_figure(result: CompareResult, path: Path) -> None:
    """Write tightness against time: the mean lower end of each method that proves, its median seconds an input.

    The dashed line is the mean of the least upper ends: no sound lower end can lie above it.
    """
    import matplotlib.pyplot as plt
    from matplotlib.ticker import NullFormatter

    figure, axes = plt.subplots(figsize=(6.5, 4.2), layout="constrained")
    for row in result.rows:
        if row.direction != "finds":
            axes.plot(row.median_seconds, row.mean_lower, "o", label=row.method)
    upper = np.min([[min(b.upper, result.epsilon) for b in found] for found in result.brackets.values()], axis=0)
    axes.axhline(float(upper.mean()), color="gray", linestyle="--", linewidth=1, label="best attack")
    axes.set_xscale("log")
    # Labels between the powers of ten would overlap.
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set(
        xlabel="median seconds an input", ylabel="mean proved radius, cut to epsilon", ylim=(0, result.epsilon * 1.05),
        title=f"{result.model}, epsilon {result.epsilon:g}",
    )  # fmt: skip
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    figure.savefig(path, dpi=150)
    plt.close(figure)


def brackets_figure(result: CompareResult, path: Path) -> None:
    """Write the lower ends of each method and the least upper end of each input, sorted by the latter."""
    import matplotlib.pyplot as plt

    cap = result.epsilon
    upper = np.min([[min(b.upper, cap) for b in found] for found in result.brackets.values()], axis=0)
    best = np.max([[min(max(b.lower, 0.0), cap) for b in found] for found in result.brackets.values()], axis=0)
    order = np.lexsort((best, upper))
    figure, axes = plt.subplots(figsize=(7, 4.2), layout="constrained")
    places = np.arange(len(order))
    axes.fill_between(places, best[order], upper[order], step="mid", alpha=0.2, color="gray", label="open")
    provers = [row for row in result.rows if row.direction != "finds"]
    for size, row in zip(range(2 * len(provers) + 2, 2, -2), provers, strict=True):
        # Smaller markers on larger ones, so that equal ends stay visible.
        lower = np.array([min(max(b.lower, 0.0), cap) for b in result.brackets[row.method]])
        axes.plot(places, lower[order], ".", markersize=size, label=row.method)
    axes.step(places, upper[order], where="mid", color="black", linewidth=1, label="best attack")
    axes.set(xlabel="inputs, sorted", ylabel="radius, cut to epsilon", title=f"{result.model}, epsilon {cap:g}")
    axes.set_ylim(0, cap * 1.05)
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    figure.savefig(path, dpi=150)
    plt.close(figure)
