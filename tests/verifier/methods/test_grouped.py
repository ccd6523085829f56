"""Methods asked by groups: what finds searches the shared network once, what proves looks at each group's own."""

import dataclasses

import pytest
import torch

from encoders.passes.execution_margins import handicapped
from tests.networks.batches import random_batch
from tests.networks.chains import random_relu_network
from verifier.answers import Answer
from verifier.batch import Group
from verifier.budget import Budget
from verifier.devices.parts import OUT_OF_MEMORY
from verifier.methods import METHODS
from verifier.methods.falsify import FalsifyMethod
from verifier.methods.grouped import by_groups
from verifier.methods.in_memory import bracketed
from verifier.verdict import Outcome

SIZES, RADIUS = (2, 8, 6, 3), 0.05
BLANK, TIME = Answer(), Budget()


def grouped(batch, lost: float) -> list[Group]:
    """Return a group for each class, in the network whose winner lacks `lost`."""
    found = []
    for winner in sorted(set(batch.classes.tolist())):
        places = [i for i, c in enumerate(batch.classes.tolist()) if c == winner]
        errors = torch.full((3,), lost / 2, dtype=torch.float64)
        subject = dataclasses.replace(batch.subject, network=handicapped(batch.subject.network, winner, errors))
        mine = dataclasses.replace(batch.at(torch.tensor(places)), subject=subject)
        found.append(Group(tuple(places), mine, tuple(errors.tolist())))
    return found


def brackets(method, batch) -> list[tuple[float, float]]:
    answers = method.bracket(batch, [RADIUS], [BLANK] * len(batch), TIME)
    return [(answer.bracket.lower, answer.bracket.upper) for answer in answers]


def test_one_group_of_the_shared_batch_is_the_method_itself():
    batch = random_batch(random_relu_network(0, SIZES), 6, 0)
    assert by_groups(METHODS["auto"], [Group(tuple(range(6)), batch)], batch) is METHODS["auto"]


def test_proofs_are_those_of_each_group_and_of_both_decide_and_bracket():
    batch = random_batch(random_relu_network(1, SIZES), 30, 1)
    groups = grouped(batch, 0.05)
    method = by_groups(METHODS["crown"], groups, batch)
    expected = {}
    for group in groups:
        alone = METHODS["crown"].bracket(group.batch, [RADIUS], [BLANK] * len(group.places), TIME)
        expected |= dict(zip(group.places, alone, strict=True))
    found = method.bracket(batch, [RADIUS], [BLANK] * len(batch), TIME)
    assert [a.bracket for a in found] == [expected[i].bracket for i in range(len(batch))]
    decided = method.decide(batch, batch.region(RADIUS), TIME)
    assert [a.bracket.lower >= RADIUS for a in decided] == [a.bracket.lower >= RADIUS for a in found]
    plain = METHODS["crown"].bracket(batch, [RADIUS], [BLANK] * len(batch), TIME)
    assert sum(a.bracket.lower >= RADIUS for a in found) < sum(a.bracket.lower >= RADIUS for a in plain)


def test_what_finds_is_asked_once_about_the_shared_network(monkeypatch):
    asked = []
    bracket = FalsifyMethod.bracket

    def noted(self, batch, *others):
        asked.append((batch.subject.network, len(batch)))
        return bracket(self, batch, *others)

    monkeypatch.setattr(FalsifyMethod, "bracket", noted)
    batch = random_batch(random_relu_network(2, SIZES), 30, 2)
    groups = grouped(batch, 1e-5)
    assert len(groups) > 1
    found = brackets(by_groups(METHODS["auto"], groups, batch), batch)
    assert asked == [(batch.subject.network, 30)]
    # Of such groups all is decided as of the shared network.
    alone = METHODS["auto"].bracket(batch, [RADIUS], [BLANK] * len(batch), TIME)
    sides = [answer.bracket.lower >= RADIUS for answer in alone]
    assert [lower >= RADIUS for lower, _ in found] == sides and any(sides) and not all(sides)


def test_inputs_with_points_that_the_model_alone_breaks_are_asked_about_again_in_their_groups():
    batch = random_batch(random_relu_network(3, SIZES), 12, 3)
    groups, asked = grouped(batch, 0.01), []

    class Finder(FalsifyMethod):
        def bracket(self, part, epsilons, answers, budget):
            asked.append((part.subject is batch.subject, part.seeds))
            noted = Answer.open(execution_only=0.01)
            return [a.merge(noted) if seed % 3 == 0 else a for a, seed in zip(answers, part.seeds, strict=True)]

    found = by_groups(Finder("attack", []), groups, batch).bracket(batch, [RADIUS], [BLANK] * 12, TIME)
    assert [a.execution_only for a in found] == [0.01 if i % 3 == 0 else None for i in range(12)]
    assert asked[0] == (True, tuple(range(12))) and not any(shared for shared, _ in asked[1:])
    assert sorted(seed for _, seeds in asked[1:] for seed in seeds) == [0, 3, 6, 9]


def test_groups_share_the_time_by_their_open_inputs():
    batch = random_batch(random_relu_network(4, SIZES), 30, 4)
    groups, shares = grouped(batch, 0.01), []

    class Watched(type(METHODS["crown"])):
        def bracket(self, part, epsilons, answers, budget):
            shares.append((len(part), budget.seconds))
            return list(answers)

    by_groups(Watched("crown"), groups, batch).bracket(batch, [RADIUS], [BLANK] * len(batch), Budget(300.0))
    # What a group leaves is for those after it.
    left = 30
    for size, seconds in shares:
        assert 0.99 * 300.0 * size / left <= seconds <= 300.0 * size / left
        left -= size
    assert len(shares) > 1 and left == 0


@pytest.mark.parametrize("name", ["crown", "attack"])
def test_a_memory_that_is_full_leaves_inputs_open_and_a_part_of_the_batch_is_refused(name, monkeypatch):
    """After halving, places would be those of other inputs, which would get proofs that are not theirs."""
    batch = random_batch(random_relu_network(0, SIZES), 6, 0)
    groups = grouped(batch, 0.1)
    assert len(groups) > 1
    asked = METHODS["crown"] if name == "crown" else next(s for s in METHODS["auto"].stages if s.name == "attack")
    method = by_groups(asked, groups, batch)
    whole = bracketed(method, batch, [RADIUS], [BLANK] * 6, TIME)
    part = batch.at(torch.arange(3, 6))
    with pytest.raises(ValueError, match="asked about"):
        method.bracket(part, [RADIUS], [BLANK] * 3, TIME)
    with pytest.raises(ValueError, match="asked about"):
        method.decide(part, part.region(torch.full((3,), RADIUS, dtype=torch.float64)), TIME)
    full = groups[1].batch if name == "crown" else batch
    at = type(full).at

    def once(self, rows):
        if self is full:
            monkeypatch.setattr(type(full), "at", at)
            raise torch.OutOfMemoryError
        return at(self, rows)

    monkeypatch.setattr(type(full), "at", once)
    lacking = bracketed(method, batch, [RADIUS], [BLANK] * 6, TIME)
    left = set(groups[1].places) if name == "crown" else set(range(6))
    for place, (before, after) in enumerate(zip(whole, lacking, strict=True)):
        if place in left:
            assert after.at(RADIUS) is Outcome.OPEN and after.reason == OUT_OF_MEMORY
        else:
            assert after.bracket == before.bracket
