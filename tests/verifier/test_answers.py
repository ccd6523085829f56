"""Answers about one input: what each says, and the laws of bringing several together."""

import dataclasses
import itertools
import math
import random

import pytest
import torch

from verifier.answers import Answer, Witness, merged
from verifier.certificates.certificate import Certificate
from verifier.verdict import Bracket, Outcome, Strength

METHODS = ("interval", "crown", "exact", "milp")
LATEST = ("reason", "open_units")
CASES = 500


def certificate() -> Certificate:
    """Return an object that stands for a certificate: `merge` only hands it on."""
    return object.__new__(Certificate)


def random_part(random: random.Random) -> Answer:
    """Return what one proof, one witness, one solver's word or no end at all says; only words may be wrong."""
    radius, method = random.choice((-1.0, 0.0, 0.1, 0.2, 0.49)), random.choice(METHODS)
    beyond = random.choice((0.5, 0.5000001, 0.7, 0.9))
    kind = random.randrange(4)
    if kind == 0:
        return Answer.proved(radius, method, random.choice((Strength.CHECKED, Strength.COMPUTED)), certificate())
    if kind == 1:
        return Answer.broken(Witness(torch.zeros(1), beyond, tie=False), method)
    if kind == 2:
        return Answer.proved(random.choice((0.3, 0.6, 0.8, math.inf)), method, Strength.TRUSTED)
    distance = random.choice((None, 0.3, 0.55))
    units = random.choice((None, 3, 7))
    return Answer.open(random.choice((None, "time limit", "too deep")), execution_only=distance, open_units=units)


def random_answer(seed: int) -> Answer:
    """Return several parts brought together, as methods do it."""
    generator = random.Random(seed)
    answer = Answer()
    for _ in range(generator.randrange(4)):
        answer = answer.merge(random_part(generator))
    return answer


def unnamed(answer: Answer) -> Answer:
    """Return an answer without whom a witness refuted: of several solvers one is named, by the order of merging."""
    if answer.refuted is None:
        return answer
    bracket = dataclasses.replace(answer.bracket, trusted_method="")
    return dataclasses.replace(answer, refuted=("", ""), bracket=bracket)


def ends(answer: Answer) -> tuple[float, float, float]:
    return answer.bracket.lower, answer.bracket.trusted, answer.bracket.upper


def test_merging_is_associative():
    for seed in range(CASES):
        a, b, c = (random_answer(3 * seed + i) for i in range(3))
        assert unnamed(a.merge(b).merge(c)) == unnamed(a.merge(b.merge(c))), seed


def test_merging_is_idempotent_and_nothing_is_neutral():
    for seed in range(CASES):
        a = random_answer(seed)
        assert a.merge(a) == a == a.merge(Answer()) == Answer().merge(a), seed


def test_merging_is_commutative_up_to_what_is_latest_and_the_names_of_equal_ends():
    for seed in range(CASES):
        a, b = random_answer(2 * seed), random_answer(2 * seed + 1)
        one, other = a.merge(b), b.merge(a)
        assert ends(one) == ends(other) and one.execution_only == other.execution_only, seed
        assert (one.refuted is None) is (other.refuted is None), seed
        if a.bracket.lower != b.bracket.lower:
            assert (one.certificate, one.bracket.lower_method) == (other.certificate, other.bracket.lower_method), seed
            assert one.bracket.strength == other.bracket.strength, seed
        if a.bracket.upper != b.bracket.upper:
            assert (one.witness, one.bracket.upper_method) == (other.witness, other.bracket.upper_method), seed
        for name in LATEST:
            assert {getattr(one, name), getattr(other, name)} <= {getattr(a, name), getattr(b, name)}, seed


def test_no_end_is_loosened_and_each_keeps_what_belongs_to_it():
    for seed in range(CASES):
        parts = random_answer(2 * seed), random_answer(2 * seed + 1)
        whole = parts[0].merge(parts[1])
        assert whole.bracket.lower == max(part.bracket.lower for part in parts), seed
        assert whole.bracket.upper == min(part.bracket.upper for part in parts), seed
        assert whole.bracket.trusted < whole.bracket.upper or whole.bracket.trusted == math.inf, seed
        for part in parts:
            if whole.certificate is not None and whole.certificate is part.certificate:
                assert part.bracket.lower == whole.bracket.lower, seed
            if whole.witness is not None and whole.witness is part.witness:
                assert part.distance == whole.bracket.upper == whole.distance, seed
        # A solver's word moves neither the proof nor its certificate.
        word = whole.merge(Answer.proved(0.8, "milp", Strength.TRUSTED))
        assert word.certificate is whole.certificate and word.bracket.lower == whole.bracket.lower, seed


