"""Figures without a global state: made, written as PNG in one step, forgotten; a caller's backend stays as it is.

Curves are told apart by their dashes too, in colours that the colour-blind tell apart (Okabe, Ito 2008).
"""

import io
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from encoders.files import write_atomically
from verifier.pages.drawing import COLOURS

LINES = ("-", "--", ":", "-.", (0, (6, 1)), (0, (3, 1, 1, 1)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "*", "h", "d")
BLUE, ORANGE = COLOURS[:2]


def new_axes(width: float, height: float) -> tuple[Figure, Axes]:
    """Return an empty figure of a size in inches, and its only axes."""
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    axes.set_prop_cycle(color=COLOURS, linestyle=LINES)
    return figure, axes


def save(figure: Figure, path: Path, dpi: int = 150) -> Path:
    """Write a figure as PNG; return the path."""
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=dpi)
    write_atomically(path, content.getvalue())
    return path
