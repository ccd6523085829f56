"""Other sources of gradients: replaced in the backward pass (BPDA), or averaged over random draws (EOT).

BPDA (Athalye, Carlini, Wagner 2018): grad f(g(x)) is taken as s'(x)^T (grad f)(g(x)), s standing in for g in the
backward pass only: f is differentiated at g(x), where the forward pass went. Pallaprolu and Madala (2020) print the
gradient of f at x; a test keeps both apart. With s the identity it is the straight-through estimator.

EOT (Athalye et al. 2018): the mean over N draws of the gradient of the loss of a randomised network.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from encoders.network import Network
from encoders.ops import Op
from encoders.views.pseudogradient import replace_backward
from verifier.attacks.source import Source

# (the network, x (batch, *shape), a random generator) -> scores (batch, classes), another draw at each call
Randomised = Callable[[Network, Tensor, torch.Generator], Tensor]


@dataclass(frozen=True, eq=False)
class ReplacedSource(Source):
    """Scores whose ops of the given kinds pass back the derivative of a stand-in: (op, x) -> tensor.

    Only ops with one input can be replaced. A last MWD layer is read at its outputs.
    """

    stand_ins: Mapping[str, Callable[[Op, Tensor], Tensor]] = field(default_factory=dict)

    def scores(self, x: Tensor) -> Tensor:
        return self.network.cast(x.dtype, x.device).fold(x, self._step)[0].flatten(1)

    def _step(self, op: Op, values: Sequence[Tensor]) -> Tensor:
        stand_in = self.stand_ins.get(op.kind)
        if stand_in is None:
            return op.evaluate(*values)
        if len(values) != 1:
            raise ValueError(f"op {op.kind!r} has {len(values)} inputs; only ops with one can be replaced")
        return replace_backward(op.evaluate, lambda x: stand_in(op, x))(values[0])


@dataclass(frozen=True)
class Replace:
    """Makes the source of a network in which kinds of ops are replaced in the backward pass: BPDA."""

    stand_ins: Mapping[str, Callable[[Op, Tensor], Tensor]]

    def __call__(self, network: Network) -> Source:
        return ReplacedSource(network, stand_ins=self.stand_ins)


@dataclass(frozen=True, eq=False)
class ExpectedSource(Source):
    """Mean scores, and the gradient of the mean loss, over fresh draws of a randomised network at each evaluation."""

    forward: Randomised = field(kw_only=True)
    draws: int = field(kw_only=True)
    generator: torch.Generator = field(kw_only=True)

    @property
    def networks(self) -> int:
        """How many networks one gradient is of: the draws."""
        return self.draws

    def scores(self, x: Tensor) -> Tensor:
        return torch.stack([self.forward(self.network, x, self.generator) for _ in range(self.draws)]).mean(dim=0)

    def differentiate(self, x: Tensor, slopes: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            x = x.detach().requires_grad_(True)
            drawn = [self.forward(self.network, x, self.generator) for _ in range(self.draws)]
            (gradient,) = torch.autograd.grad(drawn, x, [slopes(scores.detach()) / self.draws for scores in drawn])
        return torch.stack(drawn).mean(dim=0).detach(), gradient


@dataclass(frozen=True)
class Expect:
    """Makes the source of the expectation of a randomised network: EOT. The seed makes a run repeatable."""

    forward: Randomised
    draws: int
    seed: int = 0

    def __call__(self, network: Network) -> Source:
        if self.draws < 1:
            raise ValueError(f"an expectation needs at least one draw, got {self.draws}")
        generator = torch.Generator().manual_seed(self.seed)
        return ExpectedSource(network, forward=self.forward, draws=self.draws, generator=generator)
