"""The table of methods, by the names that scripts rely on."""

from verifier.attacks import ATTACKS
from verifier.methods.base import Method
from verifier.methods.contraction import ContractionMethod
from verifier.methods.crown import CrownMethod, PlanesMethod
from verifier.methods.exact import ExactMethod
from verifier.methods.falsify import FalsifyMethod
from verifier.methods.input_split import InputSplitMethod
from verifier.methods.interval import IntervalMethod
from verifier.methods.lipschitz import LipschitzMethod
from verifier.methods.lp import LpMethod
from verifier.methods.milp import MilpMethod
from verifier.methods.portfolio import PortfolioMethod
from verifier.methods.restriction import RestrictionMethod

# Steps of the search for slopes.
SLOPE_STEPS = 20


def _before(last: Method, refinements: int = 0) -> PortfolioMethod:
    """Return the method with what is quick in front of it: it sees only what that leaves open."""
    quick = [IntervalMethod(), FalsifyMethod("attack", [ATTACKS["pgd"]]), CrownMethod("crown", refinements=refinements)]
    return PortfolioMethod([*quick, last], last.name)


METHODS: dict[str, Method] = {
    "interval": IntervalMethod(),
    "lipschitz": LipschitzMethod(),
    "contraction": PortfolioMethod([IntervalMethod(), ContractionMethod()], "contraction"),
    "crown": CrownMethod("crown"),
    "alpha-crown": CrownMethod("alpha-crown", steps=SLOPE_STEPS),
    "planes": PlanesMethod("planes", steps=SLOPE_STEPS),
    "lp": LpMethod(),
    "input-split": InputSplitMethod(),
    "exact": _before(ExactMethod(), refinements=6),
    # Brackets that time does not close, and the least radius of integer programs, start from where linear bounds end.
    "milp": _before(MilpMethod(), refinements=6),
    "milp-cbc": _before(MilpMethod("pulp", name="milp-cbc"), refinements=6),
    "restriction": RestrictionMethod(),
    "auto": PortfolioMethod(
        [
            IntervalMethod(),
            FalsifyMethod("attack", [ATTACKS["pgd"], ATTACKS["auto"]]),
            ContractionMethod(refinements=0),
            CrownMethod("crown", refinements=0),
            CrownMethod("alpha-crown", steps=SLOPE_STEPS, refinements=0, reach=1.0),
            InputSplitMethod(boxes=2_000, refinements=0),
            ExactMethod(subproblems=5_000, refinements=0, hinges=1_000),
        ]
    ),
}

# `auto` where one region is asked about and the time is what limits it: what is quick (linear bounds, and some boxes of
# few inputs, before attacks, which cost more), then short searches over splits of inputs and of signs, which on
# networks that they take decide more than slopes and long attacks, then these, then both searches, each on from where
# it stopped. Slopes add nothing once the search over signs has ascended the whole region.
_ONE_REGION = PortfolioMethod(
    [
        IntervalMethod(),
        CrownMethod("crown", refinements=0),
        InputSplitMethod(boxes=256, inputs=10, refinements=0),
        FalsifyMethod("attack", [ATTACKS["pgd"]]),
        ContractionMethod(refinements=0),
        InputSplitMethod(boxes=50_000, inputs=10, refinements=0),
        ExactMethod(subproblems=2_000, refinements=0),
        InputSplitMethod(boxes=2_000, refinements=0),
        CrownMethod("alpha-crown", steps=SLOPE_STEPS, refinements=0),
        FalsifyMethod("attack", [ATTACKS["auto"]]),
        InputSplitMethod(boxes=50_000, refinements=0),
        ExactMethod(subproblems=100_000, refinements=0),
        InputSplitMethod(boxes=10_000_000, refinements=0),
        ExactMethod(subproblems=10_000_000, refinements=0),
    ],
    idle_after={"alpha-crown": "exact"},
)

# What each is, in a line, for people who choose.
DESCRIPTIONS: dict[str, str] = {
    "interval": "interval propagation, exact for each op; the radius by bisection",
    "lipschitz": "one forward pass and the Lipschitz constants of the layers",
    "contraction": "intervals, then backward contraction of boxes with branching",
    "crown": "linear bounds, propagated backward (Zhang et al. 2018)",
    "alpha-crown": "linear bounds with optimised slopes (Xu et al. 2021)",
    "planes": "alpha-crown with planes above the first relus (Anderson et al. 2020)",
    "lp": "linear programs over convex rows, proved from the multipliers (Salman et al. 2019)",
    "input-split": "branch and bound over the inputs, where they are few (Wang et al. 2018)",
    "exact": "branch and bound over signs, with certificates; on MWD networks contraction to the end",
    "milp": "integer programs by HiGHS (Tjeng et al. 2019); a solver's word",
    "milp-cbc": "integer programs by CBC, as a second opinion",
    "restriction": "the nearest point of an attacked point's linear region (Bastani et al. 2016)",
    "auto": "all that apply, each on what the earlier ones left open",
}


def find_method(name: str, norm: str) -> Method:
    """Return the method of a name; raise ValueError if it is unknown or not for this norm."""
    supported = ", ".join(METHODS)
    if name not in METHODS:
        raise ValueError(f"unknown method {name!r}; supported: {supported}")
    method = METHODS[name]
    if norm not in method.norms:
        takers = [other for other in METHODS if norm in METHODS[other].norms]
        others = f"; methods of the {norm}-norm: {', '.join(takers)}" if takers else ""
        raise ValueError(
            f"method {name!r} does not support the {norm}-norm; it supports: {', '.join(method.norms)}{others}"
        )
    return method


def find_prover(name: str) -> Method:
    """Return the method of a name for a single region: `auto` goes on until the time is up."""
    return _ONE_REGION if name == "auto" else METHODS[name]


__all__ = ["DESCRIPTIONS", "METHODS", "Method", "find_method", "find_prover"]
