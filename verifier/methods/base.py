"""The two calls that every method answers, for a batch of inputs.

`decide`: is the ball of this radius safe? `bracket`: where does the robust radius lie? A method declares whether
it can prove, find, or both, and for which norms.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from encoders.network import Network
from encoders.region import BallRegion
from verifier.answers import Answer
from verifier.batch import BATCH_SIZE, Batch
from verifier.budget import Budget
from verifier.methods.paused import Paused
from verifier.verdict import Strength


class Method(ABC):
    """A way to decide regions. Subclasses implement `decide` and `bracket`.

    name: of `--method`, in brackets and records.
    proves, finds: which ends of a bracket it may move.
    strength: of its proofs, that of the weakest link; TRUSTED ones move the end `trusted` alone.
    norms: of the balls that it can take.
    scales: whether it takes balls of the inf-norm with a scale for each coordinate.
    """

    name: str
    proves: ClassVar[bool]
    finds: ClassVar[bool]
    strength: ClassVar[Strength] = Strength.CHECKED
    norms: ClassVar[tuple[str, ...]] = ("inf",)
    scales: ClassVar[bool] = False
    # Inputs that a run hands over together, and writes to its records together: few where each takes long.
    batch_size: ClassVar[int] = BATCH_SIZE

    def batch_for(self, network: Network, device: torch.device) -> int:
        """Return how many inputs of a network a run hands over together.

        Fewer than `batch_size` where that costs nothing: they are shared among processes more evenly.
        """
        return self.batch_size

    def refusal(self, network: Network) -> str | None:
        """Return why this method cannot take the network, or None if it can."""
        return None

    @abstractmethod
    def decide(self, batch: Batch, region: BallRegion, budget: Budget) -> list[Answer]:
        """Return an answer about each region: a proof, a witness, or neither.

        batch: the inputs with their reference classes. region: a closed ball around each. budget: when it is exhausted
        the rest stays open, with a reason.
        """

    def go_on(self, batch: Batch, region: BallRegion, budget: Budget, paused: Paused) -> list[Answer]:
        """Return what `decide` does of a batch of one, going on with what earlier stages left of this very region."""
        return self.decide(batch, region, budget)

    @abstractmethod
    def bracket(
        self, batch: Batch, epsilons: Sequence[float], answers: Sequence[Answer], budget: Budget
    ) -> list[Answer]:
        """Return what is known of the inputs after what `answers` say: narrower brackets, the given radii first."""

    def mapped(self, change: Callable[["Method"], "Method"]) -> "Method":
        """Return the method changed so, or with each of its stages changed so."""
        return change(self)

    def proofs(self, certified: Tensor, radii: Tensor) -> list[Answer]:
        """Return answers that the closed balls of the radii `(batch,)` are safe where the mask says so."""
        pairs = zip(certified.tolist(), radii.tolist(), strict=True)
        return [Answer.proved(r, self.name, self.strength) if is_safe else Answer() for is_safe, r in pairs]
