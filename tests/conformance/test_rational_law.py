"""The law of rational values: the value of every op in real arithmetic, against three other ways to it."""

from fractions import Fraction

import mpmath
import pytest
import torch

from encoders.ops import OPS, BatchNorm, Op
from encoders.rationals import NotEvaluated, Rationals
from tests.conformance.op_boxes import BOXES, MAGNITUDES, boxes_of
from tests.conformance.op_cases import ROWS, Case
from tests.oracles.op_values import PRECISION, exact_numbers, exact_value

F64 = torch.float64

# Ops without a rule, and those whose rule serves some settings only.
IRRATIONAL = {"sigmoid", "tanh", "curve", "softmax", "log-softmax", "mwd-conv2d"}


def apply(op, *x: Rationals) -> Rationals:
    return op.rational(*x, afford=lambda _: None)


def rational(case: Case) -> bool:
    """Return whether the case's op maps rationals to rationals."""
    gaussian = case.op.kind == "mwd" and not case.op.has_linear_link
    return case.op.kind not in {*IRRATIONAL, "batch-norm"} and not gaussian


def test_every_op_has_a_rule_or_is_named_as_irrational():
    without = {name for name, op in OPS.items() if op.rational is Op.rational}
    assert without == IRRATIONAL


@pytest.mark.parametrize("case", [row for row in ROWS if rational(row.values[0])])
@pytest.mark.parametrize("magnitude", MAGNITUDES)
def test_the_rational_value_is_that_of_fractions_and_lies_in_the_interval(case: Case, magnitude: str):
    boxes = boxes_of(case, magnitude, seed=301)
    found = apply(case.op, *(Rationals.of(box.lower) for box in boxes))
    points = [type(box).point(box.lower) for box in boxes]
    enclosure = case.op.interval(*points)
    assert found.shape == tuple(enclosure.lower.shape)
    for row in range(BOXES):
        values = Rationals(found.numerators[row : row + 1], found.denominator).values()
        expected = exact_value(case.op, tuple(exact_numbers(box.lower[row], Fraction) for box in boxes), Fraction)
        assert values == expected.reshape(-1).tolist()
        lower, upper = (end[row].flatten().tolist() for end in (enclosure.lower, enclosure.upper))
        assert all(a <= value <= b for a, value, b in zip(lower, values, upper, strict=True))


def test_batch_normalisation_is_rational_where_its_roots_are():
    # Channel 0: (x - 1) / sqrt(2.25) * 3 + 4 = 2 x + 2; channel 1: scale 0, whatever its root.
    op = BatchNorm(*(torch.tensor(v, dtype=F64) for v in ([1.0, 5.0], [2.0, 2.0], [3.0, 0.0], [4.0, 7.0])), 0.25)
    x = torch.tensor([[[0.1, -2.0], [3.0, 4.0]]], dtype=F64)
    assert apply(op, Rationals.of(x)).values() == [2 * Fraction(0.1) + 2, Fraction(-2), Fraction(7), Fraction(7)]
    # 1e-5 is no square, nor is 1 + 1e-5.
    odd = BatchNorm(*(torch.ones(1, dtype=F64) for _ in range(4)))
    with pytest.raises(NotEvaluated, match="root of a number that is no square"):
        apply(odd, Rationals.of(x[:, :1]))
    with mpmath.workprec(PRECISION):
        expected = exact_value(op, (exact_numbers(x[0], mpmath.mpf),), mpmath.mpf).reshape(-1)
        found = apply(op, Rationals.of(x)).values()
        assert all(mpmath.mpf(f.numerator) / f.denominator == e for f, e in zip(found, expected, strict=True))
