"""The result of `detect`: sentences about a detector."""

from collections.abc import Iterator

from rich.console import RenderableType

from verifier.commands.detect import DetectResult


def shown(result: DetectResult) -> Iterator[RenderableType]:
    """Yield what a terminal shows."""
    if result.action == "fit":
        yield (
            f"{result.detector}: fitted to {result.inputs} inputs; scores of {result.threshold:.4g} and above are "
            f"flagged, about {result.rate:.2%} of clean inputs"
        )
        return
    yield f"clean: {result.false_positives or 0.0:.2%} of {result.inputs} correctly classified inputs are flagged"
    if result.attacked is not None:
        ball = f"{result.epsilon:g} ({result.norm}-norm)"
        yield f"{result.attack} within {ball}: {result.attacked} inputs become another class"
    if result.detected is not None:
        yield f"of these {result.detected:.2%} are flagged, {result.corrected or 0.0:.2%} get their class back"
    if result.robust is not None:
        yield f"withstand or are flagged: {result.robust:.2%}"
