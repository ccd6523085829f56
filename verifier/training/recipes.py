"""The table of recipes: what turns a batch into losses, and what moves the weights for it.

A recipe is chosen by what the request asks for. Adding one is its regime in a file, and one line here.
"""

from collections.abc import Callable
from dataclasses import dataclass

from verifier.training.architectures import Architecture, Optimiser, adam
from verifier.training.interval_regime import IntervalEnds
from verifier.training.regimes import ADVERSARIAL_SETTINGS, Adversarial, Clean
from verifier.training.request import TrainRequest
from verifier.training.sensitivity_regime import Sensitivity
from verifier.training.trainer import Regime

Domain = tuple[float, float] | None


@dataclass(frozen=True)
class Recipe:
    """How a network is trained. optimiser, learning_rate: None for those of its architecture.

    regime: takes (request, architecture, domain of the inputs). sharpness: of the pseudogradients' shares.
    """

    regime: Callable[[TrainRequest, Architecture, Domain], Regime]
    optimiser: Optimiser | None = None
    learning_rate: float | None = None
    sharpness: float = 1.0


def recipe_of(request: TrainRequest) -> Recipe:
    """Return the recipe that a request asks for."""
    if request.certified_epsilon:
        return RECIPES["interval-ends"]
    if request.attack is not None:
        return RECIPES["adversarial"]
    return RECIPES["sensitivity" if request.sensitivity_cost else "clean"]


def _clean(request: TrainRequest, architecture: Architecture, domain: Domain) -> Regime:
    return Clean(architecture.loss)


def _adversarial(request: TrainRequest, architecture: Architecture, domain: Domain) -> Regime:
    assert request.attack is not None
    steps, step, random_start = ADVERSARIAL_SETTINGS[request.attack]
    return Adversarial(architecture.loss, request.attack_epsilon, steps, step, random_start, request.mixing, domain)


def _interval_ends(request: TrainRequest, architecture: Architecture, domain: Domain) -> Regime:
    return IntervalEnds(request.certified_epsilon, request.certified_share, domain)


def _sensitivity(request: TrainRequest, architecture: Architecture, domain: Domain) -> Regime:
    return Sensitivity(architecture.loss, request.sensitivity_cost)


RECIPES: dict[str, Recipe] = {
    "clean": Recipe(_clean),
    "adversarial": Recipe(_adversarial),
    # Adam is far ahead of AdaDelta on interval ends; of the rates tried on held-out training images this one certifies
    # most. Shares exp(4 (t^2 - z^2)) certify 1 to 2 points more than the paper's exp(t^2 - z^2) there; in plain
    # training they lose. More than 4 leaves the range of the float32 kernel at z = 3 (benchmarks/RESULTS.md).
    "interval-ends": Recipe(_interval_ends, adam, 1e-2, sharpness=4.0),
    "sensitivity": Recipe(_sensitivity),
}
