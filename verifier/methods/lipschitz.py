"""MWD networks by their Lipschitz constants: one forward pass an input, and a radius at once."""

from collections.abc import Sequence

import torch

from encoders.network import Network
from encoders.region import BallRegion
from verifier.answers import Decision
from verifier.batch import Batch
from verifier.bounds.mwd.chain import chain_refusal
from verifier.bounds.mwd.lipschitz import lipschitz_radius
from verifier.budget import Budget
from verifier.methods.base import Findings, Method


class LipschitzMethod(Method):
    """Proves by the sensitivities of the layers; finds nothing. Useful on networks trained to have small ones."""

    name = "lipschitz"
    proves = True
    finds = False

    def refusal(self, network: Network) -> str | None:
        return chain_refusal(network, self.name)

    def decide(self, batch: Batch, region: BallRegion, budget: Budget) -> Decision:
        if budget.exhausted or not len(batch):
            return Decision(torch.zeros(len(batch), dtype=torch.bool))
        radii = lipschitz_radius(batch.subject.network, batch.centres, batch.classes)
        return Decision((radii >= region.radius).cpu())

    def bracket(self, batch: Batch, epsilons: Sequence[float], findings: Findings, budget: Budget) -> None:
        """Raise the lower ends to the radii."""
        if budget.exhausted or not len(batch):
            return
        radii = lipschitz_radius(batch.subject.network, batch.centres, batch.classes).cpu()
        findings.add(range(len(batch)), radii.tolist(), Decision(radii >= 0), self)
