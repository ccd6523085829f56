"""The result of `certify`: counts at each radius, and accuracy against the radius."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from rich.console import RenderableType
from rich.table import Table

from verifier.commands.certify import CertifyResult
from verifier.reports.csv_file import write_csv
from verifier.reports.figure import BLUE, ORANGE, new_axes, save
from verifier.reports.footnotes import EXECUTION_ONLY, TRUSTED, counted, spent_in_words
from verifier.summaries.certify import CertificateCounts


def shown(result: CertifyResult) -> Iterator[RenderableType]:
    """Yield what a terminal shows."""
    yield table(result)
    if result.spent:
        yield spent_in_words(result.spent)
    if result.certificates is not None:
        yield certificates_in_words(result.certificates)


def certificates_in_words(counts: CertificateCounts) -> str:
    """Return in a line of how many proofs there are certificates, and why the others have none."""
    without = "".join(f"; {count} without: {reason}" for reason, count in counts.without.items())
    return f"certificates: {counts.kept} of {counted(counts.proofs, 'proof')}{without}"


def write(result: CertifyResult, folder: Path) -> list[Path]:
    """Write accuracy.csv, and accuracy.png, which is drawn from the same numbers."""
    rows = list(zip(*accuracy_steps(result), strict=True))
    return [
        write_csv(folder / "accuracy.csv", ["epsilon", "certified_accuracy", "attack_accuracy"], rows),
        accuracy_figure(result, folder / "accuracy.png"),
    ]


def table(result: CertifyResult) -> Table:
    """Return one row for each radius: counts over correctly classified inputs, and the accuracies they bound.

    Where solvers vouch for open inputs their number stands in brackets, and where the model's execution is wrong though
    real arithmetic is not a column says of how many inputs, each with what that means below.
    """
    title = f"{result.model}: {result.correct} of {result.inputs} inputs classified correctly"
    if result.delta is not None:
        title = f"{result.model}: {result.inputs} inputs; certified: every output changes by less than {result.delta:g}"
    if result.arithmetic is not None:
        title += f"; certified: in every execution in {result.arithmetic}, whatever the order of its sums"
    rows = Table(title=title, title_justify="left", caption_justify="left")
    footnotes = []
    if any(row.trusted for row in result.results):
        footnotes.append(f"(n): n of the open ones are trusted, {TRUSTED}")
    is_executed = any(row.execution_only for row in result.results)
    footnotes += [EXECUTION_ONLY] if is_executed else []
    if result.share_of_draws is not None:
        footnotes.append(
            f"a draw lies within {result.draws_within:g} deviations with probability {result.share_of_draws:.6g}"
        )
    rows.caption = "\n".join(footnotes) or None
    executed = ["execution\nonly"] if is_executed else []
    names = ("epsilon", "certified", "falsified", "open", *executed, "certified\naccuracy (95 %)", "attack\naccuracy")
    for name in names:
        rows.add_column(name, justify="right", no_wrap=name == "open")
    for row in result.results:
        low, high = row.certified_accuracy_ci95
        accuracy = f"{row.certified_accuracy:.1%} ({low:.1%} to {high:.1%})"
        still_open = f"{row.open} ({row.trusted})" if row.trusted else str(row.open)
        counts = [str(row.certified), str(row.falsified), still_open]
        counts += [str(row.execution_only)] if is_executed else []
        rows.add_row(f"{row.epsilon:g}", *counts, accuracy, f"{row.attack_accuracy:.1%}")
    return rows


def accuracy_steps(result: CertifyResult) -> tuple[list[float], list[float], list[float]]:
    """Return (radii, certified accuracies, attack accuracies) wherever one of them changes.

    Both are step functions of the brackets: at radius e, the share with lower >= e and the share without
    upper <= e.
    """
    brackets, epsilons = list(result.brackets.values()), [row.epsilon for row in result.results]
    ends = [end for b in brackets for end in (b.lower, b.upper) if np.isfinite(end) and end > 0]
    # Beyond the last requested radius nothing was attacked, so the figure ends shortly after it.
    limit = 1.25 * max(epsilons) if max(epsilons) > 0 else max(ends, default=1.0)
    radii = sorted({0.0, *(e for e in ends if e <= limit), *epsilons, limit})
    lower, upper = (np.sort([getattr(bracket, end) for bracket in brackets]) for end in ("lower", "upper"))
    certified = (len(lower) - np.searchsorted(lower, radii, "left")) / result.inputs
    attacked = (len(upper) - np.searchsorted(upper, radii, "right")) / result.inputs
    return radii, certified.tolist(), attacked.tolist()


def accuracy_figure(result: CertifyResult, path: Path) -> Path:
    """Write certified and attack accuracy against the radius.

    True robust accuracy lies between them at every radius, not only at the requested ones, which are marked.
    """
    radii, certified, attacked = accuracy_steps(result)
    figure, axes = new_axes(7, 4.2)
    # Between two radii what is certified is what it is at the larger, what withstands what it is at the smaller.
    ahead = [*certified[1:], certified[-1]]
    axes.fill_between(radii, ahead, attacked, alpha=0.15, color="gray", step="post", label="open")
    axes.step(radii, attacked, where="post", color=ORANGE, linestyle="--", label="attack accuracy (upper bound)")
    axes.step(radii, certified, where="pre", color=BLUE, label="certified accuracy (lower bound)")
    for epsilon in (row.epsilon for row in result.results):
        axes.axvline(epsilon, color="gray", linewidth=0.6, linestyle=":")
    axes.set(xlabel=f"radius epsilon ({result.norm}-norm)", ylabel=f"share of {result.inputs} inputs", ylim=(0, 1))
    axes.set(title=result.model, xlim=(0, radii[-1]))
    axes.legend(frameon=False)
    return save(figure, path)
