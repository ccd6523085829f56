"""Brackets only narrow, and a contradiction is an error."""

import json
import math

import numpy as np
import pytest

from verifier.answers import Answer
from verifier.metrics import adversarial_frequency, adversarial_severity, clopper_pearson, robustness_at
from verifier.runs.stored_answer import read_answer, write_answer
from verifier.verdict import Bracket, Outcome, Strength


def test_an_end_is_decided_inclusively():
    bracket = Bracket(lower=0.1, upper=0.3)
    assert [bracket.at(e) for e in (0.1, 0.2, 0.3)] == [Outcome.CERTIFIED, Outcome.OPEN, Outcome.FALSIFIED]


def test_a_proof_beyond_a_witness_is_a_contradiction():
    with pytest.raises(ValueError, match="contradiction: interval"):
        Bracket(upper=0.2, upper_method="attack").raise_lower(0.2, "interval", Strength.CHECKED)


def test_brackets_never_widen():
    bracket = Bracket().raise_lower(0.2, "a", Strength.CHECKED)
    assert bracket.raise_lower(0.1, "b", Strength.CHECKED) == bracket == bracket.raise_lower(0.1, "b", Strength.TRUSTED)
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
        Bracket(0.0).raise_lower(0.2, "milp", Strength.TRUSTED),
        Bracket(0.0, 0.1),
    ]
    row = robustness_at(0.1, brackets, inputs=5)
    assert (row.certified, row.falsified, row.open) == (2, 1, 1)
    assert (row.certified_checked, row.trusted) == (1, 1)
    assert row.attack_accuracy == 3 / 5
    assert adversarial_frequency(0.1, brackets).upper == 2 / 4
    # The radius of the trusted one may be as small as what is proved about it.
    assert adversarial_severity(0.1, brackets, resamples=1).lower == 0.0


def test_a_solver_s_word_about_a_larger_radius_leaves_a_proof_as_strong_as_it_was():
    proved = Bracket(upper=0.4).raise_lower(0.1, "crown", Strength.CHECKED)
    bracket = proved.raise_lower(0.3, "milp", Strength.TRUSTED)
    assert (bracket.lower, bracket.lower_method, bracket.strength) == (0.1, "crown", Strength.CHECKED)
    assert [bracket.at(e) for e in (0.1, 0.2, 0.4)] == [Outcome.CERTIFIED, Outcome.OPEN, Outcome.FALSIFIED]
    assert [bracket.only_trusted_at(e) for e in (0.1, 0.2, 0.3, 0.35, 0.4)] == [False, True, True, False, False]
    assert robustness_at(0.1, [bracket], 1).certified_checked == robustness_at(0.2, [bracket], 1).trusted == 1
    # A proof that reaches as far leaves nothing to trust; one that does not leaves the trusted end.
    assert bracket.raise_lower(0.3, "exact", Strength.CHECKED) == Bracket(0.3, 0.4, "exact")
    assert bracket.raise_lower(0.2, "exact", Strength.CHECKED).trusted == 0.3


def test_a_witness_refutes_the_solver_and_cuts_the_trusted_end_down():
    trusted = Bracket(0.1).raise_lower(0.3, "milp", Strength.TRUSTED)
    cut = trusted.lower_upper(0.2, "attack")
    assert (cut.lower, cut.upper) == (0.1, 0.2) and cut.trusted == math.nextafter(0.2, 0.0)
    assert cut.at(0.2) is Outcome.FALSIFIED and not cut.only_trusted_at(0.2)
    # In the other order too: a word beyond a known witness counts up to the witness.
    assert Bracket(0.1, 0.2, upper_method="attack").raise_lower(0.3, "milp", Strength.TRUSTED) == cut
    nothing_left = Bracket().raise_lower(0.3, "milp", Strength.TRUSTED).lower_upper(0.0, "attack")
    assert nothing_left == Bracket(upper=0.0, upper_method="attack")
    with pytest.raises(ValueError, match="contradiction"):
        trusted.lower_upper(0.1, "attack")


def test_no_bracket_holds_a_trusted_lower_end_or_a_refuted_trusted_one():
    with pytest.raises(ValueError, match="solver vouches"):
        Bracket(0.2, strength=Strength.TRUSTED)
    with pytest.raises(ValueError, match="not below the witness"):
        Bracket(0.0, 0.2, trusted=0.2)
    with pytest.raises(ValueError, match="NaN"):
        Bracket(trusted=math.nan)
    assert Bracket().raise_lower(math.inf, "milp", Strength.TRUSTED).only_trusted_at(1e9)


def test_a_random_history_keeps_the_ends_in_order_and_the_lower_end_that_of_the_proofs():
    random = np.random.default_rng(0)
    for _ in range(300):
        radius = random.uniform(0.0, 1.0)
        bracket, firm, seen = Bracket(), -1.0, math.inf
        for kind, end in zip(random.integers(0, 3, size=8), random.uniform(0.0, 1.0, size=8), strict=True):
            if kind == 0:
                bracket = bracket.raise_lower(end * radius, "a", Strength.CHECKED)
                firm = max(firm, end * radius)
            elif kind == 1:
                bracket = bracket.raise_lower(end, "b", Strength.TRUSTED)
            else:
                bracket = bracket.lower_upper(radius + end, "c")
                seen = min(seen, radius + end)
            assert (bracket.lower, bracket.upper) == (firm, seen)
            assert bracket.trusted == -1.0 or bracket.lower < bracket.trusted < bracket.upper
            written = json.dumps(write_answer(Answer(bracket)), allow_nan=False)
            assert read_answer(json.loads(written)).bracket == bracket


def read_bracket(values: dict) -> Bracket:
    return read_answer(values).bracket


def test_records_of_before_trusted_ends_still_read():
    old = {"lower": 0.1, "upper": None, "lower_method": "crown", "upper_method": "", "strength": "checked"}
    assert read_bracket(old) == Bracket(0.1, lower_method="crown")
    word = old | {"lower": None, "lower_method": "milp", "strength": "trusted"}
    assert read_bracket(word) == Bracket(trusted=math.inf, trusted_method="milp")
    assert read_bracket(word | {"lower": 0.1, "upper": 0.2, "upper_method": "attack"}).at(0.1) is Outcome.OPEN
