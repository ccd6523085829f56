"""What `merge` did, in a line."""

from collections.abc import Iterator

from rich.console import RenderableType

from verifier.commands.merge import MergeResult


def shown(result: MergeResult) -> Iterator[RenderableType]:
    """Yield one line."""
    yield (
        f"{result.runs} runs of {result.command} merged: {result.inputs} inputs in {result.run}, "
        f"{result.seconds:.1f} s; `verifier check {result.run}` checks it"
    )
