"""What a search over signs answers about a ball, and what it has spent."""

from __future__ import annotations

from dataclasses import dataclass

from verifier.certificates.certificate import Certificate
from verifier.verdict import Telling


@dataclass(frozen=True, eq=False)
class SplitAnswer:
    """certificate: the class wins on the whole ball. falsified: the attack succeeded. Neither: open, for the reason.

    subproblems: how many were bounded; programs: linear programs of those with all signs known; open_units: at the
    root; telling: how much the reason says.
    """

    certificate: Certificate | None
    falsified: bool
    reason: str
    subproblems: int
    programs: int
    open_units: int
    telling: Telling = Telling.LIMIT

    @property
    def proved(self) -> bool:
        """Whether the class strictly wins on the whole ball."""
        return self.certificate is not None


@dataclass
class Effort:
    """What a search has spent: subproblems bounded, in how many batches, and linear programs.

    programs: of subproblems with all signs known; deep_programs: of deep ones with units left.
    """

    subproblems: int = 0
    batches: int = 0
    programs: int = 0
    deep_programs: int = 0
