"""How many cases of a law run by default: a few, others every day (`tests/shares.py`), and the rest with `-m slow`."""

import pytest


def seeds(default: int, count: int) -> list[object]:
    """Return the seeds 0 to count - 1 for `parametrize`, of which `default` run by default, those of the day's turn."""
    return [pytest.param(seed, marks=pytest.mark.seed(seed, default, count)) for seed in range(count)]


def few_or(few: int, many: int) -> list[object]:
    """Return a number of cases for `parametrize`, for a test that counts what happens in them: few, and slow: many."""
    return [few, pytest.param(many, marks=pytest.mark.slow)]
