"""Standard output for results alone: what libraries print, also native ones, goes to standard error.

A library may print a banner (HiGHS 1.16 does when it is first used) by Python's `print`, by C's stdio or by file
descriptor 1 itself, in this process or in one that it starts. So descriptor 1 is turned to standard error while a
command runs, and results are written to a duplicate of what it was.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from collections.abc import Iterator
from typing import TextIO

STDOUT, STDERR = 1, 2


@contextlib.contextmanager
def results_stream(restore: bool = True) -> Iterator[TextIO]:
    """Yield the stream of standard output, which nothing else reaches in the meantime.

    restore: turn descriptor 1 back at the end. A program that ends then does not, as libraries may print even when they
    are unloaded. Raises OSError where the results cannot be written: a closed pipe, a full disk. A standard output that
    is closed takes results without a word.
    """
    before = sys.stdout
    _open_closed_descriptors()
    with contextlib.ExitStack() as stack:
        stream = _results(before, stack)
        with diverted_stdout(restore), contextlib.redirect_stdout(_standard_error(stack)):
            yield stream
        # Before the stack closes it: an error of the last write belongs to the caller.
        stream.flush()


@contextlib.contextmanager
def diverted_stdout(restore: bool = True, discard: bool = False) -> Iterator[None]:
    """Turn descriptor 1 to standard error for a while, or to nowhere, and what C's stdio holds with it."""
    _open_closed_descriptors()
    saved = os.dup(STDOUT)
    _flush(sys.stdout)
    target = os.open(os.devnull, os.O_WRONLY) if discard else STDERR
    os.dup2(target, STDOUT)
    if discard:
        os.close(target)
    try:
        yield
    finally:
        _flush(sys.stdout)
        if restore:
            os.dup2(saved, STDOUT)
        os.close(saved)


def _results(before: TextIO | None, stack: contextlib.ExitStack) -> TextIO:
    """Return the stream for results: a new one on a duplicate of descriptor 1 if that is where they would go."""
    if before is None:
        return stack.enter_context(open(os.devnull, "w"))  # noqa: PTH123 a device, by its name
    try:
        is_descriptor = before.fileno() == STDOUT
    except (OSError, ValueError, AttributeError):
        # A test, a notebook or a caller has put another object there.
        is_descriptor = False
    if not is_descriptor:
        return before
    # A duplicate that started programs do not inherit.
    stream = os.fdopen(os.dup(STDOUT), "w", encoding=before.encoding, errors=before.errors)
    # What could not be written has been reported; closing would try again, and fail again.
    stack.callback(_close, stream)
    return stream


def _standard_error(stack: contextlib.ExitStack) -> TextIO:
    if sys.stderr is not None:
        return sys.stderr
    return stack.enter_context(open(os.devnull, "w"))  # noqa: PTH123 a device, by its name


def _open_closed_descriptors() -> None:
    """Open the device for nothing in place of standard descriptors that are closed.

    Else the next file that is opened becomes standard output, and takes what libraries print.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= STDERR:
        pass
    os.close(descriptor)


def _flush(stream: TextIO | None) -> None:
    """Send what Python and C's stdio hold back to where descriptor 1 points now; errors are not results' errors."""
    with contextlib.suppress(OSError, ValueError):
        if stream is not None:
            stream.flush()
    with contextlib.suppress(OSError, AttributeError):
        library = ctypes.CDLL("ucrtbase" if os.name == "nt" else None)
        library.fflush(None)


def _close(stream: TextIO) -> None:
    with contextlib.suppress(OSError):
        stream.close()
