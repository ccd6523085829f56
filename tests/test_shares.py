"""Every case of a large matrix has its turn, and a turn is the same wherever it is taken."""

import datetime

import pytest

from tests.seeds import seeds
from tests.shares import EVERY, MOST, runs, stride, turn_of_today, window


@pytest.mark.parametrize(("default", "count"), [(1, 1), (1, 5), (2, 5), (3, 9), (4, 6), (6, 6)])
def test_every_seed_has_its_turn_and_as_many_run_in_each(default, count):
    turns = [{n for n in range(count) if window(n, default, count, turn)} for turn in range(-(-count // default))]
    assert all(len(chosen) == default for chosen in turns)
    assert set.union(*turns) == set(range(count))


@pytest.mark.parametrize("every", [2, 3, 13])
def test_every_case_has_its_turn(every):
    turns = [{n for n in range(40) if runs(n, every, turn)} for turn in range(every)]
    assert sum(map(len, turns)) == 40 and set.union(*turns) == set(range(40))


@pytest.mark.parametrize(("cases", "every"), [(1, 1), (24, 1), (25, 2), (93, 5), (170, 11), (365, 17)])
def test_large_families_run_on_a_share(cases, every):
    assert stride("test_that_nobody_named", cases) == every and cases / every <= MOST
    assert stride(next(iter(EVERY)), 1) == 1


@pytest.mark.parametrize("seed", seeds(2, 5))
def test_a_seed_runs_by_default_in_its_turn_alone(seed, request):
    is_slow = any(request.node.iter_markers("slow"))
    assert window(seed, 2, 5, request.config.option.turn) is not is_slow


def test_a_turn_is_a_day():
    assert turn_of_today() - datetime.date(2026, 1, 1).toordinal() >= 0
