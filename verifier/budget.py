"""Limits of time and memory, and wishes to stop. A budget that has run out leaves answers open; it never makes one."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

# Seconds between two reports of how work stands.
REPORTS = 1.0
# Seconds between two looks at a budget from outside, and that it may be exhausted before work ends by force.
LOOKS, GRACE = 0.25, 4.0
# Bytes a second by which no process grows: its memory is not looked at again before it could have reached its limit,
# for a look takes as long as a step of a small attack. Seconds between two looks at most.
GROWTH, BETWEEN_LOOKS = 16 * 2**30, 0.25
# Of the memory that the process may have, what it takes by default before it stops: the rest is for others.
MEMORY_SHARE = 0.75


class Watch:
    """What ends work beside its time, and who hears how it stands.

    memory: bytes that the process may hold. stopped: set once somebody wants an end. told: called with a few words
    about work that goes on.
    """

    def __init__(
        self,
        memory: float = math.inf,
        stopped: threading.Event | None = None,
        told: Callable[[str], None] | None = None,
    ) -> None:
        self.memory, self.stopped, self.told = memory, stopped or threading.Event(), told
        self._last = -math.inf
        self._next_look = -math.inf

    @property
    def why(self) -> str | None:
        """Why work has to end; None where it may go on."""
        if self.stopped.is_set():
            return "interrupted"
        return f"memory limit of {self.memory / 2**30:.3g} GiB" if self._is_full else None

    @property
    def _is_full(self) -> bool:
        """Whether the process holds more than it may; looked at again as soon as that can have changed."""
        if self.memory == math.inf or (now := time.monotonic()) < self._next_look:
            return False
        left = self.memory - resident_bytes()
        # Above the limit every look counts: memory may be given back.
        self._next_look = now + min(BETWEEN_LOOKS, left / GROWTH)
        return left < 0

    def tell(self, words: Callable[[], str]) -> None:
        """Report how work stands, now and then; words: makes the report."""
        if self.told is not None and time.monotonic() - self._last >= REPORTS:
            self._last = time.monotonic()
            self.told(words())


@dataclass(frozen=True)
class Budget:
    """Wall-clock seconds that a piece of work may take, counted from the making of this object; watch: other ends."""

    seconds: float = math.inf
    started: float = field(default_factory=time.monotonic)
    watch: Watch = field(default_factory=Watch, compare=False)

    def __post_init__(self) -> None:
        if math.isnan(self.seconds) or self.seconds < 0:
            raise ValueError(f"a time limit must be a number of seconds that is not negative, got {self.seconds}")

    @property
    def exhausted(self) -> bool:
        """Whether the work has to end; at once for a limit of zero."""
        return self.why is not None

    @property
    def timed_out(self) -> bool:
        """Whether the time is up, whatever else."""
        return self.elapsed >= self.seconds

    @property
    def why(self) -> str | None:
        """Why the work has to end; None where it may go on."""
        return "time limit" if self.timed_out else self.watch.why

    @property
    def elapsed(self) -> float:
        """The seconds since the beginning."""
        return time.monotonic() - self.started

    @property
    def remaining(self) -> float:
        """The seconds that are left; not negative."""
        return max(0.0, self.seconds - self.elapsed)

    def share(self, parts: float, most: float = math.inf) -> Budget:
        """Return one of so many equal parts of what is left, of at most so many seconds."""
        return Budget(min(self.remaining / parts, most), watch=self.watch)


class Overrun(BaseException):
    """Work did not look at its budget for too long. No method's `except Exception` takes it for something else."""


@contextlib.contextmanager
def guarded(budget: Budget) -> Iterator[None]:
    """Raise Overrun in the work inside once its budget has been exhausted for GRACE seconds.

    What looks at the budget ends before, with what it knows. It comes between two instructions of Python, so that one
    call of a library may still take longer. In the main thread alone, and where nobody else uses the alarm.
    """
    alarm = getattr(signal, "SIGALRM", None)
    ours = threading.current_thread() is threading.main_thread()
    if alarm is None or not ours or signal.getsignal(alarm) is not signal.SIG_DFL:
        yield
        return
    since: list[float] = []

    def look(number: int, frame: FrameType | None) -> None:
        if budget.exhausted:
            since.append(time.monotonic())
            if since[-1] - since[0] >= GRACE:
                signal.setitimer(signal.ITIMER_REAL, 0.0)
                raise Overrun(budget.why)
        else:
            since.clear()

    signal.signal(alarm, look)
    signal.setitimer(signal.ITIMER_REAL, LOOKS, LOOKS)
    try:
        yield
    finally:
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.0)
        finally:
            # Also where an interruption came in between: an alarm that is left would end the process.
            signal.setitimer(signal.ITIMER_REAL, 0.0)
            signal.signal(alarm, signal.SIG_DFL)


def resident_bytes() -> int:
    """Return the memory that the process holds; where the system does not say, the most it has held, or 0."""
    try:
        # Asked hundreds of times a second: a descriptor costs a fifth of what a path and a decoder do.
        opened = os.open("/proc/self/statm", os.O_RDONLY)
        try:
            pages = int(os.read(opened, 256).split()[1])
        finally:
            os.close(opened)
        return pages * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        try:
            import resource
        except ImportError:
            return 0
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def memory_to_use() -> float:
    """Return the bytes that a process holds at most if nobody says: a share of what it may have; infinite if unknown.

    What it may have is the memory of the machine, or of its group of processes where that has less.
    """
    known = []
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            known.append(float(Path(path).read_text()))
        except (OSError, ValueError):
            # No such group, or "max".
            continue
    with contextlib.suppress(OSError, ValueError, AttributeError):
        known.append(float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")))
    return MEMORY_SHARE * min(known, default=math.inf)
