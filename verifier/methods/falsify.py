"""Attacks as a method: search, replay every proposal, and pull each witness towards its input."""

from collections.abc import Sequence

from encoders.region import NORMS, BallRegion
from verifier.answers import Answer
from verifier.attacks import Attack
from verifier.batch import Batch
from verifier.budget import Budget
from verifier.methods.base import Method
from verifier.witnesses.find import find_at_radii, find_witnesses


class FalsifyMethod(Method):
    """Finds by attacks; proves nothing. Attacks run in the given order, each on what the others left."""

    proves = False
    finds = True
    norms = NORMS
    scales = True

    def __init__(self, name: str, attacks: Sequence[Attack]) -> None:
        self.name = name
        self.attacks = tuple(attacks)

    def decide(self, batch: Batch, region: BallRegion, budget: Budget) -> list[Answer]:
        return find_witnesses(self.attacks, batch, region, self.name, budget)

    def bracket(
        self, batch: Batch, epsilons: Sequence[float], answers: Sequence[Answer], budget: Budget
    ) -> list[Answer]:
        """Attack the requested radii in rising order, each where it is still open, after a look for ties at 0."""
        return find_at_radii(self.attacks, batch, epsilons, answers, self.name, budget)
