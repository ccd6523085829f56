"""The source of gradients of a network that draws: the mean over a stated number of draws (EOT).

Every step takes fresh draws, the same for all inputs (Athalye, Engstrom, Ilyas, Kwok 2018); a draw is an ordinary
network, differentiated with the pseudogradients of its ops where they have any.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from encoders.network import Network
from verifier.attacks.source import Source, has_pseudogradient, pseudogradient
from verifier.attacks.wrappers import Expect


@dataclass(frozen=True)
class Expectation:
    """Makes the source of the mean over draws of a network; of one that draws nothing, that of its pseudogradients."""

    draws: int

    def __call__(self, network: Network) -> Source:
        return Expect(scores_of_a_draw, self.draws)(network) if network.randomised else pseudogradient(network)


def scores_of_a_draw(network: Network, x: Tensor, generator: torch.Generator) -> Tensor:
    """Return the scores `(batch, classes)` of one draw at x `(batch, *shape)`."""
    drawn = network.draw(generator)
    return drawn.scores(x, pseudo=has_pseudogradient(drawn))
