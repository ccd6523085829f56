"""Another attack, of which one learns afterwards what it asked for."""

from __future__ import annotations

from typing import ClassVar, TypedDict

from torch import Tensor

from encoders.region import NORMS
from verifier.attacks.base import Attack, Proposals, Search
from verifier.attacks.report import Report


class Effort(TypedDict):
    """Evaluations without and with a gradient, and whether the gradient was zero (None where nobody looked)."""

    queries: int
    gradients: int
    vanishing: bool | None


class Watched(Attack):
    """Keeps the report of the attack it stands for, and leaves it to the caller to ask for a norm that it supports."""

    norms: ClassVar[tuple[str, ...]] = NORMS

    def __init__(self, inner: Attack) -> None:
        self.inner = inner
        self.report: Report | None = None

    def propose(self, search: Search) -> Tensor:
        return self.inner.propose(search)

    def run(self, search: Search) -> Proposals:
        proposals = self.inner.run(search)
        self.report = proposals.report
        return proposals

    def effort(self, position: int) -> Effort:
        """Return what the search of an input took; nothing where the attack did not run."""
        if self.report is None:
            return {"queries": 0, "gradients": 0, "vanishing": None}
        tested = bool(self.report.tested[position])
        return {
            "queries": int(self.report.queries[position]),
            "gradients": int(self.report.gradients[position]),
            "vanishing": bool(self.report.vanishing[position]) if tested else None,
        }
