"""Counterexamples as a picture: original, adversarial, and their difference, scaled by a factor that is stated."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from verifier.commands.adversarial_example import Exhibit
from verifier.reports.figure import save

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


def as_picture(x: np.ndarray) -> np.ndarray | None:
    """Return an input as an image `(height, width)` or `(height, width, 3)`; None if it has no such shape.

    Images are `(height, width)`, or 1 or 3 channels first. Vectors whose length is a square n^2 are shown as n x n
    in C order, those of length 3 n^2 as three channels.
    """
    values = np.asarray(x, dtype=np.float64)
    if values.ndim == 1:
        for channels in (1, 3):
            side = math.isqrt(len(values) // channels)
            if side > 1 and channels * side * side == len(values):
                values = values.reshape(channels, side, side)
                break
    if values.ndim == 3 and values.shape[0] in (1, 3):
        values = values[0] if values.shape[0] == 1 else values.transpose(1, 2, 0)
    elif values.ndim != 2:
        return None
    return values


def difference_factor(exhibits: Sequence[Exhibit], width: float) -> float:
    """Return the largest of 1, 2, 5, 10, ... that keeps every scaled difference within half the width of the range."""
    largest = max(float(np.abs(_difference(exhibit)).max()) for exhibit in exhibits)
    if largest == 0 or 0.5 * width / largest < 1:
        return 1.0
    wanted = 0.5 * width / largest
    power = 10.0 ** math.floor(math.log10(wanted))
    return max(step * power for step in (1.0, 2.0, 5.0) if step * power <= wanted * (1 + 1e-12))


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
