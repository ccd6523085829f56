"""The picture of `attack_defence.py`: the matrix in shades of one hue, each number printed, hatched where none is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.patches import Rectangle

from verifier.reports.figure import new_axes, save

# From here on text is white: contrast 4.5 and more on either side of it.
DARK = 0.55


def draw(table: Mapping[str, Mapping[str, float | None]], columns: Sequence[str], words: str, path: Path) -> Path:
    """Write shares by row and column as PNG; None: nothing to measure. words: what the title says."""
    from matplotlib import colormaps

    shades = colormaps["Blues"]
    figure, axes = new_axes(1.6 + 0.72 * len(columns), 1.3 + 0.42 * len(table))
    places = {name: number + 0.25 * (name in ("strongest", "certified")) + 0.25 * (name == "certified")
              + 0.25 * (number > 0) for number, name in enumerate(columns)}  # fmt: skip
    for height, cells in enumerate(table.values()):
        for column, x in places.items():
            share = cells.get(column)
            hatch = "////" if share is None else None
            face = "white" if share is None else shades(0.05 + 0.85 * share)
            axes.add_patch(
                Rectangle((x, height), 0.94, 0.9, facecolor=face, edgecolor="0.6", linewidth=0.5, hatch=hatch)
            )
            if share is not None:
                colour = "white" if share > DARK else "black"
                axes.text(
                    x + 0.47, height + 0.45, f"{100 * share:.0f}", ha="center", va="center", color=colour, size=10
                )
    axes.set_xlim(-0.06, max(places.values()) + 1.0)
    axes.set_ylim(len(table), -0.06)
    axes.set_xticks([x + 0.47 for x in places.values()], places.keys(), rotation=30, ha="left", rotation_mode="anchor")
    axes.xaxis.tick_top()
    axes.set_yticks([height + 0.45 for height in range(len(table))], table.keys())
    axes.tick_params(length=0)
    for side in axes.spines.values():
        side.set_visible(False)
    axes.set_xlabel(words, size=9)
    return save(figure, path, dpi=130)
