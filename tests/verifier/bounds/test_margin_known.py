"""The words for what a stopped search knows of the margin: never above what is true."""

import math
import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from encoders.box import Box
from tests.networks.chains import random_relu_network
from tests.oracles.polygons import least_margin
from tests.seeds import seeds
from verifier.bounds.inputs.search import decide_box
from verifier.bounds.margin_known import margin_known
from verifier.budget import Budget
from verifier.certificates.conjunctions import Conjunctions

UNIT = Box(torch.zeros(1, 2, dtype=torch.float64), torch.ones(1, 2, dtype=torch.float64))


def stated(words: str) -> float:
    """Return the number in the words."""
    match = re.search(r"the margin is at least (\S+?)( in float32)?$", words)
    assert match is not None, words
    return float(match[1])


@given(st.floats(-1e300, 1e300))
def test_a_number_is_written_with_three_digits_and_not_above_it(least: float) -> None:
    number = stated(margin_known(least))
    if least > 0:
        assert number == 0.0
    else:
        assert number <= least and number >= least * (1 + 0.011) - 5e-324


def test_nothing_is_said_of_what_is_not_known() -> None:
    assert margin_known(-math.inf) == margin_known(math.inf) == margin_known(math.nan) == ""


@pytest.mark.parametrize("seed", seeds(10, 200))
def test_a_search_that_is_stopped_states_a_lower_end_of_the_exact_margin(seed: int) -> None:
    network = random_relu_network(seed, (2, 10, 8, 3)).cast(torch.float64, torch.device("cpu"))
    for winner in range(3):
        least = least_margin(network, [0.0, 0.0], [1.0, 1.0], winner)
        for most in (1, 10, 40):
            answer = decide_box(Conjunctions.of_class(network, winner), UNIT, lambda _: False, Budget(), most)
            assert answer.proved or "margin" not in answer.reason or stated(answer.reason) <= least
