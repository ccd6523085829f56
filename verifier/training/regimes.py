"""Regimes: how a batch becomes losses, each of which is followed by a step of the optimiser."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

Loss = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Clean:
    """The loss on the inputs as they are."""

    loss: Loss

    def __call__(self, module: nn.Module, x: Tensor, y: Tensor, progress: float) -> Iterator[Tensor]:
        """Yield the loss of the batch."""
        yield self.loss(module(x), y)

    def __repr__(self) -> str:
        return f"Clean({self.loss.__name__})"


@dataclass(frozen=True)
class Adversarial:
    """Clean and adversarial examples of sign-step descents (FGSM with one step, I-FGSM, PGD with a random start).

    mixing: `batch` takes one step on both halves together (Agrawal et al. 2019, section 7), `steps` one step on
    each, as the authors' published code does. step: in units of epsilon.
    """

    loss: Loss
    epsilon: float
    steps: int
    step: float
    random_start: bool = False
    mixing: Literal["batch", "steps"] = "batch"
    domain: tuple[float, float] | None = None

    def __call__(self, module: nn.Module, x: Tensor, y: Tensor, progress: float) -> Iterator[Tensor]:
        """Yield one loss for `batch` mixing, two for `steps`."""
        if self.mixing == "batch":
            both = torch.cat([x, self.examples(module, x, y)])
            yield self.loss(module(both), torch.cat([y, y]))
        else:
            yield self.loss(module(x), y)
            yield self.loss(module(self.examples(module, x, y)), y)

    def examples(self, module: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        """Return the points that the descent ends at."""
        lower, upper = x - self.epsilon, x + self.epsilon
        if self.domain is not None:
            lower, upper = lower.clamp(min=self.domain[0]), upper.clamp(max=self.domain[1])
        point = lower + torch.rand_like(x) * (upper - lower) if self.random_start else x
        for _ in range(self.steps):
            point = point.detach().requires_grad_(True)
            (gradient,) = torch.autograd.grad(self.loss(module(point), y), point)
            moved = point.detach() + self.step * self.epsilon * gradient.sign()
            point = torch.minimum(torch.maximum(moved, lower), upper)
        return point.detach()

    def __repr__(self) -> str:
        settings = (self.epsilon, self.steps, self.step, self.random_start, self.mixing, self.domain)
        return f"Adversarial({self.loss.__name__}, {settings})"


# The settings of Figure 3 of Agrawal et al. (2019): (steps, step in units of epsilon, random start).
ADVERSARIAL_SETTINGS = {"fgsm": (1, 1.0, False), "ifgsm": (10, 0.1, False), "pgd": (100, 0.025, True)}
