"""Figures of results, written as PNG."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np

from verifier.verdict import Bracket

matplotlib.use("Agg")


def accuracy_figure(
    brackets: Sequence[Bracket], inputs: int, epsilons: Sequence[float], path: Path, title: str
) -> None:
    """Write certified and attack accuracy against the radius.

    Both are step functions of the brackets: at radius e, the share with lower >= e and the share without
    upper <= e. True robust accuracy lies between them at every radius, not only at the requested ones, which are
    marked.
    """
    import matplotlib.pyplot as plt

    ends = [end for b in brackets for end in (b.lower, b.upper) if np.isfinite(end) and end > 0]
    # Beyond the last requested radius nothing was attacked, so the figure ends shortly after it.
    limit = 1.25 * max(epsilons) if max(epsilons) > 0 else max(ends, default=1.0)
    radii = np.unique(np.array([0.0, *(e for e in ends if e <= limit), *epsilons, limit]))
    certified = [sum(b.lower >= r for b in brackets) / inputs for r in radii]
    attacked = [sum(b.upper > r for b in brackets) / inputs for r in radii]
    figure, axes = plt.subplots(figsize=(7, 4.2), layout="constrained")
    axes.fill_between(radii, certified, attacked, alpha=0.15, color="tab:blue", step="pre", label="open")
    axes.step(radii, attacked, where="post", color="tab:red", label="attack accuracy (upper bound)")
    axes.step(radii, certified, where="pre", color="tab:blue", label="certified accuracy (lower bound)")
    for epsilon in epsilons:
        axes.axvline(epsilon, color="gray", linewidth=0.6, linestyle=":")
    axes.set(xlabel="radius epsilon (inf-norm)", ylabel=f"share of {inputs} inputs", ylim=(0, 1), title=title)
    axes.set_xlim(0, limit)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=150)
    plt.close(figure)
