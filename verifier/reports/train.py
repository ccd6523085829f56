"""The result of `train`: the file, and its best epoch."""

from collections.abc import Iterator

from rich.console import RenderableType

from verifier.commands.train import TrainResult


def shown(result: TrainResult) -> Iterator[RenderableType]:
    """Yield what a terminal shows."""
    best = result.history.best_epoch
    yield f"{result.out}: best epoch {best + 1}, validation score {result.history.scores[best]:.2%}"
