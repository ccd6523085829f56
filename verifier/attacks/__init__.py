"""The table of attacks: a name and the settings it stands for. The norm is that of the regions."""

from verifier.attacks.base import Attack, Proposals, Search
from verifier.attacks.boundary_search import BoundarySearch
from verifier.attacks.carlini_wagner import CarliniWagner, FewestCoordinates
from verifier.attacks.corners import Corners
from verifier.attacks.decoupled_norm import DecoupledNorm
from verifier.attacks.deepfool import DeepFool
from verifier.attacks.descent import Descent
from verifier.attacks.ensemble import Ensemble
from verifier.attacks.expectation import Expectation
from verifier.attacks.fast_minimum_norm import FastMinimumNorm
from verifier.attacks.greedy_coordinates import GreedyCoordinates
from verifier.attacks.growing import Growing
from verifier.attacks.lbfgs import Lbfgs
from verifier.attacks.linearised_margin import LinearisedLoss, LinearisedMargin
from verifier.attacks.local_search import LocalSearch, SinglePixel
from verifier.attacks.primal_dual import PrimalDual
from verifier.attacks.sigma_zero import SigmaZero
from verifier.attacks.source import Source, pseudogradient
from verifier.attacks.square import Square
from verifier.attacks.steps import AdaDelta, Adaptive, Plain, Steepest, Vertex

_BOTH = (Source, pseudogradient)

ATTACKS: dict[str, Attack] = {
    "fgsm": Descent(1, Vertex(), loss="cross-entropy"),
    "fgsm-growing": Growing(),
    "ifgsm": Descent(10, Steepest(0.1), loss="cross-entropy"),
    "mi-fgsm": Descent(10, Steepest(0.1, momentum=1.0), loss="cross-entropy"),
    "pgd": Descent(40, Steepest(0.1), restarts=6, sources=_BOTH),
    "pgd-plain": Descent(40, Plain(100.0), loss="log-probability"),
    "pgd-adadelta": Descent(100, AdaDelta(), loss="cross-entropy", restarts=6, random_start=True),
    "apgd": Descent(100, Adaptive(), restarts=2, sources=_BOTH),
    "bpda": Descent(40, Steepest(0.1), restarts=2, sources=(pseudogradient,)),
    "eot": Descent(40, Steepest(0.1), restarts=2, sources=(Expectation(20),)),
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
    "ddn": DecoupledNorm(),
    "fmn": FastMinimumNorm(sweep=3, sweep_steps=30),
    "pdpgd": PrimalDual(steps=300),
    "sigma-zero": SigmaZero(),
    "jsma": GreedyCoordinates(),
}

# What each is, in a line, for people who choose.
DESCRIPTIONS: dict[str, str] = {
    "fgsm": "one step of the whole radius along the gradient's signs (Goodfellow et al. 2015)",
    "fgsm-growing": "the smallest radius on a grid at which fgsm breaks the input",
    "ifgsm": "ten steps of a tenth of the radius (Kurakin et al. 2017)",
    "mi-fgsm": "ifgsm with momentum (Dong et al. 2018)",
    "pgd": "descents from random points of the ball (Madry et al. 2018)",
    "pgd-plain": "descents along the gradient itself, not its signs (Pallaprolu, Madala 2020)",
    "pgd-adadelta": "pgd with the steps of AdaDelta",
    "apgd": "descents whose steps adapt (Croce, Hein 2020)",
    "bpda": "pgd on the stand-ins of ops that mask gradients: MWD, k-winners (Athalye, Carlini, Wagner 2018)",
    "eot": "pgd on the mean gradient over draws of a network that draws (Athalye et al. 2018)",
    "corners": "random extreme points of the ball; asks for outputs only",
    "single-pixel": "one coordinate after the other set to an end of its range; asks for outputs only",
    "local-search": "greedy search over pixels (Narodytska, Kasiviswanathan 2017); asks for outputs only",
    "square": "random search in shrinking windows (Andriushchenko et al. 2020); asks for outputs only",
    "auto": "an ensemble, chosen by what the network is",
    "adv-alpha": "one step to the nearest linearised margin (Huang et al. 2015)",
    "adv-loss": "one step along the gradient of the loss (Huang et al. 2015)",
    "adv-loss-sign": "one step along the signs of the gradient of the loss (Huang et al. 2015)",
    "lbfgs": "box-constrained L-BFGS with a search for the weight of the loss (Szegedy et al. 2014)",
    "deepfool": "steps to the nearest linearised boundary (Moosavi-Dezfooli et al. 2016)",
    "cw": "a distortion plus a penalty, by Adam (Carlini, Wagner 2017)",
    "cw-l0": "the fewest changed coordinates (Carlini, Wagner 2017)",
    "fab": "projections on linearised boundaries, leaning towards the input (Croce, Hein 2020)",
    "ddn": "steps on a sphere whose radius follows success (Rony et al. 2019)",
    "fmn": "steps in a ball whose radius follows the boundary, then towards the nearest classes (Pintor et al. 2021)",
    "pdpgd": "distance and margin weighed by a dual variable, proximal steps (Matyasko, Chau 2021)",
    "sigma-zero": "the fewest changed coordinates, by a smooth count and a threshold (Cina et al. 2024)",
    "jsma": "greedy: one coordinate after the other to an end of the domain (after Papernot et al. 2016)",
}

__all__ = ["ATTACKS", "DESCRIPTIONS", "Attack", "Proposals", "Search"]
