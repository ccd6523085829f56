"""Progress of long work on standard error: a bar in a terminal, a line now and then elsewhere."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

# Seconds between two lines where there is no terminal.
LINE_INTERVAL = 10.0


@contextlib.contextmanager
def progress_on_stderr(what: str, items: str = "inputs") -> Iterator[Callable[[int, int], None]]:
    """Yield a function that takes (done, total) and shows them with an estimate of the time left."""
    if not sys.stderr.isatty():
        yield _Lines(what, items)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


class _Lines:
    """Prints at most one line in LINE_INTERVAL seconds, so that logs stay short."""

    def __init__(self, what: str, items: str) -> None:
        self.what, self.items = what, items
        self.started = self.last = time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        if now - self.last < LINE_INTERVAL:
            return
        self.last = now
        left = (now - self.started) / done * (total - done)
        print(f"{self.what}: {done} of {total} {self.items}, about {left:.0f} s left", file=sys.stderr, flush=True)
