"""A batch that the memory of a device does not hold, worked on in parts.

Inputs of a batch do not depend on each other, so that what comes of parts is what comes of batches of their size. A
part that does not fit is halved, as often as it takes; one input that does not fit alone is its caller's business.
Nothing is remembered from one batch to the next: another may be smaller. On a processor torch raises no such error.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import TypeVar

import torch

Part = TypeVar("Part")
# The reason of what stays open for it.
OUT_OF_MEMORY = "out of memory on the device, with this input alone"


def why_stopped(reason: str | None, limit: str | None) -> str | None:
    """Return why an input was not asked about as far as it can be, so that the same command does; None if it was.

    reason: why it is open. limit: of time or memory that ended the work, if one did.
    """
    return OUT_OF_MEMORY if reason == OUT_OF_MEMORY else limit


def in_parts(
    work: Callable[[slice], Part], count: int, size: int, alone: Callable[[int], Part] | None = None
) -> list[Part]:
    """Return what work returns of all parts of so many inputs, in order.

    work: called with the places of a part; where it raises torch.OutOfMemoryError it has done nothing that is seen.
    size: of the first part; from a part that does not fit on they are half as large, with a warning. alone: called with
    the place of one input that does not fit, in place of work; None: the error is raised.
    """
    done: list[Part] = []
    start = 0
    while start < count:
        stop = min(start + size, count)
        try:
            done.append(work(slice(start, stop)))
            start = stop
            continue
        except torch.OutOfMemoryError:
            if stop - start == 1 and alone is None:
                raise
        # Not in the handler, whose traceback still holds what filled the memory.
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if stop - start == 1:
            assert alone is not None
            done.append(alone(start))
            start = stop
            continue
        size = (stop - start + 1) // 2
        warnings.warn(
            f"the device's memory is too small for {stop - start} at a time, going on with {size}", stacklevel=2
        )
    return done
