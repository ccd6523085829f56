"""Counterexamples as a picture: original, adversarial, and their difference, scaled by a factor that is stated."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from verifier.commands.adversarial_example import Exhibit
from verifier.pages.pictures import as_picture, scale_of_difference
from verifier.reports.figure import save

__all__ = ["COLUMNS", "as_picture", "difference_factor", "exhibit_grid", "name_of"]

COLUMNS = ("original", "adversarial", "difference")


def exhibit_grid(exhibits: Sequence[Exhibit], title: str, path: Path, classes: Sequence[str] = ()) -> Path:
    """Write one row of three pictures for each exhibit, all of them image-shaped; classes: their names, or numbers."""
    low, high = _range(exhibits)
    factor = difference_factor(exhibits, high - low)
    size = (3 * 2.1, 2.35 * len(exhibits) + 0.5)
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(len(exhibits), 3, squeeze=False)
    for axes, exhibit in zip(grid, exhibits, strict=True):
        _draw_row(axes, exhibit, low, high, factor, classes)
    figure.suptitle(f"{title}, difference x {factor:g}", fontsize=10)
    return save(figure, path, dpi=120)


def difference_factor(exhibits: Sequence[Exhibit], width: float) -> float:
    """Return the largest of 1, 2, 5, 10, ... that keeps every scaled difference within half the width of the range."""
    return scale_of_difference([_difference(exhibit) for exhibit in exhibits], width)


def name_of(label: int, classes: Sequence[str]) -> str:
    """Return the name of a class, its number where it has none."""
    return classes[label] if label < len(classes) else str(label)


def _difference(exhibit: Exhibit) -> np.ndarray:
    example = exhibit.example
    return np.asarray(example.point, dtype=np.float64) - np.asarray(example.original, dtype=np.float64)


def _range(exhibits: Sequence[Exhibit]) -> tuple[float, float]:
    """Return (black, white): [0, 1] where all values lie in it, else their extremes."""
    values = np.stack([x for e in exhibits for x in (e.example.original, e.example.point)])
    low, high = float(values.min()), float(values.max())
    return (0.0, 1.0) if low >= 0 and high <= 1 else (low, max(high, low + 1e-12))


def _draw_row(
    axes: np.ndarray, exhibit: Exhibit, low: float, high: float, factor: float, classes: Sequence[str]
) -> None:
    example = exhibit.example
    middle = (low + high) / 2
    values = (example.original, example.point, middle + factor * _difference(exhibit))
    captions = (
        f"{name_of(example.label, classes)} ({exhibit.confidence_before:.1%})",
        f"{name_of(example.prediction, classes)} ({exhibit.confidence_after:.1%})",
        f"distance {example.distance:.3g}",
    )
    for place, name, x, caption in zip(axes, COLUMNS, values, captions, strict=True):
        picture = as_picture(x)
        assert picture is not None
        scaled = np.clip((picture - low) / (high - low), 0, 1)
        place.imshow(scaled, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        place.set_title(f"{name}: {caption}", fontsize=7)
        place.set_axis_off()
