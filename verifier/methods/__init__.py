"""The table of methods, by the names that scripts rely on."""

from verifier.attacks import ATTACKS
from verifier.methods.base import Batch, Decision, Findings, Method, Witness
from verifier.methods.contraction import ContractionMethod
from verifier.methods.falsify import FalsifyMethod
from verifier.methods.interval import IntervalMethod
from verifier.methods.portfolio import PortfolioMethod

METHODS: dict[str, Method] = {
    "interval": IntervalMethod(),
    "contraction": PortfolioMethod([IntervalMethod(), ContractionMethod()], "contraction"),
    "auto": PortfolioMethod(
        [
            IntervalMethod(),
            FalsifyMethod("attack", [ATTACKS["pgd"], ATTACKS["auto"]]),
            ContractionMethod(refinements=0),
        ]
    ),
}

# Names that scripts may use one day; asking for one is an error that says so.
PLANNED_METHODS = ("crown", "alpha-crown", "lp", "exact", "restriction")


def find_method(name: str, norm: str) -> Method:
    """Return the method of a name; raise ValueError if it is unknown, not built yet, or not for this norm."""
    supported = ", ".join(METHODS)
    if name in PLANNED_METHODS:
        raise ValueError(f"method {name!r} is not built yet; built: {supported}")
    if name not in METHODS:
        raise ValueError(f"unknown method {name!r}; supported: {supported}")
    method = METHODS[name]
    if norm not in method.norms:
        raise ValueError(f"method {name!r} does not support the {norm}-norm; it supports: {', '.join(method.norms)}")
    return method


__all__ = ["METHODS", "PLANNED_METHODS", "Batch", "Decision", "Findings", "Method", "Witness", "find_method"]
