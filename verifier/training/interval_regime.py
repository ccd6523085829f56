"""Certified training on the ends of propagated intervals, alone or mixed with an attack.

With `worst` the scores that hurt most over the box (`intervals.worst_scores`), L the loss of the architecture and a
radius that rises linearly over the first `ramp.until` of training:

    IntervalEnds   (1 - kappa) L(x) + kappa L(worst of the ball) + cost (tightness + balance)  (Gowal et al. 2018)
    BackwardBounds (1 - kappa) L(x) + kappa L(beta backward + (1 - beta) worst), beta falling from 1 to 0 with the ramp
                                                                                          (CROWN-IBP: Zhang et al. 2020)
    SmallBoxes     L(worst of a box of radius share * epsilon around an attacked point)  (SABR: Mueller et al. 2023)
    Expressive     (1 - alpha) L(x') + alpha L(worst of the ball), x' attacked           (MTL-IBP: De Palma et al. 2024)

The regularisers are those of Shi et al. (2021): layers whose boxes grow more than 2 times over that of the input, and
relus whose active and inactive parts differ by more than a factor 2 in mean or variance, are penalised; their weight
falls to 0 with the ramp. For MWD networks, with pseudogradients through both ends, no published use is known.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from verifier.training.adversaries import Adversary, Domain
from verifier.training.backward_bounds import backward_scores
from verifier.training.intervals import Boxes, around, worst_scores
from verifier.training.regimes import Described, Loss

# What ratios of widths, means and variances are to reach (Shi et al. 2021).
TOLERANCE = 0.5
LEAST = 1e-12


@dataclass(frozen=True)
class Ramp:
    """The share of the radius at a time of training: from `start` to 1 at `until`, linear."""

    start: float = 0.5
    until: float = 0.6

    def at(self, progress: float) -> float:
        """Return the share."""
        if progress >= self.until:
            return 1.0
        return min(1.0, self.start + (1.0 - self.start) * progress / self.until)


@dataclass(frozen=True, repr=False)
class IntervalEnds(Described):
    """The clean loss and that at the worst ends of intervals of radius `epsilon`, of which kappa is the share.

    statistics: whose batch statistics normalise where kappa is 1: inputs, or middles, which spares running the inputs.
    """

    loss: Loss
    epsilon: float
    kappa: float = 0.5
    domain: Domain = None
    ramp: Ramp = Ramp()
    cost: float = 0.0
    statistics: str = "inputs"

    def __call__(self, module: nn.Module, x: Tensor, y: Tensor, progress: float) -> Iterator[Tensor]:
        """Yield the loss of the batch."""
        share = self.ramp.at(progress)
        boxes = around(x, x, share * self.epsilon, self.domain)
        start = _asked(boxes, module, self.kappa, self.statistics)
        boxes, worst = worst_scores(module, start, y)
        total = _mixed(self.loss, boxes.clean, worst, y, self.kappa)
        if self.cost and share < 1:
            total = total + (1 - share) * self.cost * (tightness(start) + balance(start))
        yield total


@dataclass(frozen=True, repr=False)
class BackwardBounds(Described):
    """As `IntervalEnds`, with margins that are bounded backwards while the radius rises."""

    loss: Loss
    epsilon: float
    kappa: float = 0.5
    domain: Domain = None
    ramp: Ramp = Ramp()

    def __call__(self, module: nn.Module, x: Tensor, y: Tensor, progress: float) -> Iterator[Tensor]:
        """Yield the loss of the batch."""
        share = self.ramp.at(progress)
        start = _asked(around(x, x, share * self.epsilon, self.domain), module, self.kappa)
        boxes, worst = worst_scores(module, start, y)
        # Evaluated also where it does not count, that a layer without backward bounds is refused before work starts.
        if share < 1 or progress == 1:
            worst = share * worst + (1 - share) * backward_scores(module, start, y)
        yield _mixed(self.loss, boxes.clean, worst, y, self.kappa)


@dataclass(frozen=True, repr=False)
class SmallBoxes(Described):
    """The loss at the worst ends of small boxes inside the ball, around attacked points.

    adversary: of the whole radius; share: of it that the half-width of the box is.
    """

    loss: Loss
    adversary: Adversary
    share: float
    ramp: Ramp = Ramp()

    def __call__(self, module: nn.Module, x: Tensor, y: Tensor, progress: float) -> Iterator[Tensor]:
        """Yield the loss of the batch."""
        size = self.ramp.at(progress)
        middle = self.adversary(module, x, y, size * (1 - self.share))
        boxes = around(x, middle, size * self.share * self.adversary.radius, self.adversary.domain)
        yield self.loss(worst_scores(module, _asked(boxes, module, 1.0), y)[1], y)


@dataclass(frozen=True, repr=False)
class Expressive(Described):
    """The loss on attacked points and that at the worst ends of the whole ball, of which alpha is the share."""

    loss: Loss
    adversary: Adversary
    alpha: float
    ramp: Ramp = Ramp()

    def __call__(self, module: nn.Module, x: Tensor, y: Tensor, progress: float) -> Iterator[Tensor]:
        """Yield the loss of the batch."""
        size = self.ramp.at(progress)
        points = self.adversary(module, x, y, size)
        # Batch statistics are those of the attacked points, which the network is run on.
        boxes, worst = worst_scores(module, around(points, x, size * self.adversary.radius, self.adversary.domain), y)
        yield _mixed(self.loss, boxes.clean, worst, y, self.alpha)


def _asked(boxes: Boxes, module: nn.Module, share: float, statistics: str = "inputs") -> Boxes:
    """Return the boxes, without values at the inputs where the ends are all of the loss and no statistics need them."""
    normalised = any(isinstance(layer, nn.BatchNorm2d) for layer in module.modules())
    needed = share < 1 or (normalised and statistics == "inputs")
    return boxes if needed else Boxes(None, boxes.middle, boxes.half, boxes.tape)


def _mixed(loss: Loss, clean: Tensor | None, worst: Tensor, y: Tensor, share: float) -> Tensor:
    """Return the loss of the inputs and, of the given share, that of the worst ends."""
    if clean is None:
        return loss(worst, y)
    return (1 - share) * loss(clean, y) + share * loss(worst, y)


def tightness(boxes: Boxes) -> Tensor:
    """Return the mean of max(0, 1 - w_0 / (TOLERANCE w_i)), w_i the mean width of the boxes before relus i."""
    width = boxes.half.mean()
    ratios = [width / hinge.half.mean().clamp(min=LEAST) for hinge in boxes.hinges]
    return _shortfall(ratios, width)


def balance(boxes: Boxes) -> Tensor:
    """Return how far relus are from equal parts of active and inactive units, in means and variances of middles."""
    ratios = []
    for hinge in boxes.hinges:
        middle = hinge.middle
        active, inactive = (hinge.lower > 0).to(middle), (hinge.upper < 0).to(middle)
        spread = (middle - middle.mean()) ** 2
        for values in (middle.abs(), spread):
            on, off = (values * active).sum().clamp(min=LEAST), (values * inactive).sum().clamp(min=LEAST)
            ratios.append(torch.minimum(on / off, off / on))
    return _shortfall(ratios, boxes.middle)


def _shortfall(ratios: list[Tensor], like: Tensor) -> Tensor:
    if not ratios:
        return like.new_zeros(())
    return (TOLERANCE - torch.stack(ratios)).clamp(min=0).mean() / TOLERANCE
