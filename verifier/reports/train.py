"""The result of `train`: the file, and its best epoch."""

from collections.abc import Iterator

from rich.console import RenderableType

from verifier.commands.train import TrainResult


def shown(result: TrainResult) -> Iterator[RenderableType]:
    """Yield what a terminal shows."""
    history, best = result.history, result.history.best_epoch
    if history.diverged is not None:
        yield (
            f"training diverged in epoch {history.diverged}: a loss or a weight was not finite; the best epoch before "
            "is kept (lower the learning rate)"
        )
    for taken in result.metadata.get("examples", ()):
        left_out = [
            f"{taken[name]} left out, {words}"
            for name, words in (("far", "farther than asked for"), ("unrounded", "safe once rounded"))
            if taken[name]
        ]
        yield "; ".join([f"{taken['run']}: {taken['examples']} examples", *left_out])
    yield f"{result.out}: best epoch {best + 1}, validation score {history.scores[best]:.2%}"
