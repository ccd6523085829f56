"""The result of `verify`: a row for each property, and the witness of a single one."""

from collections.abc import Iterator
from pathlib import Path

from rich.console import RenderableType
from rich.table import Table

from verifier.commands.verify_result import VerifyResult
from verifier.reports.footnotes import spent_in_words
from verifier.summaries.spending import summed

# Coordinates of a witness that are shown; JSON and the results file have all.
SHOWN = 16


def write(result: VerifyResult, folder: Path) -> list[Path]:
    """Write nothing more than the run keeps."""
    return []


def shown(result: VerifyResult) -> Iterator[RenderableType]:
    """Yield what a terminal shows."""
    rows = Table(title=result.model, title_justify="left")
    for name in ("property", "verdict", "seconds", "by", "remark"):
        rows.add_column(name, justify="right" if name == "seconds" else "left", overflow="fold")
    for verified in result.properties:
        by = verified.method + (f" ({verified.strength})" if verified.strength is not None and verified.method else "")
        remark = verified.reason or (f"{verified.boxes} boxes" if verified.boxes > 1 else "")
        rows.add_row(verified.property, verified.verdict, f"{verified.seconds:.2f}", by, remark)
    yield rows
    if spent := summed(verified.spent for verified in result.properties):
        yield spent_in_words(spent)
    witnesses = [verified.to_text() for verified in result.properties if verified.witness is not None]
    if len(result.properties) == 1 and witnesses and witnesses[0].count("\n") <= SHOWN:
        yield witnesses[0].rstrip()
