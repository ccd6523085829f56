"""What copies of networks may be, and that they are written and read without a change."""

import pytest

from encoders.joint import Copy, Joint

FIRST = Copy("f", (2,), (0, 1), 3)
FIXED = Copy("g", (2, 1), (2, -1), 1, (0.0, 0.1))


def test_joint_outputs_are_those_of_the_copies_and_the_inputs_that_are_shown() -> None:
    joint = Joint(3, (FIRST, FIXED, FIRST), (0, 2))
    assert joint.outputs == 3 + 1 + 3 + 2 and joint.networks == ("f", "g")


def test_what_is_written_is_read_again() -> None:
    joint = Joint(3, (FIRST, FIXED), (1,))
    assert Joint.from_json(joint.to_json()) == joint


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("f", (2,), (0,), 1), "1 inputs of shape"),
        (("f", (0,), (), 1), "0 inputs"),
        (("f", (1,), (0,), 0), "0 outputs"),
        (("f", (1,), (-1,), 1), "a constant for each"),
        (("f", (1,), (0,), 1, (2.0,)), "a constant for each"),
        (("f", (1,), (-1,), 1, (float("nan"),)), "must be finite"),
    ],
)
def test_a_copy_that_is_none_is_refused(arguments: tuple[object, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Copy(*arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("joint", [(1, (FIRST,)), (2, ()), (2, (FIRST,), (2,)), (2, (FIRST,), (-1,))])
def test_coordinates_that_are_not_there_are_refused(joint: tuple[object, ...]) -> None:
    with pytest.raises(ValueError, match="other coordinates than 0 to"):
        Joint(*joint)  # type: ignore[arg-type]
