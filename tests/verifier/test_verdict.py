"""Brackets only narrow, and a contradiction is an error."""

import math

import pytest

from verifier.metrics import clopper_pearson, robustness_at
from verifier.verdict import Bracket, Outcome, Strength


def test_an_end_is_decided_inclusively():
    bracket = Bracket(lower=0.1, upper=0.3)
    assert [bracket.at(e) for e in (0.1, 0.2, 0.3)] == [Outcome.CERTIFIED, Outcome.OPEN, Outcome.FALSIFIED]


def test_a_proof_beyond_a_witness_is_a_contradiction():
    with pytest.raises(ValueError, match="contradiction: interval"):
        Bracket(upper=0.2, upper_method="attack").raise_lower(0.2, "interval", Strength.CHECKED)


def test_brackets_never_widen():
    bracket = Bracket().raise_lower(0.2, "a", Strength.CHECKED).raise_lower(0.1, "b", Strength.TRUSTED)
    assert (bracket.lower, bracket.lower_method, bracket.strength) == (0.2, "a", Strength.CHECKED)
    assert bracket.lower_upper(0.5, "x").lower_upper(0.6, "y").upper == 0.5


def test_an_input_that_ties_itself_has_upper_zero_and_no_lower_end():
    bracket = Bracket().lower_upper(0.0, "attack")
    assert bracket.at(0.0) is Outcome.FALSIFIED


def test_the_whole_domain_may_be_safe():
    assert Bracket().raise_lower(math.inf, "interval", Strength.CHECKED).at(1e9) is Outcome.CERTIFIED


def test_clopper_pearson_agrees_with_its_definition():
    from scipy.stats import binom

    for successes, trials in ((0, 10), (3, 10), (10, 10), (497, 1000)):
        low, high = clopper_pearson(successes, trials)
        if successes:
            assert binom.sf(successes - 1, trials, low) == pytest.approx(0.025)
        if successes < trials:
            assert binom.cdf(successes, trials, high) == pytest.approx(0.025)


def test_a_trusted_proof_counts_as_open():
    brackets = [
        Bracket(0.2),
        Bracket(0.2, strength=Strength.COMPUTED),
        Bracket(0.2, strength=Strength.TRUSTED),
        Bracket(0.0, 0.1),
    ]
    row = robustness_at(0.1, brackets, inputs=5)
    assert (row.certified, row.falsified, row.open) == (2, 1, 1)
    assert (row.certified_checked, row.trusted) == (1, 1)
    assert row.attack_accuracy == 3 / 5
