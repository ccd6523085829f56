"""Questions about two inputs or two networks: what is unsafe, point by point, and what is refused."""

import math

import pytest
import torch

from encoders.questions import equal_within, monotone_in, output_changes_less_than

UNIT = ([0.0, 0.0], [1.0, 1.0])


def at(*numbers: float) -> torch.Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


def test_an_output_that_changes_by_delta_is_unsafe() -> None:
    asked = output_changes_less_than([0.5], 0.25, [1.0, math.inf], 2)
    assert asked.joint is not None and asked.joint.copies[1].constants == (0.5,)
    # Outputs at x, then at the centre.
    assert asked.contains(at(0.25), at(2.0, 0.0, 1.0, 9.0)) and asked.contains(at(0.75), at(0.0, 0.0, 1.0, 0.0))
    assert not asked.contains(at(0.5), at(1.75, 0.0, 1.0, 9.0)) and not asked.contains(at(0.8), at(2.0, 0.0, 1.0, 0.0))


def test_an_output_that_falls_by_the_slack_while_the_input_rises_is_unsafe() -> None:
    asked = monotone_in(*UNIT, coordinate=1, output=0, outputs=1, slack=0.5)
    assert asked.joint is not None and asked.joint.copies[1].places == (0, 2)
    # Inputs x_0, x_1, x'_1; outputs f(x), f(x'), then x_1 and x'_1 as they are shown.
    assert asked.contains(at(0.0, 0.25, 0.75), at(1.0, 0.5, 0.25, 0.75))
    assert not asked.contains(at(0.0, 0.25, 0.75), at(1.0, 0.75, 0.25, 0.75))
    assert not asked.contains(at(0.0, 0.75, 0.25), at(1.0, 0.5, 0.75, 0.25))
    falling = monotone_in(*UNIT, coordinate=1, output=0, outputs=1, slack=0.5, falling=True)
    assert falling.contains(at(0.0, 0.25, 0.75), at(0.5, 1.0, 0.25, 0.75))


def test_two_networks_that_differ_by_delta_are_unsafe() -> None:
    asked = equal_within(*UNIT, delta=0.5, outputs=1, second="g")
    assert asked.joint is not None and asked.joint.networks == ("f", "g")
    assert asked.contains(at(0.0, 1.0), at(1.0, 0.5)) and asked.contains(at(0.0, 1.0), at(0.5, 1.0))
    assert not asked.contains(at(0.0, 1.0), at(0.75, 1.0))


@pytest.mark.parametrize("delta", [0.0, -1.0, math.nan])
def test_a_delta_that_is_not_positive_is_refused(delta: float) -> None:
    with pytest.raises(ValueError, match="positive number for every output"):
        output_changes_less_than([0.5], 0.25, delta, 1)
    with pytest.raises(ValueError, match="slack must be a positive number"):
        monotone_in(*UNIT, coordinate=0, output=0, outputs=1, slack=delta)


@pytest.mark.parametrize(("coordinate", "output"), [(2, 0), (-1, 0), (0, 1)])
def test_an_input_or_output_that_is_not_there_is_refused(coordinate: int, output: int) -> None:
    with pytest.raises(ValueError, match="both count from 0"):
        monotone_in(*UNIT, coordinate=coordinate, output=output, outputs=1, slack=1.0)
