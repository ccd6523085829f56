"""Statistics over brackets: counts at a radius, certified accuracy, confidence intervals."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from verifier.verdict import Bracket, Outcome, Strength


def clopper_pearson(successes: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return the exact binomial interval for a share (Clopper and Pearson 1934), conservative at every share."""
    # beta.ppf of scipy.stats, which takes a second to import.
    from scipy.special import betaincinv

    if not 0 <= successes <= trials or trials < 1:
        raise ValueError(f"{successes} of {trials} is not a share")
    tail = (1.0 - confidence) / 2.0
    lower = 0.0 if successes == 0 else float(betaincinv(successes, trials - successes + 1, tail))
    upper = 1.0 if successes == trials else float(betaincinv(successes + 1, trials - successes, 1.0 - tail))
    return lower, upper


@dataclass(frozen=True)
class RobustnessAt:
    """What is known at one radius about n inputs, of which `certified + falsified + open` are classified correctly.

    certified counts rigorous and float64 proofs; certified_checked the rigorous ones alone; trusted those of the open
    ones that a solver says are safe. execution_only: those, certified or open, that have a point within epsilon which
    the rounding of the model's own execution alone makes unsafe.
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
    execution_only: int = 0


def robustness_at(
    epsilon: float, brackets: Sequence[Bracket], inputs: int, executed: Sequence[float | None] = ()
) -> RobustnessAt:
    """Return the counts at a radius from the brackets of the correctly classified ones of `inputs` inputs.

    certified accuracy <= true robust accuracy <= attack accuracy; the interval is that of the former's share. executed:
    for each bracket the distance of a point that is unsafe by execution only, or None; nothing for none at all.
    """
    outcomes = [bracket.at(epsilon) for bracket in brackets]
    strengths = [b.strength for b, o in zip(brackets, outcomes, strict=True) if o is Outcome.CERTIFIED]
    certified, falsified = len(strengths), outcomes.count(Outcome.FALSIFIED)
    return RobustnessAt(
        epsilon=epsilon,
        certified=certified,
        falsified=falsified,
        open=len(brackets) - certified - falsified,
        certified_checked=strengths.count(Strength.CHECKED),
        trusted=sum(bracket.only_trusted_at(epsilon) for bracket in brackets),
        certified_accuracy=certified / inputs,
        certified_accuracy_ci95=clopper_pearson(certified, inputs),
        attack_accuracy=(len(brackets) - falsified) / inputs,
        execution_only=execution_only_at(epsilon, brackets, executed or [None] * len(brackets)),
    )


def execution_only_at(epsilon: float, brackets: Sequence[Bracket], executed: Sequence[float | None]) -> int:
    """Return how many inputs the model's execution gets wrong within epsilon that are not falsified there.

    executed: by input, the distance of a point that is unsafe in the user's model and not in real arithmetic.
    """
    pairs = zip(brackets, executed, strict=True)
    return sum(d is not None and d <= epsilon and b.at(epsilon) is not Outcome.FALSIFIED for b, d in pairs)


@dataclass(frozen=True)
class Range:
    """All that a quantity can be, given brackets; None with a reason where it is undefined.

    ci95: interval that also covers the sampling of the inputs. maybe_undefined: the conditioning set may be empty.
    """

    lower: float | None
    upper: float | None
    ci95: tuple[float, float] | None
    reason: str | None = None
    maybe_undefined: bool = False


def adversarial_frequency(epsilon: float, brackets: Sequence[Bracket]) -> Range:
    """Return phi, the share of inputs whose robust radius is at most epsilon (Bastani et al. 2016, section 2).

    Between |D|/n and (|D| + |O|)/n, D: upper <= epsilon, O: open; the interval joins the Clopper-Pearson ends of both.
    """
    n = len(brackets)
    if not n:
        return Range(None, None, None, "no inputs")
    outcomes = [bracket.at(epsilon) for bracket in brackets]
    falsified, still_open = outcomes.count(Outcome.FALSIFIED), outcomes.count(Outcome.OPEN)
    most = falsified + still_open
    return Range(falsified / n, most / n, (clopper_pearson(falsified, n)[0], clopper_pearson(most, n)[1]))


def adversarial_severity(epsilon: float, brackets: Sequence[Bracket], resamples: int = 500) -> Range:
    """Return mu, the mean robust radius of the inputs where it is at most epsilon, as far as brackets tell.

    The largest value counts every open input at epsilon. The smallest starts with the lower ends over D and adds open
    inputs in rising order of theirs while that lowers the mean. The interval is a bootstrap over inputs with a fixed
    seed (2.5 % of the smallest values, 97.5 % of the largest). Undefined, not 0, where no radius can be <= epsilon.
    """
    outcomes = [bracket.at(epsilon) for bracket in brackets]
    pairs = zip(brackets, outcomes, strict=True)
    falsified = np.array([[max(b.lower, 0.0), b.upper] for b, o in pairs if o is Outcome.FALSIFIED]).reshape(-1, 2)
    still_open = np.sort([max(b.lower, 0.0) for b, o in zip(brackets, outcomes, strict=True) if o is Outcome.OPEN])
    if not len(falsified) and not len(still_open):
        return Range(None, None, None, f"no input has a robust radius of at most {epsilon:g}")
    random, n = np.random.default_rng(0), len(brackets)
    # The order of inputs is free: those found come first, the open ones next, the certified last.
    draws = [np.ones(n), *(random.multinomial(n, np.full(n, 1.0 / n)) for _ in range(resamples))]
    ends = [_severity_ends(epsilon, falsified, still_open, counts) for counts in draws]
    low, high = ends[0]
    drawn = np.array([end for end in ends[1:] if not math.isnan(end[0])]).reshape(-1, 2)
    ci95 = (float(np.quantile(drawn[:, 0], 0.025)), float(np.quantile(drawn[:, 1], 0.975))) if len(drawn) else None
    return Range(low, high, ci95, maybe_undefined=not len(falsified))


def _severity_ends(
    epsilon: float, falsified: np.ndarray, still_open: np.ndarray, counts: np.ndarray
) -> tuple[float, float]:
    """Return (smallest, largest) mean; counts: how often each input is taken, the found ones first, then the open."""
    mine, others = counts[: len(falsified)], counts[len(falsified) : len(falsified) + len(still_open)]
    taken, more = float(mine.sum()), float(others.sum())
    if taken + more == 0:
        return math.nan, math.nan
    largest = (float(mine @ falsified[:, 1]) + epsilon * more) / (taken + more)
    sums = float(mine @ falsified[:, 0]) + np.concatenate([[0.0], np.cumsum(others * still_open)])
    sizes = taken + np.concatenate([[0.0], np.cumsum(others)])
    # The running mean falls while the next lower end is below it, then rises: its minimum is that of all prefixes.
    return float((sums[sizes > 0] / sizes[sizes > 0]).min()), largest
