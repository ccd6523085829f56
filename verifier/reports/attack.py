"""The result of `attack`: a row, and the first counterexamples as a picture."""

from collections.abc import Iterator
from pathlib import Path

from rich.console import RenderableType
from rich.table import Table

from verifier.commands.attack import AttackResult
from verifier.commands.attack_votes import VoteCounts
from verifier.reports.csv_file import write_csv
from verifier.reports.exhibits import as_picture, exhibit_grid


def shown(result: AttackResult) -> Iterator[RenderableType]:
    """Yield what a terminal shows."""
    yield table(result)
    if result.votes is not None:
        yield votes_in_words(result.votes)


def write(result: AttackResult, folder: Path) -> list[Path]:
    """Write adversarial.png, one row of three pictures for each exhibit, and adversarial.csv, a line for each.

    The examples lie there already. Nothing is written, and older files removed, where no counterexample was found or
    inputs are not image-shaped (see `as_picture`).
    """
    path = folder / "adversarial.png"
    examples = [] if result.adversarial is None else [result.adversarial]
    exhibits = [e for e in result.gallery if as_picture(e.example.original) is not None]
    if not exhibits:
        path.unlink(missing_ok=True)
        path.with_suffix(".csv").unlink(missing_ok=True)
        return examples
    request = result.request
    names = ["index", "label", "prediction", "distance", "confidence_before", "confidence_after"]
    shown = [(e, e.example) for e in exhibits]
    rows = [(x.index, x.label, x.prediction, x.distance, e.confidence_before, e.confidence_after) for e, x in shown]
    examples.append(write_csv(path.with_suffix(".csv"), names, rows))
    return [*examples, exhibit_grid(exhibits, f"{result.model}, {request.name}, {request.norm}-norm", path)]


def votes_in_words(votes: VoteCounts) -> str:
    """Return in a line what the votes say at the counterexamples, and at the inputs where none was found."""
    return (
        f"votes of {votes.draws} draws behind counterexamples of the mean, else at the inputs: {votes.kept} kept, "
        f"{votes.broken} broken, {votes.open} open, each at 95 %; a single draw is right {votes.single:.1%} of the time"
    )


def table(result: AttackResult) -> Table:
    """Return one row for the attack: what withstood it, and how far the counterexamples are."""
    title = f"{result.model}: {result.correct} of {result.inputs} inputs classified correctly"
    rows = Table(title=title, title_justify="left")
    request = result.request
    names = ("attack", "norm", "epsilon", "robust", "accuracy", "broken", "mean distance", "median")
    for name in names:
        rows.add_column(name, justify="left" if name in ("attack", "norm") else "right", overflow="fold")
    broken = str(result.confirmed) + (f" (+{result.execution_only} by rounding only)" if result.execution_only else "")
    distances = ("" if d is None else f"{d:.4g}" for d in (result.mean_distance, result.median_distance))
    accuracy = f"{result.robust / result.inputs:.1%}"
    settings = [f"{key} {value}" for key, value in request.settings.items()]
    target = [] if request.target is None else [f"target {request.target}"]
    surrogate = [] if request.surrogate is None else [f"on surrogate {request.surrogate[:12]}"]
    name = ", ".join([request.name, *settings, *target, *surrogate])
    rows.add_row(name, request.norm, f"{request.epsilon:g}", str(result.robust), accuracy, broken, *distances)
    return rows
