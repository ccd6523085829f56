"""Numbers of inputs with a radius of at most epsilon, for every estimator (Bastani et al. 2016, Figure 3)."""

import csv
import math
from pathlib import Path

import matplotlib
import numpy as np

from verifier.commands.robustness import RobustnessResult

matplotlib.use("Agg")

# Radii of the table of curves, from 0 to epsilon.
GRID = 100


def write_radii(result: RobustnessResult, path: Path) -> None:
    """Write one line for each input: index, both ends of the bracket, the radius of each estimator (empty: none)."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["index", "lower", "upper", *result.radii])
        for i, (index, bracket) in enumerate(zip(result.indices, result.brackets, strict=True)):
            values = (bracket.lower, bracket.upper, *(radii[i] for radii in result.radii.values()))
            writer.writerow([index, *("" if math.isinf(value) else repr(value) for value in values)])


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


def write_curves(result: RobustnessResult, path: Path) -> None:
    """Write the counts as CSV."""
    curves = curves_of(result)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(curves)
        writer.writerows(zip(*(values.tolist() for values in curves.values()), strict=True))


def curves_figure(result: RobustnessResult, path: Path) -> None:
    """Write the counts as a picture; the band between "at least" and "at most" holds the truth."""
    import matplotlib.pyplot as plt

    curves = curves_of(result)
    epsilons = curves.pop("epsilon")
    figure, axes = plt.subplots(figsize=(7, 4.2), layout="constrained")
    axes.fill_between(epsilons, curves.pop("at least"), curves.pop("at most"), alpha=0.12, color="gray", label="truth")
    for name, counts in curves.items():
        axes.plot(epsilons, counts, label=name)
    axes.set(xlabel="radius epsilon (inf-norm)", ylabel=f"of {result.inputs} inputs, radius <= epsilon")
    axes.set(title=Path(result.model).name, xlim=(0, result.epsilon or 1.0), ylim=(0, None))
    axes.legend(frameon=False)
    figure.savefig(path, dpi=150)
    plt.close(figure)
