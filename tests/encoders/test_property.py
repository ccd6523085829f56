"""Properties: what they refuse, and that membership is decided on what was written, without tolerance."""

from fractions import Fraction

import numpy as np
import pytest
import torch

from encoders.property import Halfspaces, Property
from encoders.questions import always_largest, never_largest, output_within, robust

# The float64 next to .1 is above it: 0.1000000000000000055...
TENTH = Fraction(1, 10)


def values(*numbers: float) -> torch.Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


def at_most(*row: float, offset: float = 0.0) -> Halfspaces:
    """Return the halfspace row y <= offset."""
    return Halfspaces(values(*row)[None], values(offset))


def test_a_polyhedron_holds_the_outputs_that_satisfy_every_row() -> None:
    # y_0 <= 1 and y_1 - y_0 <= 0.
    corner = Halfspaces(torch.tensor([[1.0, 0.0], [-1.0, 1.0]], dtype=torch.float64), values(1.0, 0.0))
    assert corner.contains(values(1.0, 1.0)) and corner.contains(values(-2.0, -5.0))
    assert not corner.contains(values(2.0, 0.0)) and not corner.contains(values(0.0, 0.5))


def test_membership_is_exact_where_a_float_sum_is_not() -> None:
    # 1e16 + 1 - 1e16 is 0 in float64, summed from the left.
    rows = at_most(1.0, 1.0, 1.0, offset=0.5)
    assert not rows.contains(values(1e16, 1.0, -1e16))
    assert rows.contains([Fraction(10**16), Fraction(1, 2), Fraction(-(10**16))])


def test_outputs_that_are_not_finite_lie_in_no_polyhedron() -> None:
    for bad in (float("nan"), float("inf"), -float("inf")):
        assert not at_most(1.0, 0.0).contains(values(-1.0, bad))


def test_membership_goes_by_the_offset_as_it_was_written() -> None:
    rounded_up = Halfspaces(values(1.0)[None], values(0.1), written=(TENTH,))
    assert not rounded_up.contains(values(0.1)) and rounded_up.contains([TENTH])
    assert Halfspaces(values(1.0)[None], values(0.1)).contains(values(0.1))


