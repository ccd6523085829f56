"""What methods answer about a batch, as tests look at it: by row, where there is something to see."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from encoders.region import BallRegion
from verifier.answers import Answer, Witness
from verifier.batch import Batch
from verifier.budget import Budget
from verifier.methods.base import Method
from verifier.verdict import Bracket


@dataclass(frozen=True)
class Seen:
    """Answers about a batch. radii: of the balls that were decided; none where brackets were."""

    answers: Sequence[Answer]
    radii: Sequence[float] = ()

    @property
    def certified(self) -> Tensor:
        """A mask `(batch,)`: the ball is said to be safe."""
        pairs = zip(self.answers, self.radii, strict=True)
        return torch.tensor([answer.vouched_safe(radius) for answer, radius in pairs], dtype=torch.bool)

    @property
    def brackets(self) -> list[Bracket]:
        return [answer.bracket for answer in self.answers]

    @property
    def witnesses(self) -> dict[int, Witness]:
        return self._by_row("witness")

    @property
    def reasons(self) -> dict[int, str]:
        return self._by_row("reason")

    @property
    def execution_only(self) -> dict[int, float]:
        return self._by_row("execution_only")

    @property
    def open_units(self) -> dict[int, int]:
        return self._by_row("open_units")

    def _by_row(self, name: str) -> dict[int, Any]:
        values = {row: getattr(answer, name) for row, answer in enumerate(self.answers)}
        return {row: value for row, value in values.items() if value is not None}


def decided(method: Method, batch: Batch, region: BallRegion, budget: Budget) -> Seen:
    """Return what a method says of regions."""
    answers = method.decide(batch, region, budget)
    assert len(answers) == len(batch)
    return Seen(answers, region.radius.tolist())


def bracketed(
    method: Method, batch: Batch, epsilons: Sequence[float], budget: Budget, known: Seen | Bracket | None = None
) -> Seen:
    """Return what is known after a method has narrowed the brackets; known: before it, nothing by default."""
    if known is None or isinstance(known, Bracket):
        known = Seen([Answer(known or Bracket())] * len(batch))
    answers = method.bracket(batch, epsilons, known.answers, budget)
    assert len(answers) == len(batch)
    return Seen(answers)
