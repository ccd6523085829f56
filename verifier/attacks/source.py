"""What an attack differentiates: the class scores of a network, with true or pseudogradients."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from encoders.network import Network
from encoders.ops import Mwd, MwdConv2d, Op
from verifier.attacks.criteria import margins

# A gradient vanishes if following it over the whole ball promises less than this share of what is missing.
VANISHING_PROMISE = 1e-3


@dataclass(frozen=True, eq=False)
class Source:
    """Class scores of a network, `(batch, classes)`, differentiable.

    pseudo: MWD layers pass pseudogradients back (Agrawal et al. 2019): their true gradient reaches one input a
    unit and vanishes far from the attractor, which hides adversarial inputs from gradient attacks.
    """

    network: Network
    pseudo: bool = False

    def scores(self, x: Tensor) -> Tensor:
        """Return scores in the order of the outputs; see `Network.scores`."""
        if not self.pseudo:
            return self.network.scores(x)
        cast = self.network.cast(x.dtype, x.device)
        if not isinstance(cast.output.op, Mwd):
            return cast.fold(x, _pseudo_step)[0].flatten(1)
        (before,) = cast.fold(x, _pseudo_step, cast.output.inputs)
        return cast.output.op.scores(before, pseudo=True)

    def differentiate(self, x: Tensor, slopes: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
        """Return (scores, gradients at x `(batch, *shape)`), of one forward pass for success and for the gradient.

        slopes: of the loss by the scores, given the scores, both `(batch, classes)`.
        """
        with torch.enable_grad():
            x = x.detach().requires_grad_(True)
            scores = self.scores(x)
            (gradient,) = torch.autograd.grad(scores, x, slopes(scores.detach()))
        return scores.detach(), gradient


# Makes the source of a network.
SourceMaker = Callable[[Network], Source]


def pseudogradient(network: Network) -> Source:
    """Return the source of pseudogradients, or the plain one where no layer has any."""
    return Source(network, pseudo=has_pseudogradient(network))


def has_pseudogradient(network: Network) -> bool:
    """Return whether any layer of the network has one."""
    return any(isinstance(node.op, Mwd | MwdConv2d) for node in network.nodes)


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


def _pseudo_step(op: Op, values: Sequence[Tensor]) -> Tensor:
    return op.evaluate_pseudo(*values) if isinstance(op, Mwd | MwdConv2d) else op.evaluate(*values)
