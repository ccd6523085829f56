"""Figures without a global state: made, written as PNG in one step, forgotten; a caller's backend stays as it is."""

import io
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from encoders.files import write_atomically


def new_axes(width: float, height: float) -> tuple[Figure, Axes]:
    """Return an empty figure of a size in inches, and its only axes."""
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()


def save(figure: Figure, path: Path, dpi: int = 150) -> Path:
    """Write a figure as PNG; return the path."""
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=dpi)
    write_atomically(path, content.getvalue())
    return path
