"""Progress of long work on standard error: a bar in a terminal, a line now and then elsewhere."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from typing import Any

# Seconds between two lines where there is no terminal.
LINE_INTERVAL = 10.0


@contextlib.contextmanager
def progress_on_stderr(what: str, items: str = "inputs") -> Iterator[_Lines | _Bar]:
    """Yield a function that takes (done, total) and shows them with an estimate of the time left.

    Its method `stands` takes a few words about work that goes on.
    """
    if not sys.stderr.isatty():
        yield _Lines(what, items)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        yield _Bar(bar, what)


class _Bar:
    """A bar with a description, which says how work stands."""

    def __init__(self, bar: Any, what: str) -> None:
        self.bar, self.what = bar, what
        self.task = bar.add_task(what, total=None)

    def __call__(self, done: int, total: int) -> None:
        self.bar.update(self.task, completed=done, total=total, description=self.what)

    def stands(self, words: str) -> None:
        """Show how work stands."""
        self.bar.update(self.task, description=f"{self.what}: {words}")


class _Lines:
    """Prints at most one line in LINE_INTERVAL seconds, so that logs stay short."""

    def __init__(self, what: str, items: str) -> None:
        self.what, self.items = what, items
        self.started = self.last = time.monotonic()
        self.done = 0

    def __call__(self, done: int, total: int) -> None:
        self.done = done
        if self._is_due():
            left = (time.monotonic() - self.started) / done * (total - done)
            self._print(f"{done} of {total} {self.items}, about {left:.0f} s left")

    def stands(self, words: str) -> None:
        """Print how work stands."""
        if self._is_due():
            self._print(f"{self.done} {self.items} done; {words}")

    def _is_due(self) -> bool:
        now = time.monotonic()
        if now - self.last < LINE_INTERVAL:
            return False
        self.last = now
        return True

    def _print(self, words: str) -> None:
        print(f"{self.what}: {words}", file=sys.stderr, flush=True)
