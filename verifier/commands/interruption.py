"""Ctrl-C as a wish that work ends soon with what it knows; a second one ends it at once."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType


@contextlib.contextmanager
def interruption(politely: bool) -> Iterator[threading.Event]:
    """Yield an event that the first interruption sets, in place of KeyboardInterrupt, if `politely`.

    Elsewhere than in the main thread, or where somebody else handles interruptions, nothing changes.
    """
    stopped = threading.Event()
    ours = threading.current_thread() is threading.main_thread()
    if not politely or not ours or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield stopped
        return

    def wish(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        stopped.set()

    signal.signal(signal.SIGINT, wish)
    try:
        yield stopped
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
