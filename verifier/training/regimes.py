"""Regimes: how a batch becomes losses, each of which is followed by a step of the optimiser.

With x' the examples of an adversary and L the loss, Danskin's theorem takes their gradient at x' held fixed:

    Clean           L(x)
    Perturbed       pure: L(x'), the min-max objective (Madry et al. 2018; Huang et al. 2015, algorithm 2; with fgsm
                    Nokland 2015); batch: (1 - s) L(x) + s L(x') in one step (Goodfellow et al. 2015 with
                    alpha = 1 - s; Agrawal et al. 2019, section 7); steps: a step on L(x), then one on L(x') of the
                    network after it, as the published code of the latter does
    PerturbedLayer  L(head(z + r)) with z = trunk(x) and r the perturbation of z, held fixed (Huang et al. 2015,
                    algorithm 3)
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from typing import Literal

import torch
from torch import Tensor, nn

from verifier.training.adversaries import Adversary

Loss = Callable[[Tensor, Tensor], Tensor]
Mixing = Literal["pure", "batch", "steps"]


class Described:
    """A dataclass that shows functions by name: what it shows is the identity of a training in a checkpoint."""

    def __repr__(self) -> str:
        values = (getattr(self, field.name) for field in fields(self))  # type: ignore[arg-type]
        shown = ", ".join(str(getattr(value, "__name__", value)) for value in values)
        return f"{type(self).__name__}({shown})"


@dataclass(frozen=True, repr=False)
class Clean(Described):
    """The loss on the inputs as they are."""

    loss: Loss

    def __call__(self, module: nn.Module, x: Tensor, y: Tensor, progress: float) -> Iterator[Tensor]:
        """Yield the loss of the batch."""
        yield self.loss(module(x), y)


@dataclass(frozen=True, repr=False)
class Perturbed(Described):
    """The loss on perturbed inputs, alone or mixed with that on the inputs. share: of the former, in `batch`."""

    loss: Loss
    adversary: Adversary
    mixing: Mixing = "pure"
    share: float = 0.5

    def __call__(self, module: nn.Module, x: Tensor, y: Tensor, progress: float) -> Iterator[Tensor]:
        """Yield one loss, or two for `steps`."""
        if self.mixing == "batch":
            outputs = module(torch.cat([x, self.adversary(module, x, y)]))
            clean, perturbed = (self.loss(part, y) for part in outputs.split(len(x)))
            yield (1 - self.share) * clean + self.share * perturbed
            return
        if self.mixing == "steps":
            yield self.loss(module(x), y)
        yield self.loss(module(self.adversary(module, x, y)), y)


@dataclass(frozen=True, repr=False)
class PerturbedLayer(Described):
    """The loss with the output of a named layer perturbed; the gradient reaches the layers before it through z."""

    loss: Loss
    adversary: Adversary
    layer: str

    def __call__(self, module: nn.Module, x: Tensor, y: Tensor, progress: float) -> Iterator[Tensor]:
        """Yield the loss of the batch; ValueError names the layers that there are."""
        trunk, head = parts(module, self.layer)
        z = trunk(x)
        yield self.loss(head(z + (self.adversary(head, z, y) - z).detach()), y)


def parts(module: nn.Module, layer: str) -> tuple[nn.Module, nn.Module]:
    """Return (the layers up to the named one, those behind it), which share its weights."""
    assert isinstance(module, nn.Sequential)
    known = ", ".join(f"{number} {type(child).__name__}" for number, child in enumerate([*module][:-1]))
    if not layer.isdecimal() or int(layer) >= len(module):
        raise ValueError(f"there is no layer {layer!r}; supported: {known}")
    if int(layer) == len(module) - 1:
        raise ValueError(f"behind layer {layer!r} there is nothing to train; supported: {known}")
    return module[: int(layer) + 1], module[int(layer) + 1 :]
