"""What `export` returned: the table itself, or where it was written."""

from collections.abc import Iterator

from rich.console import RenderableType

from verifier.commands.export import ExportResult


def shown(result: ExportResult) -> Iterator[RenderableType]:
    """Yield what a terminal shows; the text as it is, without colours and line breaks of its own."""
    if result.text is None:
        yield f"{result.out}: {len(result.table.rows)} rows"
    else:
        yield result.text.removesuffix("\n")
