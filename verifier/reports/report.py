"""Where the page of `report` is, in a line."""

from collections.abc import Iterator

from rich.console import RenderableType

from verifier.commands.report import ReportResult


def shown(result: ReportResult) -> Iterator[RenderableType]:
    """Yield what a terminal shows."""
    runs = "one run" if len(result.runs) == 1 else f"{len(result.runs)} runs"
    yield f"{result.out}: {runs}, {result.inputs} inputs, {result.bytes:,} bytes in {result.seconds:.1f} s"
