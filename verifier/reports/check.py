"""What `check` found, in lines; inputs that are refused for the same reason share one."""

from collections.abc import Iterator

from rich.console import RenderableType

from verifier.commands.check import WHOLE, CheckResult
from verifier.reports.footnotes import counted

# Inputs that a line names.
NAMED = 8


def shown(result: CheckResult) -> Iterator[RenderableType]:
    """Yield a line for each thing that was counted."""
    # Not "certified": an input that is falsified at a radius is proved at smaller ones, and counts here, too.
    yield f"{counted(result.certified, 'proof')}: {result.checked} by certificates that hold ({_leaves(result.leaves)})"
    if result.exact:
        yield f"{result.exact} of them hold in exact arithmetic, too ({_leaves(result.exact_leaves)})"
    if result.given_exactly == 0:
        yield (
            "nothing evaluated in exact arithmetic: the run has no certificate that holds. Its witnesses are replayed "
            "in the model, and their classes compared in outward-rounded or rational numbers"
        )
    for reason, count in result.undecided.items():
        yield f"{count} not decided in exact arithmetic: {reason}"
    for reason, count in result.without.items():
        yield f"{count} without a certificate: {reason}"
    if result.trusted:
        yield f"{result.trusted} trusted: safe by the word of a solver alone, which nothing can check"
    replayed = f"{counted(result.witnesses, 'witness')} replayed"
    yield f"{replayed}; {result.seconds:.1f} s for {counted(result.inputs, 'input')}"


def _leaves(count: int) -> str:
    return f"{count} {'leaf' if count == 1 else 'leaves'}"


def problems(result: CheckResult) -> Iterator[str]:
    """Yield one line for each reason of a refusal, in the order of the first input that is refused for it."""
    inputs: dict[str, list[int]] = {}
    for index, reason in result.refused:
        inputs.setdefault(reason, []).append(index)
    for reason, indices in inputs.items():
        named = ", ".join(map(str, indices[:NAMED])) + (", ..." if len(indices) > NAMED else "")
        some = f"input {named}" if len(indices) == 1 else f"{len(indices)} inputs ({named})"
        yield f"refused: {'the run' if indices[0] == WHOLE else some}: {reason}"
