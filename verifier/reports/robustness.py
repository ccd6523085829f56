"""The result of `robustness`: frequency and severity, and numbers of inputs with a radius of at most epsilon.

The curves are those of Bastani et al. (2016), Figure 3, with the band in which the truth lies.
"""

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from rich.console import RenderableType
from rich.table import Table

from verifier.commands.robustness import RobustnessResult
from verifier.reports.csv_file import write_csv
from verifier.reports.figure import new_axes, save
from verifier.reports.footnotes import EXECUTION_ONLY

# Radii of the table of curves, from 0 to epsilon.
GRID = 100


def shown(result: RobustnessResult) -> Iterator[RenderableType]:
    """Yield what a terminal shows."""
    yield table(result)


def write(result: RobustnessResult, folder: Path) -> list[Path]:
    """Write radii.csv, curves.csv and curves.png."""
    return [
        write_radii(result, folder / "radii.csv"),
        write_curves(result, folder / "curves.csv"),
        curves_figure(result, folder / "curves.png"),
    ]


def table(result: RobustnessResult) -> Table:
    """Return one row for the brackets, which hold the truth, and one for each estimator at its word."""
    title = f"{result.model}: {result.inputs} inputs, {result.correct} classified correctly, epsilon {result.epsilon:g}"
    rows = Table(title=title, title_justify="left", caption_justify="left")
    if result.execution_only:
        rows.caption = f"execution only: {result.execution_only} of {result.inputs}\n{EXECUTION_ONLY}"
    for name in ("", "frequency", "(95 %)", "severity", "unresolved", "median seconds"):
        rows.add_column(name, justify="right" if name else "left", no_wrap=not name)
    phi, mu = result.frequency, result.severity
    interval = "" if phi.ci95 is None else f"{phi.ci95[0]:.2%} to {phi.ci95[1]:.2%}"
    size = mu.reason or f"{mu.lower:.4g} to {mu.upper:.4g}"
    rows.add_row("truth", f"{phi.lower:.2%} to {phi.upper:.2%}", interval, size, f"{result.unresolved:.2%}", "")
    for name, row in result.estimators.items():
        size = "none found" if row.severity is None else f"{row.severity:.4g}"
        rows.add_row(name, f"{row.frequency:.2%}", "", size, f"{row.unresolved:.2%}", f"{row.median_seconds:.3f}")
    return rows


def write_radii(result: RobustnessResult, path: Path) -> Path:
    """Write one line for each input: index, both ends of the bracket, the radius of each estimator (empty: none)."""
    rows = []
    for i, (index, bracket) in enumerate(zip(result.indices, result.brackets, strict=True)):
        values = (bracket.lower, bracket.upper, *(radii[i] for radii in result.radii.values()))
        rows.append([index, *("" if math.isinf(value) else repr(value) for value in values)])
    return write_csv(path, ["index", "lower", "upper", *result.radii], rows)


def curves_of(result: RobustnessResult) -> dict[str, np.ndarray]:
    """Return the counts on a grid: under "epsilon" the radii, "at least" and "at most" the bounds of the truth."""
    grid = np.linspace(0.0, result.epsilon, GRID + 1)
    upper = np.array([bracket.upper for bracket in result.brackets])
    lower = np.array([bracket.lower for bracket in result.brackets])
    counts = {name: np.array(radii)[:, None] <= grid for name, radii in result.radii.items()}
    return {
        "epsilon": grid,
        "at least": (upper[:, None] <= grid).sum(axis=0),
        "at most": (lower[:, None] < grid).sum(axis=0),
        **{name: mask.sum(axis=0) for name, mask in counts.items()},
    }


def write_curves(result: RobustnessResult, path: Path) -> Path:
    """Write the counts as CSV."""
    curves = curves_of(result)
    return write_csv(path, list(curves), zip(*(values.tolist() for values in curves.values()), strict=True))


def curves_figure(result: RobustnessResult, path: Path) -> Path:
    """Write the counts as a picture; the band between "at least" and "at most" holds the truth."""
    curves = curves_of(result)
    epsilons = curves.pop("epsilon")
    figure, axes = new_axes(7, 4.2)
    axes.fill_between(epsilons, curves.pop("at least"), curves.pop("at most"), alpha=0.12, color="gray", label="truth")
    for name, counts in curves.items():
        axes.plot(epsilons, counts, label=name)
    axes.set(xlabel="radius epsilon (inf-norm)", ylabel=f"of {result.inputs} inputs, radius <= epsilon")
    axes.set(title=Path(result.model).name, xlim=(0, result.epsilon or 1.0), ylim=(0, None))
    axes.legend(frameon=False)
    return save(figure, path)
