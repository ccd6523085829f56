"""How long a certificate may take: where that is over it is not decided, which says nothing of it."""

from __future__ import annotations

import math
import time

from verifier_check.refusals import Undecided


class TimeLimit:
    """Seconds by the clock from now on."""

    def __init__(self, seconds: float = math.inf) -> None:
        self.seconds, self.ends = seconds, time.monotonic() + seconds

    def check(self) -> None:
        """Raise Undecided once the time is over; every bound, and every node of a network, asks."""
        if time.monotonic() > self.ends:
            raise Undecided(f"it takes more than {self.seconds:g} s")


UNLIMITED = TimeLimit()
