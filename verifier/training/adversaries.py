"""What perturbs the inputs of a training: attacks of `verifier.attacks` on the module as it is, and their settings.

    fgsm, fgsm-random, ifgsm, mi-fgsm, pgd-short, pgd, apgd   descents of the cross-entropy; their steps, in units of
                                                              the radius, restarts and norm are options
    adv-loss, adv-loss-sign, adv-alpha                        one step of the whole radius (Huang et al. 2015, 3.1)

fgsm-random starts at a random point and takes 1.25 of the radius (Wong, Rice, Kolter 2020). pgd-short takes 7 steps of
a quarter (Madry et al. 2018 on CIFAR-10), what a processor can afford. The settings of fgsm, ifgsm and pgd are those of
Figure 3 of Agrawal et al. (2019).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from encoders.region import BallRegion, Norm
from verifier.attacks import Attack, Search
from verifier.attacks.descent import Descent
from verifier.attacks.linearised_margin import LinearisedLoss, LinearisedMargin
from verifier.attacks.settings import configured
from verifier.attacks.steps import Adaptive, Steepest, Vertex
from verifier.budget import Budget
from verifier.training.live import LiveNetwork, frozen

Domain = tuple[float, float] | None


def _descent(steps: int, rule: Vertex | Steepest | Adaptive, random_start: bool = False) -> Descent:
    # Until the last step: what is wrong already is made worse, as the maximum of the loss wants it.
    return Descent(steps, rule, loss="cross-entropy", random_start=random_start, until_broken=False)


ADVERSARIES: dict[str, Attack] = {
    "fgsm": _descent(1, Vertex()),
    "ifgsm": _descent(10, Steepest(0.1)),
    "pgd": _descent(100, Steepest(0.025), random_start=True),
    "fgsm-random": _descent(1, Steepest(1.25), random_start=True),
    "mi-fgsm": _descent(10, Steepest(0.1, momentum=1.0)),
    "pgd-short": _descent(7, Steepest(0.25), random_start=True),
    "apgd": _descent(20, Adaptive(), random_start=True),
    "adv-loss": LinearisedLoss(),
    "adv-loss-sign": LinearisedLoss(sign=True),
    "adv-alpha": LinearisedMargin(whole=True),
}


def adversary_named(
    name: str, steps: int | None = None, step: float | None = None, restarts: int | None = None
) -> Attack:
    """Return the attack of a row with other settings; raise ValueError where it does not have them."""
    given = {"steps": steps, "step": step, "restarts": restarts}
    settings = {key: value for key, value in given.items() if value is not None}
    return configured(ADVERSARIES[name], name, settings, ADVERSARIES)


@dataclass(frozen=True)
class Adversary:
    """An attack within balls of a radius around the inputs, cut to a domain (None: not cut).

    Seeds are drawn from torch's global generator, which checkpoints keep.
    """

    attack: Attack
    radius: float
    norm: Norm = "inf"
    domain: Domain = None

    def __call__(self, module: nn.Module, x: Tensor, y: Tensor, share: float = 1.0) -> Tensor:
        """Return points `(batch, *shape)` within `share` of the radius, detached, in the dtype of x.

        In the ball up to its rounding: they are data to train on. The module is attacked in its evaluation mode.
        """
        centre = x.detach()
        radii = torch.full((len(x),), share * self.radius, dtype=torch.float64, device=x.device)
        region = BallRegion(centre.double(), radii, self.domain, self.norm)
        seeds = torch.randint(2**62, (len(x),)).tolist()
        with frozen(module):
            search = Search(LiveNetwork(module, x.dtype), region, y, seeds, Budget())
            return self.attack.propose(search).to(x.dtype).reshape(x.shape).detach()
