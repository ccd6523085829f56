"""Tables for the terminal."""

from collections.abc import Sequence

from rich.table import Table

from encoders.network import INPUT, Network
from encoders.ops import VIEWS
from verifier.commands.attack import AttackResult
from verifier.commands.certify import CertifyResult
from verifier.commands.robustness import RobustnessResult

EXECUTION_ONLY = (
    "execution only: inputs, certified or open, with a point within epsilon that gets another class by the rounding of "
    "the model's execution alone"
)


def certification_table(result: CertifyResult) -> Table:
    """Return one row for each radius: counts over correctly classified inputs, and the accuracies they bound.

    Where solvers vouch for open inputs their number stands in brackets, and where the model's execution is wrong though
    real arithmetic is not a column says of how many inputs, each with what that means below.
    """
    title = f"{result.model}: {result.correct} of {result.inputs} inputs classified correctly"
    table = Table(title=title, title_justify="left", caption_justify="left")
    words = []
    if any(row.trusted for row in result.results):
        words.append("(n): n of the open ones are trusted, safe by the word of a solver alone, which certifies nothing")
    is_executed = any(row.execution_only for row in result.results)
    words += [EXECUTION_ONLY] if is_executed else []
    table.caption = "\n".join(words) or None
    executed = ["execution\nonly"] if is_executed else []
    names = ("epsilon", "certified", "falsified", "open", *executed, "certified\naccuracy (95 %)", "attack\naccuracy")
    for name in names:
        table.add_column(name, justify="right", no_wrap=name == "open")
    for row in result.results:
        low, high = row.certified_accuracy_ci95
        accuracy = f"{row.certified_accuracy:.1%} ({low:.1%} to {high:.1%})"
        still_open = f"{row.open} ({row.trusted})" if row.trusted else str(row.open)
        counts = [str(row.certified), str(row.falsified), still_open]
        counts += [str(row.execution_only)] if is_executed else []
        table.add_row(f"{row.epsilon:g}", *counts, accuracy, f"{row.attack_accuracy:.1%}")
    return table


def attack_table(result: AttackResult) -> Table:
    """Return one row for the attack: what withstood it, and how far the counterexamples are."""
    title = f"{result.model}: {result.correct} of {result.inputs} inputs classified correctly"
    table = Table(title=title, title_justify="left")
    request = result.request
    names = ("attack", "norm", "epsilon", "robust", "accuracy", "broken", "mean distance", "median")
    for name in names:
        table.add_column(name, justify="left" if name in ("attack", "norm") else "right", overflow="fold")
    found = str(result.confirmed) + (f" (+{result.execution_only} by rounding only)" if result.execution_only else "")
    distances = ("" if d is None else f"{d:.4g}" for d in (result.mean_distance, result.median_distance))
    accuracy = f"{result.robust / result.inputs:.1%}"
    name = request.name if request.target is None else f"{request.name}, target {request.target}"
    table.add_row(name, request.norm, f"{request.epsilon:g}", str(result.robust), accuracy, found, *distances)
    return table


def robustness_table(result: RobustnessResult) -> Table:
    """Return one row for the brackets, which hold the truth, and one for each estimator at its word."""
    title = f"{result.model}: {result.inputs} inputs, {result.correct} classified correctly, epsilon {result.epsilon:g}"
    table = Table(title=title, title_justify="left", caption_justify="left")
    if result.execution_only:
        table.caption = f"execution only: {result.execution_only} of {result.inputs}\n{EXECUTION_ONLY}"
    for name in ("", "frequency", "(95 %)", "severity", "unresolved", "median seconds"):
        table.add_column(name, justify="right" if name else "left", no_wrap=not name)
    phi, mu = result.frequency, result.severity
    interval = "" if phi.ci95 is None else f"{phi.ci95[0]:.2%} to {phi.ci95[1]:.2%}"
    size = mu.reason or f"{mu.lower:.4g} to {mu.upper:.4g}"
    table.add_row("truth", f"{phi.lower:.2%} to {phi.upper:.2%}", interval, size, f"{result.unresolved:.2%}", "")
    for name, row in result.estimators.items():
        size = "none found" if row.severity is None else f"{row.severity:.4g}"
        table.add_row(name, f"{row.frequency:.2%}", "", size, f"{row.unresolved:.2%}", f"{row.median_seconds:.3f}")
    return table


def network_table(network: Network) -> Table:
    """Return one row for each node: op, inputs, output shape, weights, views."""
    table = Table(title=f"{network.source}", title_justify="left")
    for name in ("node", "op", "inputs", "shape", "weights", "views"):
        table.add_column(name, justify="right" if name == "weights" else "left")
    table.add_row(INPUT, "", "", _shape(network.input_shape), "", "")
    for node in network.nodes:
        weights = sum(value.numel() for value in node.op.parameters().values())
        table.add_row(
            node.name, node.op.kind, ", ".join(node.inputs), _shape(network.shapes[node.name]),
            f"{weights:,}" if weights else "", ", ".join(node.op.views()),
        )  # fmt: skip
    return table


def view_table() -> str:
    """Return the README's table of ops and views, in Markdown."""
    from encoders.ops import OPS

    lines = ["| op | " + " | ".join(VIEWS) + " |", "|" + " --- |" * (len(VIEWS) + 1)]
    for name, op in OPS.items():
        lines.append(f"| {name} | " + " | ".join("yes" if view in op.views() else "" for view in VIEWS) + " |")
    return "\n".join(lines)


def _shape(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape)) or "scalar"


if __name__ == "__main__":
    print(view_table())
