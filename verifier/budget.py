"""Time limits. A budget that has run out leaves answers open; it never turns into one."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Budget:
    """Wall-clock seconds that a piece of work may take, counted from the making of this object."""

    seconds: float = math.inf
    started: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        if math.isnan(self.seconds) or self.seconds < 0:
            raise ValueError(f"a time limit must be a number of seconds that is not negative, got {self.seconds}")

    @property
    def exhausted(self) -> bool:
        """Whether the time is up; at once for a limit of zero."""
        return time.monotonic() - self.started >= self.seconds

    @property
    def remaining(self) -> float:
        """The seconds that are left; not negative."""
        return max(0.0, self.seconds - (time.monotonic() - self.started))
