"""Membership in balls is exact at their edge, and properties keep the ball that cuts their box."""

import pytest
import torch

from encoders.norm_ball import NormBall
from encoders.property import Property
from encoders.questions import robust


def values(*numbers: float) -> torch.Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


@pytest.mark.parametrize(
    ("norm", "inside", "outside"),
    [
        ("2", (3.0, 4.0), (3.0, 4.000000000000001)),
        ("1", (2.0, 3.0), (2.0, 3.0000000000000004)),
        # Squares that float64 loses.
        ("2", (5.0, 1e-200), (5.0, 1.0)),
    ],
)
def test_the_edge_belongs_to_the_ball_and_nothing_beyond_it(norm, inside, outside):
    ball = NormBall(values(0.0, 0.0), 5.0, norm)
    assert ball.contains(values(*inside)) is (inside != (5.0, 1e-200))
    assert not ball.contains(values(*outside))
    assert ball.shaped((2, 1)).contains(values(3.0, 1.0)[:, None])


@pytest.mark.parametrize(
    ("centre", "radius", "norm"),
    [
        (values(0.0), 1.0, "inf"), (values(0.0).float(), 1.0, "2"), (values(float("nan")), 1.0, "2"),
        (values(0.0), -1.0, "1"), (values(0.0), float("inf"), "2"), (values(0.0), float("nan"), "2"),
    ],
)  # fmt: skip
def test_what_is_no_ball_is_refused(centre, radius, norm):
    with pytest.raises(ValueError, match=r"ball|radius"):
        NormBall(centre, radius, norm)


def test_a_property_is_about_the_part_of_its_box_in_the_ball():
    asked = robust([0.5, 0.5], 0.5, 0, 2, domain=(0.0, 0.75), norm="2")
    assert asked.ball is not None and asked.upper.tolist() == [0.75, 0.75] and asked.lower.tolist() == [0.0, 0.0]
    unsafe = values(0.0, 1.0)
    assert asked.contains(values(0.75, 0.5), unsafe) and asked.contains(values(0.0, 0.5), unsafe)
    assert not asked.contains(values(0.0, 0.0), unsafe) and not asked.contains(values(0.8, 0.5), unsafe)
    shaped = asked.shaped((2, 1), 2)
    assert shaped.ball is not None and shaped.ball.centre.shape == (2, 1)
    with pytest.raises(ValueError, match="one radius"):
        robust([0.5, 0.5], [0.5, 0.1], 0, 2, norm="1")
    with pytest.raises(ValueError, match="centre of the ball"):
        Property(values(0.0), values(1.0), (), ball=NormBall(values(2.0), 1.0, "2"))
