"""The table of recipes: what turns a batch into losses, and what moves the weights for it.

A recipe is chosen by what the request asks for. Adding one is its regime in a file, one line here, and the options that
it takes in `verifier.training.tables.REGIMES`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from encoders.region import Norm
from verifier.training.adversaries import Adversary, Domain, adversary_named
from verifier.training.architectures import Architecture, Optimiser, adam, squared_error
from verifier.training.delta_rule import DeltaRule
from verifier.training.distance_regime import Margins
from verifier.training.distillation import Distilled, read_teacher
from verifier.training.interval_regime import BackwardBounds, Expressive, IntervalEnds, Ramp, SmallBoxes
from verifier.training.linear_regime import RobustLinear
from verifier.training.regimes import Clean, Mixing, Perturbed, PerturbedLayer
from verifier.training.request import TrainRequest
from verifier.training.sensitivity_regime import Sensitivity
from verifier.training.tables import MWD_NETWORKS
from verifier.training.trainer import Regime


@dataclass(frozen=True)
class Job:
    """What a regime is made from: what was asked for, of which network, in which domain of inputs."""

    request: TrainRequest
    architecture: Architecture
    domain: Domain
    recipe: Recipe

    def adversary(self, radius: float, clipped: bool = True) -> Adversary:
        """Return the attack that was asked for, or the recipe's, within a radius."""
        request, recipe = self.request, self.recipe
        name = request.attack or recipe.attack
        attack = adversary_named(name, request.attack_steps, request.attack_step, request.restarts)
        domain = None if request.unclipped or not clipped else self.domain
        return Adversary(attack, radius, request.attack_norm or recipe.norm, domain)


@dataclass(frozen=True)
class Recipe:
    """How a network is trained. optimiser, learning_rate: None for those of its architecture; rate_share: of that rate.

    regime: made from a job; sharpness: of the pseudogradients' shares; attack, norm, mixing: of perturbed inputs, where
    nothing else is asked for; judged: whether epochs are judged by an attack; ramp_start: where the radius starts;
    narrow: whether first weights that keep boxes narrow are drawn (`draw_narrow_weights`); backward: whether epochs are
    judged by margins bounded backwards too.
    """

    regime: Callable[[Job], Regime]
    optimiser: Optimiser | None = None
    learning_rate: float | None = None
    rate_share: float = 1.0
    sharpness: float = 1.0
    attack: str = "pgd-short"
    norm: Norm = "inf"
    mixing: Mixing = "pure"
    judged: bool = False
    ramp_start: float = 0.0
    narrow: bool = False
    backward: bool = False


def recipe_of(request: TrainRequest) -> Recipe:
    """Return the recipe that a request asks for."""
    of_mwd = request.regime_name == "interval" and request.name in MWD_NETWORKS
    return RECIPES["interval-mwd" if of_mwd else request.regime_name]


def _clean(job: Job) -> Regime:
    return Clean(job.architecture.loss)


def _delta_rule(job: Job) -> Regime:
    request = job.request
    return DeltaRule(job.architecture.loss, request.beta, request.zeta, request.deviation_schedule, request.epochs)


def _distilled(job: Job) -> Regime:
    if job.architecture.loss is squared_error:
        raise ValueError(
            f"regime distillation softens a softmax; {job.request.name} is trained on squared errors. Supported: relu, "
            "mlp, lenet, cnn-small and all others of cross-entropy"
        )
    return Distilled(job.request.temperature, read_teacher(job.request.teacher))


def _perturbed(job: Job) -> Regime:
    adversary = job.adversary(job.request.attack_epsilon)
    return Perturbed(job.architecture.loss, adversary, job.recipe.mixing, job.request.attack_share)


def _perturbed_layer(job: Job) -> Regime:
    assert job.request.layer is not None
    adversary = job.adversary(job.request.attack_epsilon, clipped=False)
    return PerturbedLayer(job.architecture.loss, adversary, job.request.layer)


def _robust_linear(job: Job) -> Regime:
    domain = None if job.request.unclipped else job.domain
    return RobustLinear(job.request.certified_epsilon, job.request.attack_norm or "inf", domain)


def _interval_ends(job: Job) -> Regime:
    request, loss = job.request, job.architecture.loss
    share, cost = request.certified_share, request.interval_cost
    return IntervalEnds(loss, request.certified_epsilon, share, job.domain, _ramp(job), cost, request.batch_statistics)


def _backward_bounds(job: Job) -> Regime:
    request, loss = job.request, job.architecture.loss
    return BackwardBounds(loss, request.certified_epsilon, request.certified_share, job.domain, _ramp(job))


def _small_boxes(job: Job) -> Regime:
    adversary = job.adversary(job.request.certified_epsilon)
    return SmallBoxes(job.architecture.loss, adversary, job.request.box_share, _ramp(job))


def _expressive(job: Job) -> Regime:
    adversary = job.adversary(job.request.certified_epsilon)
    return Expressive(job.architecture.loss, adversary, job.request.certified_share, _ramp(job))


def _ramp(job: Job) -> Ramp:
    return Ramp(job.recipe.ramp_start, job.request.ramp)


def _margins(job: Job) -> Regime:
    return Margins(job.request.certified_epsilon)


def _sensitivity(job: Job) -> Regime:
    return Sensitivity(job.architecture.loss, job.request.sensitivity_cost)


RECIPES: dict[str, Recipe] = {
    "plain": Recipe(_clean),
    "dropout": Recipe(_clean),
    "drop-connect": Recipe(_clean),
    "delta-rule": Recipe(_delta_rule),
    "delta-rule-learnable": Recipe(_clean),
    "resize-and-pad": Recipe(_clean),
    "distillation": Recipe(_distilled),
    "adversarial": Recipe(_perturbed, judged=True),
    "mixed": Recipe(_perturbed, mixing="batch", judged=True),
    "two-step": Recipe(_perturbed, mixing="steps", judged=True),
    "goodfellow": Recipe(_perturbed, attack="fgsm", mixing="batch", judged=True),
    "lwa": Recipe(_perturbed, attack="adv-loss", norm="2", judged=True),
    "lwa-layer": Recipe(_perturbed_layer, attack="adv-loss", norm="2"),
    "perturbed-only": Recipe(_perturbed, attack="fgsm", judged=True),
    "robust-linear": Recipe(_robust_linear, judged=True),
    # At 1e-3 a small convolutional network learns half as much in 500 steps (benchmarks/RESULTS.md).
    "interval": Recipe(_interval_ends, adam, 5e-3, narrow=True),
    # Adam is far ahead of AdaDelta on interval ends; of the rates tried on held-out training images this one certifies
    # most. Shares exp(4 (t^2 - z^2)) certify 1 to 2 points more than the paper's exp(t^2 - z^2) there; in plain
    # training they lose. More than 4 leaves the range of the float32 kernel at z = 3 (benchmarks/RESULTS.md).
    "interval-mwd": Recipe(_interval_ends, adam, 1e-2, sharpness=4.0, ramp_start=0.5),
    "crown-interval": Recipe(_backward_bounds, adam, 5e-3, narrow=True, backward=True),
    "sabr": Recipe(_small_boxes, adam, 5e-3, narrow=True, backward=True),
    "mtl-interval": Recipe(_expressive, adam, 5e-3, narrow=True, backward=True),
    "margins": Recipe(_margins),
    "sensitivity": Recipe(_sensitivity),
    # Bastani et al. say reduced, and not by how much.
    "fine-tuning": Recipe(_clean, rate_share=0.1),
}