def test_the_edge_of_a_strict_row_is_outside() -> None:
    rows = Halfspaces(torch.eye(2, dtype=torch.float64), values(1.0, 1.0), strict=(True, False))
    assert not rows.contains(values(1.0, 1.0)) and rows.contains(values(0.5, 1.0))
    assert Property(values(0.0), values(1.0), (rows,)).strict and not Property(values(0.0), values(1.0), ()).strict


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((values(1.0), values(1.0)), "supported: .rows, outputs."),
        ((torch.zeros(0, 2, dtype=torch.float64), torch.zeros(0, dtype=torch.float64)), "at least one of each"),
        ((torch.zeros(1, 2, dtype=torch.float64), values(1.0, 2.0)), "for 1 rows"),
        ((torch.zeros(1, 2), values(1.0)), "stored in float64"),
        ((torch.full((1, 2), torch.nan, dtype=torch.float64), values(1.0)), "NaN or infinity"),
        ((torch.zeros(1, 2, dtype=torch.float64), values(torch.inf)), "NaN or infinity"),
        ((torch.zeros(1, 2, dtype=torch.float64), values(1.0), (True, False)), "2 marks of strictness"),
        ((torch.zeros(1, 2, dtype=torch.float64), values(0.0), (), (TENTH,)), "a proof would not cover it"),
        ((torch.zeros(1, 2, dtype=torch.float64), values(0.0), (), (TENTH, TENTH)), "2 written offsets"),
    ],
)
def test_a_polyhedron_that_is_none_is_refused(arguments: tuple[object, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Halfspaces(*arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("lower", "upper", "message"),
    [
        (values(0.0, 2.0), values(1.0, 1.0), "an empty box: input 1 lies between 2.0 and 1.0"),
        (values(0.0), values(torch.inf), "upper bounds of the box hold NaN or infinity"),
        (values(torch.nan), values(1.0), "lower bounds of the box hold NaN"),
        (values(0.0), values(1.0, 1.0), "one shape"),
        (values(), values(), "at least one coordinate"),
        (torch.zeros(2), torch.ones(2), "stored in float64"),
    ],
)
def test_a_box_that_is_none_is_refused(lower: torch.Tensor, upper: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Property(lower, upper, ())


def test_a_property_is_about_one_number_of_outputs() -> None:
    with pytest.raises(ValueError, match="over 1 and over 2 outputs"):
        Property(values(0.0), values(1.0), (at_most(1.0), at_most(1.0, 0.0)))
    with pytest.raises(ValueError, match="outside the box"):
        Property(values(0.0), values(1.0), (), inner=(values(0.0), values(2.0)))


def test_a_counterexample_lies_in_the_box_and_in_any_polyhedron() -> None:
    asked = Property(values(0.0, 0.0), values(1.0, 1.0), (at_most(1.0, 0.0), at_most(0.0, 1.0, offset=-1.0)))
    assert asked.contains(values(0.0, 1.0), values(0.0, 5.0)) and asked.contains(values(0.5, 0.5), values(3.0, -1.0))
    assert not asked.contains(values(0.5, 0.5), values(3.0, 3.0))
    assert not asked.contains(values(0.5, np.nextafter(1.0, 2.0)), values(0.0, 0.0))
    # float32 inputs are compared as they are: float32's .1 is above float64's.
    narrow = Property(values(0.0), values(0.1), (at_most(1.0),))
    assert not narrow.contains(torch.tensor([0.1]), values(0.0)) and narrow.contains(values(0.1), values(0.0))


def test_a_witness_stays_in_the_inner_box() -> None:
    outward = Property(values(0.0), values(0.1), (at_most(1.0),), inner=(values(0.0), values(np.nextafter(0.1, 0.0))))
    assert not outward.contains(values(0.1), values(0.0))
    assert outward.contains(values(np.nextafter(0.1, 0.0)), values(0.0))


def test_shaped_takes_the_shape_of_the_network() -> None:
    flat = Property(values(0.0, 1.0, 2.0, 3.0), values(4.0, 5.0, 6.0, 7.0), (at_most(1.0),), inner=None)
    shaped = flat.shaped((1, 2, 2), 1)
    assert shaped.lower.shape == (1, 2, 2) and float(shaped.lower[0, 1, 0]) == 2.0
    with pytest.raises(ValueError, match="is about 4 inputs and 1 outputs, the network has 3 and 1"):
        flat.shaped((3,), 1)
    with pytest.raises(ValueError, match="the network has 4 and 2"):
        flat.shaped((4,), 2)


def winners(y: torch.Tensor) -> set[int]:
    return {int(i) for i in (y == y.max()).nonzero()}


def test_questions_agree_with_their_definitions_on_random_outputs() -> None:
    generator = torch.Generator().manual_seed(0)
    zero = torch.zeros(1, dtype=torch.float64)
    for _ in range(200):
        outputs = int(torch.randint(2, 5, (1,), generator=generator))
        # Whole numbers, so that ties are common.
        y = torch.randint(-2, 3, (outputs,), generator=generator).double()
        label = int(torch.randint(0, outputs, (1,), generator=generator))
        assert always_largest(zero, zero, label, outputs).contains(zero, y) == (winners(y) != {label})
        assert robust(zero, 0.0, label, outputs).contains(zero, y) == (winners(y) != {label})
        assert never_largest(zero, zero, label, outputs).contains(zero, y) == (label in winners(y))
        ends = [-1.0] * outputs, [torch.inf] + [1.0] * (outputs - 1)
        inside = all(low < value < high for value, low, high in zip(y.tolist(), *ends, strict=True))
        assert output_within(zero, zero, *ends).contains(zero, y) == (not inside)


def test_the_question_of_classes_is_recognised() -> None:
    box = [0.0, 0.0], [1.0, 1.0]
    assert always_largest(*box, 2, 5).reference_class == 2 and robust([0.0], 0.1, 0, 2).reference_class == 0
    assert never_largest(*box, 2, 5).reference_class is None and output_within(*box, [0], [1]).reference_class is None
    assert Property(values(0.0), values(1.0), always_largest(*box, 2, 5).unsafe[1:]).reference_class is None
    twice = always_largest(*box, 2, 3).unsafe[:1] * 2
    assert Property(values(0.0), values(1.0), twice).reference_class is None
    assert Property(values(0.0), values(1.0), ()).reference_class is None
    for row, offset in (((1.0, -1.0), 1.0), ((2.0, -1.0), 0.0), ((1.0, 1.0), 0.0), ((1.0, 0.0), 0.0)):
        assert Property(values(0.0), values(1.0), (at_most(*row, offset=offset),)).reference_class is None
    assert Property(values(0.0), values(1.0), (at_most(-0.5, 0.5),)).reference_class == 1
    assert Property(values(0.0), values(1.0), (at_most(1.0),)).reference_class is None


def test_the_ball_is_held_and_its_witnesses_lie_within_it() -> None:
    asked = robust(np.array([[0.1, 0.5]], dtype=np.float32), 0.3, 0, 2, domain=(0.0, 0.7))
    middle = [Fraction(float(np.float32(0.1))), Fraction(1, 2)]
    radius, (least, greatest) = Fraction(0.3), asked.witness_box
    for i, centre in enumerate(middle):
        below, above = max(centre - radius, Fraction(0)), min(centre + radius, Fraction(0.7))
        assert Fraction(float(asked.lower[0, i])) <= below <= Fraction(float(least[0, i]))
        assert Fraction(float(asked.upper[0, i])) >= above >= Fraction(float(greatest[0, i]))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: robust([0.0], -1.0, 0, 2), "not negative"),
        (lambda: robust([0.0], torch.inf, 0, 2), "finite number"),
        (lambda: robust([2.0], 0.1, 0, 2, domain=(0.0, 1.0)), "outside the domain"),
        (lambda: always_largest([0.0], [1.0], 3, 3), "class 3 of 3 outputs"),
        (lambda: never_largest([0.0], [1.0], 0, 1), "two at least"),
        (lambda: output_within([0.0], [1.0], [0.0], [1.0, 2.0]), "as many below as above"),
    ],
)
def test_a_question_that_is_none_is_refused(call: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()  # type: ignore[operator]
