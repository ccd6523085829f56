"""MWD networks by their Lipschitz constants: one forward pass an input, and a radius at once."""

from collections.abc import Sequence

from encoders.network import Network
from encoders.region import BallRegion
from verifier.answers import Answer, merged
from verifier.batch import Batch
from verifier.bounds.mwd.lipschitz import lipschitz_radius
from verifier.budget import Budget
from verifier.certificates.distance_chain import chain_refusal
from verifier.methods.base import Method


class LipschitzMethod(Method):
    """Proves by the sensitivities of the layers; finds nothing. Useful on networks trained to have small ones."""

    name = "lipschitz"
    proves = True
    finds = False

    def refusal(self, network: Network) -> str | None:
        return chain_refusal(network, self.name)

    def decide(self, batch: Batch, region: BallRegion, budget: Budget) -> list[Answer]:
        if budget.exhausted or not len(batch):
            return [Answer()] * len(batch)
        radii = lipschitz_radius(batch.subject.network, batch.centres, batch.classes)
        return self.proofs(radii >= region.radius, region.radius)

    def bracket(
        self, batch: Batch, epsilons: Sequence[float], answers: Sequence[Answer], budget: Budget
    ) -> list[Answer]:
        """Raise the lower ends to the radii."""
        if budget.exhausted or not len(batch):
            return list(answers)
        radii = lipschitz_radius(batch.subject.network, batch.centres, batch.classes)
        return merged(answers, range(len(batch)), self.proofs(radii >= 0, radii))