def test_a_proof_takes_its_certificate_along_and_leaves_one_of_a_smaller_ball_behind():
    small, large = (
        Answer.proved(0.1, "exact", Strength.CHECKED, certificate=certificate()),
        Answer.proved(0.2, "crown", Strength.CHECKED),
    )
    assert small.merge(large).certificate is None and large.merge(small).certificate is None
    assert small.merge(Answer.proved(0.05, "crown", Strength.CHECKED)).certificate is small.certificate


@pytest.mark.parametrize("turned", [False, True])
def test_a_proof_of_what_is_broken_is_an_error_that_names_both(turned):
    proof, broken = (
        Answer.proved(0.3, "crown", Strength.CHECKED),
        Answer.broken(Witness(torch.zeros(1), 0.3, tie=True), "attack"),
    )
    pair = (broken, proof) if turned else (proof, broken)
    with pytest.raises(ValueError, match=r"contradiction: crown says nothing unsafe within 0.3, attack found"):
        pair[0].merge(pair[1])


@pytest.mark.parametrize("turned", [False, True])
def test_a_witness_refutes_a_solver_alone_and_names_both(turned):
    word = Answer.proved(0.8, "milp", Strength.TRUSTED)
    at_the_input = Answer.broken(Witness(torch.zeros(1), 0.0, tie=True), "attack")
    assert at_the_input.merge(word).bracket.trusted == word.merge(at_the_input).bracket.trusted == -1.0
    broken = Answer.broken(Witness(torch.zeros(1), 0.5, tie=False), "attack")
    answer = broken.merge(word) if turned else word.merge(broken)
    assert answer.refuted == ("milp", "attack")
    assert answer.bracket.lower == -1.0 and answer.bracket.trusted == math.nextafter(0.5, 0.0)


def test_an_answer_says_what_its_bracket_says_of_a_radius():
    answer = Answer.proved(0.1, "crown", Strength.CHECKED).merge(
        Answer.broken(Witness(torch.zeros(1), 0.4, tie=False), "attack")
    )
    assert [answer.at(r) for r in (0.1, 0.2, 0.4)] == [Outcome.CERTIFIED, Outcome.OPEN, Outcome.FALSIFIED]
    trusting = answer.merge(Answer.proved(0.2, "milp", Strength.TRUSTED))
    assert trusting.at(0.2) is Outcome.OPEN and trusting.vouched_safe(0.2) and not trusting.vouched_safe(0.3)
    assert Answer().distance == math.inf and answer.distance == 0.4


def test_answers_about_rows_leave_the_others_as_they_are():
    known = [Answer.open("time limit"), Answer(), Answer.proved(0.2, "crown", Strength.CHECKED)]
    after = merged(known, [2, 0], [Answer.proved(0.1, "interval", Strength.CHECKED), Answer.open(open_units=3)])
    assert after == [Answer(reason="time limit", open_units=3), Answer(), known[2]]
    assert known[0].open_units is None, "what was known before is not changed"


def test_every_order_of_the_same_findings_gives_the_same_ends():
    parts = [
        Answer.proved(0.2, "crown", Strength.CHECKED),
        Answer.proved(0.9, "milp", Strength.TRUSTED),
        Answer.broken(Witness(torch.zeros(1), 0.7, tie=False), "attack"),
        Answer.broken(Witness(torch.zeros(1), 0.5, tie=False), "exact"),
        Answer.open("time limit", execution_only=0.4),
    ]
    seen = set()
    for order in itertools.permutations(parts):
        answer = Answer()
        for part in order:
            answer = answer.merge(part)
        seen.add((ends(answer), answer.execution_only, answer.reason, answer.distance, answer.refuted is None))
    assert seen == {((0.2, math.nextafter(0.5, 0.0), 0.5), 0.4, "time limit", 0.5, False)}
    assert Bracket() == Answer().bracket
