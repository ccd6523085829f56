"""The table of attacks: a name and the settings it stands for. The norm is that of the regions."""

from verifier.attacks.base import Attack, Proposals, Search
from verifier.attacks.boundary_search import BoundarySearch
from verifier.attacks.carlini_wagner import CarliniWagner, FewestCoordinates
from verifier.attacks.corners import Corners
from verifier.attacks.deepfool import DeepFool
from verifier.attacks.descent import Descent
from verifier.attacks.ensemble import Ensemble
from verifier.attacks.growing import Growing
from verifier.attacks.lbfgs import Lbfgs
from verifier.attacks.linearised_margin import LinearisedLoss, LinearisedMargin
from verifier.attacks.local_search import LocalSearch, SinglePixel
from verifier.attacks.source import Source, pseudogradient
from verifier.attacks.square import Square
from verifier.attacks.steps import AdaDelta, Adaptive, Steepest, Vertex

_BOTH = (Source, pseudogradient)

ATTACKS: dict[str, Attack] = {
    "fgsm": Descent(1, Vertex(), loss="cross-entropy"),
    "fgsm-growing": Growing(),
    "ifgsm": Descent(10, Steepest(0.1), loss="cross-entropy"),
    "mi-fgsm": Descent(10, Steepest(0.1, momentum=1.0), loss="cross-entropy"),
    "pgd": Descent(40, Steepest(0.1), restarts=6, sources=_BOTH),
    "pgd-adadelta": Descent(100, AdaDelta(), loss="cross-entropy", restarts=6, random_start=True),
    "apgd": Descent(100, Adaptive(), restarts=2, sources=_BOTH),
    "corners": Corners(),
    "single-pixel": SinglePixel(),
    "local-search": LocalSearch(),
    "square": Square(),
    "auto": Ensemble(),
    "adv-alpha": LinearisedMargin(),
    "adv-loss": LinearisedLoss(),
    "adv-loss-sign": LinearisedLoss(sign=True),
    "lbfgs": Lbfgs(),
    "deepfool": DeepFool(clipped_steps=5, projections=2, segment_steps=8),
    "cw": CarliniWagner(),
    "cw-l0": FewestCoordinates(),
    "fab": BoundarySearch(restarts=3, sweep=2),
}

__all__ = ["ATTACKS", "Attack", "Proposals", "Search"]
