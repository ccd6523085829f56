"""The table of methods, by the names that scripts rely on."""

from verifier.attacks import ATTACKS
from verifier.methods.base import Batch, Decision, Findings, Method, Witness
from verifier.methods.contraction import ContractionMethod
from verifier.methods.crown import CrownMethod
from verifier.methods.exact import ExactMethod
from verifier.methods.falsify import FalsifyMethod
from verifier.methods.interval import IntervalMethod
from verifier.methods.lipschitz import LipschitzMethod
from verifier.methods.lp import LpMethod
from verifier.methods.portfolio import PortfolioMethod
from verifier.methods.restriction import RestrictionMethod

# Steps of the search for slopes.
SLOPE_STEPS = 20

METHODS: dict[str, Method] = {
    "interval": IntervalMethod(),
    "lipschitz": LipschitzMethod(),
    "contraction": PortfolioMethod([IntervalMethod(), ContractionMethod()], "contraction"),
    "crown": CrownMethod("crown"),
    "alpha-crown": CrownMethod("alpha-crown", steps=SLOPE_STEPS),
    "lp": LpMethod(),
    "exact": PortfolioMethod(
        [
            IntervalMethod(),
            FalsifyMethod("attack", [ATTACKS["pgd"]]),
            CrownMethod("crown", refinements=0),
            ExactMethod(),
        ],
        "exact",
    ),
    "restriction": RestrictionMethod(),
    "auto": PortfolioMethod(
        [
            IntervalMethod(),
            FalsifyMethod("attack", [ATTACKS["pgd"], ATTACKS["auto"]]),
            ContractionMethod(refinements=0),
            CrownMethod("crown", refinements=0),
            CrownMethod("alpha-crown", steps=SLOPE_STEPS, refinements=0, reach=1.0),
            ExactMethod(parts=200, refinements=0, hinges=500),
        ]
    ),
}


def find_method(name: str, norm: str) -> Method:
    """Return the method of a name; raise ValueError if it is unknown or not for this norm."""
    supported = ", ".join(METHODS)
    if name not in METHODS:
        raise ValueError(f"unknown method {name!r}; supported: {supported}")
    method = METHODS[name]
    if norm not in method.norms:
        raise ValueError(f"method {name!r} does not support the {norm}-norm; it supports: {', '.join(method.norms)}")
    return method


__all__ = ["METHODS", "Batch", "Decision", "Findings", "Method", "Witness", "find_method"]
