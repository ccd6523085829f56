"""Statistics over brackets: counts at a radius, certified accuracy, confidence intervals."""

from collections.abc import Sequence
from dataclasses import dataclass

from verifier.verdict import Bracket, Outcome, Strength


def clopper_pearson(successes: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return the exact binomial interval for a share (Clopper and Pearson 1934), conservative at every share."""
    from scipy.stats import beta

    if not 0 <= successes <= trials or trials < 1:
        raise ValueError(f"{successes} of {trials} is not a share")
    tail = (1.0 - confidence) / 2.0
    lower = 0.0 if successes == 0 else float(beta.ppf(tail, successes, trials - successes + 1))
    upper = 1.0 if successes == trials else float(beta.ppf(1.0 - tail, successes + 1, trials - successes))
    return lower, upper


@dataclass(frozen=True)
class RobustnessAt:
    """What is known at one radius about n inputs, of which `certified + falsified + open` are classified correctly.

    certified counts rigorous and float64 proofs; certified_checked the rigorous ones alone; trusted those that
    rest on a solver's word and therefore count as open.
    """

    epsilon: float
    certified: int
    falsified: int
    open: int
    certified_checked: int
    trusted: int
    certified_accuracy: float
    certified_accuracy_ci95: tuple[float, float]
    attack_accuracy: float


def robustness_at(epsilon: float, brackets: Sequence[Bracket], inputs: int) -> RobustnessAt:
    """Return the counts at a radius from the brackets of the correctly classified ones of `inputs` inputs.

    certified accuracy <= true robust accuracy <= attack accuracy; the interval is that of the former's share.
    """
    outcomes = [bracket.at(epsilon) for bracket in brackets]
    strengths = [b.strength for b, o in zip(brackets, outcomes, strict=True) if o is Outcome.CERTIFIED]
    trusted = strengths.count(Strength.TRUSTED)
    certified = len(strengths) - trusted
    falsified = outcomes.count(Outcome.FALSIFIED)
    return RobustnessAt(
        epsilon=epsilon,
        certified=certified,
        falsified=falsified,
        open=len(brackets) - certified - falsified,
        certified_checked=strengths.count(Strength.CHECKED),
        trusted=trusted,
        certified_accuracy=certified / inputs,
        certified_accuracy_ci95=clopper_pearson(certified, inputs),
        attack_accuracy=(len(brackets) - falsified) / inputs,
    )
