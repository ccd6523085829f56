"""What a model holds, op by op; and the methods, attacks, and views of ops that there are."""

from collections.abc import Iterator, Sequence

from rich.console import RenderableType
from rich.table import Table

from encoders.formats.errors import Problem
from encoders.network import INPUT, Network
from encoders.ops import OPS, VIEWS
from verifier.commands.show import ShowResult


def shown(result: ShowResult) -> Iterator[RenderableType]:
    """Yield what a terminal shows."""
    network = result.network
    if result.unsupported:
        yield problem_table(result.unsupported)
    elif result.supports and network is not None:
        yield f"{network.source}: every node is supported ({len(network.nodes)} ops)"
    elif network is not None:
        yield network_table(network)
        yield f"{network.parameter_count:,} weights, input {network.dtype}, digest {network.digest}"
        if result.classifier is not None and result.classifier.note:
            yield f"classes: {result.classifier.note}"
        yield from (f"{key}: {value}" for key, value in result.metadata.items())
    if result.methods:
        yield method_table(network if result.classifier is None else result.classifier.network)
    if result.attacks:
        yield attack_table()


def network_table(network: Network) -> Table:
    """Return one row for each node: op, inputs, output shape, weights, views."""
    rows = Table(title=f"{network.source}", title_justify="left")
    for name in ("node", "op", "inputs", "shape", "weights", "views"):
        rows.add_column(name, justify="right" if name == "weights" else "left")
    rows.add_row(INPUT, "", "", _shape(network.input_shape), "", "")
    for node in network.nodes:
        weights = sum(value.numel() for value in node.op.parameters().values())
        rows.add_row(
            node.name, node.op.kind, ", ".join(node.inputs), _shape(network.shapes[node.name]),
            f"{weights:,}" if weights else "", ", ".join(node.op.views()),
        )  # fmt: skip
    return rows


def problem_table(problems: Sequence[Problem]) -> Table:
    """Return one row for each node that is not supported: what is wrong with it, and what to do about it."""
    rows = Table(title=f"{len(problems)} nodes are not supported", title_justify="left")
    for name in ("node", "operator", "what is wrong", "what to do"):
        rows.add_column(name)
    for problem in problems:
        rows.add_row(problem.node, problem.operator, problem.reason, problem.remedy)
    return rows


def method_table(network: Network | None) -> Table:
    """Return one row for each method; with a network also why a method does not take it."""
    from verifier.methods import DESCRIPTIONS, METHODS

    rows = Table(title="methods (certify --method, robustness --method, compare --method)", title_justify="left")
    for name in ("method", "proves", "finds", "norms", "what it is", *(["this model"] if network else [])):
        rows.add_column(name)
    for name, method in METHODS.items():
        proves = "" if not method.proves else "trusted" if method.strength == "trusted" else "yes"
        taken = [] if network is None else [method.refusal(network) or "yes"]
        finds = "yes" if method.finds else ""
        rows.add_row(name, proves, finds, " ".join(method.norms), DESCRIPTIONS[name], *taken)
    return rows


def attack_table() -> Table:
    """Return one row for each attack."""
    from verifier.attacks import ATTACKS, DESCRIPTIONS

    rows = Table(title="attacks (attack --attack, robustness --estimator)", title_justify="left")
    for name in ("attack", "norms", "minimises", "what it is"):
        rows.add_column(name)
    for name, attack in ATTACKS.items():
        rows.add_row(name, " ".join(attack.norms), "distance" if attack.minimal else "", DESCRIPTIONS[name])
    return rows


def view_table() -> str:
    """Return the documentation's table of ops and views, in Markdown."""
    lines = ["| op | " + " | ".join(VIEWS) + " |", "|" + " --- |" * (len(VIEWS) + 1)]
    for name, op in OPS.items():
        lines.append(f"| {name} | " + " | ".join("yes" if view in op.views() else "" for view in VIEWS) + " |")
    return "\n".join(lines)


def _shape(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape)) or "scalar"


if __name__ == "__main__":
    print(view_table())
