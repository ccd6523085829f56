"""The words for what a stopped search knows of the margin: never above what is true."""

import math
import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from encoders.box import Box
from encoders.ops import Affine
from encoders.region import BallRegion
from tests.networks.chains import chain, random_relu_network
from tests.oracles.polygons import least_margin
from tests.seeds import seeds
from verifier.bounds.inputs.search import decide_box
from verifier.bounds.margin_known import margin_known
from verifier.bounds.split.search import decide_ball
from verifier.budget import Budget
from verifier.certificates.conjunctions import Conjunctions

# By how much ascent's bounds in float32 may be wrong: a hundred roundings of values of size 10.
FLOAT32 = 1e-4
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


@pytest.mark.parametrize("seed", seeds(4, 200))
def test_a_search_that_is_stopped_states_a_lower_end_of_the_exact_margin(seed: int) -> None:
    network = random_relu_network(seed, (2, 10, 8, 3)).cast(torch.float64, torch.device("cpu"))
    for winner in range(3):
        least = least_margin(network, [0.0, 0.0], [1.0, 1.0], winner)
        for most in (1, 10, 40):
            answer = decide_box(Conjunctions.of_class(network, winner), UNIT, lambda _: False, Budget(), most)
            assert answer.proved or "margin" not in answer.reason or stated(answer.reason) <= least


@pytest.mark.parametrize("seed", seeds(3, 100))
def test_a_search_over_signs_states_the_margin_in_the_units_of_the_outputs(seed: int) -> None:
    network = random_relu_network(seed, (2, 10, 8, 3)).cast(torch.float64, torch.device("cpu"))
    last = network.nodes[-1].op
    assert isinstance(last, Affine)
    ops = [node.op for node in network.nodes[:-1]]
    larger = chain((2,), *ops, Affine(last.weight * 1024, last.bias * 1024)).cast(torch.float64, torch.device("cpu"))
    ball = BallRegion(torch.full((1, 2), 0.5, dtype=torch.float64), torch.tensor([0.5], dtype=torch.float64), None)
    for winner in range(3):
        least, ends = least_margin(network, [0.0, 0.0], [1.0, 1.0], winner), []
        for each in (network, larger):
            answer = decide_ball(each, ball, winner, lambda _: False, Budget(), 1)
            if "margin" not in answer.reason:
                break
            ends.append(stated(answer.reason))
        if ends:
            assert ends[0] <= least + FLOAT32
            # Three digits of the same number.
            assert ends[1] / 1024 == pytest.approx(ends[0], rel=0.02)
