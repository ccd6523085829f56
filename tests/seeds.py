"""How many cases of a law run by default: a few, and the rest with `-m slow`."""

import pytest


def seeds(default: int, count: int) -> list[object]:
    """Return the seeds 0 to count - 1 for `parametrize`, those from `default` on marked slow."""
    return [*range(default), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(default, count))]


def few_or(few: int, many: int) -> list[object]:
    """Return a number of cases for `parametrize`, for a test that counts what happens in them: few, and slow: many."""
    return [few, pytest.param(many, marks=pytest.mark.slow)]
