"""What an attack differentiates: the class scores of a network, with true or pseudogradients."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from encoders.network import Network
from verifier.attacks.criteria import margins

# A gradient vanishes if following it over the whole ball promises less than this share of what is missing.
VANISHING_PROMISE = 1e-3


@dataclass(frozen=True, eq=False)
class Source:
    """Class scores of a network, `(batch, classes)`, differentiable.

    pseudo: ops that mask gradients pass pseudogradients back. The true gradient of an MWD layer reaches one input a
    unit and vanishes far from the attractor (Agrawal et al. 2019), that of winners that take all sees no loser, which
    hides adversarial inputs from gradient attacks. leak: with them, what dead units pass back (`Op.evaluate_pseudo`).
    """

    network: Network
    pseudo: bool = False
    leak: float = 0.0

    @property
    def networks(self) -> int:
        """How many networks one gradient is of."""
        return 1

    def scores(self, x: Tensor) -> Tensor:
        """Return scores in the order of the outputs; see `Network.scores`."""
        return self.network.scores(x, self.pseudo, self.leak)

    def differentiate(self, x: Tensor, slopes: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
        """Return (scores, gradients at x `(batch, *shape)`), of one forward pass for success and for the gradient.

        slopes: of the loss by the scores, given the scores, both `(batch, classes)`.
        """
        with torch.enable_grad():
            x = x.detach().requires_grad_(True)
            scores = self.scores(x)
            # As a sum: torch loads sympy for weights that are passed apart. The gradient is the same to the bit.
            (gradient,) = torch.autograd.grad((scores * slopes(scores.detach())).sum(), x)
        return scores.detach(), gradient


# Makes the source of a network.
SourceMaker = Callable[[Network], Source]


def pseudogradient(network: Network) -> Source:
    """Return the source of pseudogradients, or the plain one where no layer has any."""
    return Source(network, pseudo=has_pseudogradient(network))


def has_pseudogradient(network: Network) -> bool:
    """Return whether any layer of the network has one."""
    return any(node.op.has_pseudogradient for node in network.nodes)


def gradient_vanishes(network: Network, x: Tensor, classes: Tensor, reach: Tensor, norm: str) -> Tensor:
    """Return a mask `(batch,)`: where following the true gradient leads nowhere.

    That is, where the linearisation of the margin promises, over the ball of radius `reach` `(batch,)`, less than
    `VANISHING_PROMISE` of what is missing: reach |gradient|_* < VANISHING_PROMISE |margin|, |.|_* the dual norm.
    """
    x = x.detach().requires_grad_(True)
    with torch.enable_grad():
        missing = margins(network.scores(x), classes)
        (gradient,) = torch.autograd.grad(missing.sum(), x)
    dual = {"inf": 1.0, "2": 2.0, "1": torch.inf}[norm]
    promise: Tensor = reach.to(x.dtype) * torch.linalg.vector_norm(gradient.flatten(1), dual, dim=1)
    little = VANISHING_PROMISE * missing.detach().abs()
    return promise < little
