"""Every outward-rounded sum contains the exact one, at all sizes of numbers."""

import itertools
import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from encoders.rounding import (
    add_down,
    add_up,
    add_with_error,
    gamma,
    next_down,
    next_up,
    tiny,
    unit_roundoff,
    widen,
)

F64 = torch.float64
MAX = torch.finfo(F64).max
# Half the largest float: sums of two do not overflow, which these functions leave to their callers.
numbers = st.floats(-MAX / 2, MAX / 2, allow_nan=False, allow_subnormal=True)


def scalar(value: float) -> Tensor:
    return torch.tensor(value, dtype=F64)


@given(numbers, numbers)
def test_two_sum_is_error_free(a: float, b: float) -> None:
    total, error = add_with_error(scalar(a), scalar(b))
    assert Fraction(float(total)) + Fraction(float(error)) == Fraction(a) + Fraction(b)
    assert float(total) == a + b


@given(numbers, numbers)
def test_directed_sums_are_the_nearest_floats_on_their_side(a: float, b: float) -> None:
    exact = Fraction(a) + Fraction(b)
    down, up = float(add_down(scalar(a), scalar(b))), float(add_up(scalar(a), scalar(b)))
    assert down <= exact <= up
    assert math.nextafter(down, math.inf) > exact
    assert math.nextafter(up, -math.inf) < exact


def test_directed_sums_by_hand() -> None:
    # 1 + 2^-60 lies between 1 and 1 + 2^-52; 1 - 2^-60 between 1 - 2^-53 and 1; 1 + 2^-52 is a float.
    one, small = torch.ones(3, dtype=F64), torch.tensor([2.0**-60, -(2.0**-60), 2.0**-52], dtype=F64)
    assert add_down(one, small).tolist() == [1.0, 1.0 - 2.0**-53, 1.0 + 2.0**-52]
    assert add_up(one, small).tolist() == [1.0 + 2.0**-52, 1.0, 1.0 + 2.0**-52]


def test_neighbours_by_hand() -> None:
    x = torch.tensor([0.0, 1.0, -1.0, MAX, math.inf], dtype=F64)
    assert next_up(x).tolist() == [5e-324, 1.0 + 2.0**-52, -1.0 + 2.0**-53, math.inf, math.inf]
    assert next_down(-x).tolist() == [-5e-324, -1.0 - 2.0**-52, 1.0 - 2.0**-53, -math.inf, -math.inf]


@given(st.floats(-MAX, MAX, allow_nan=False), st.integers(1, 64), st.floats(-1.0, 1.0))
def test_widened_ends_contain_every_value_within_the_stated_error(computed: float, ulps: int, share: float) -> None:
    lower, upper = (float(end) for end in widen(scalar(computed), scalar(computed), ulps))
    # computed = exact (1 + d), |d| <= 2 u ulps, plus an underflow of at most the smallest normal number.
    u = Fraction(1, 2**53)
    exact = Fraction(computed) / (1 + Fraction(share) * 2 * u * ulps)
    assert lower <= exact - Fraction(tiny(F64)) and exact + Fraction(tiny(F64)) <= upper
    assert lower == -math.inf or Fraction(computed) - Fraction(lower) <= abs(exact) * 5 * u * ulps + 3 * tiny(F64)


def test_ends_that_overflowed_inward_are_the_largest_float_and_outward_ones_stay() -> None:
    # An exact value above the largest float rounds to +inf: as a lower end, the largest float is right.
    inf = torch.tensor([math.inf, -math.inf], dtype=F64)
    lower, upper = widen(inf, inf, 1)
    assert lower.tolist() == [MAX * (1.0 - 2.0**-51), -math.inf]
    assert upper.tolist() == [math.inf, -MAX * (1.0 - 2.0**-51)]
    assert all(bool(end.isnan()) for end in widen(scalar(math.nan), scalar(math.nan), 1))


def test_gamma_bounds_the_product_of_its_count_of_roundings() -> None:
    for count, dtype in itertools.product((1, 2, 784, 10**6), (torch.float32, F64)):
        u = Fraction(unit_roundoff(dtype))
        if count < 1000:
            assert (1 + u) ** count - 1 <= Fraction(gamma(count, dtype)) * (1 + 4 * Fraction(1, 2**53))
        assert gamma(count, dtype) >= count * unit_roundoff(dtype)
    assert unit_roundoff(F64) == 2.0**-53 and unit_roundoff(torch.float32) == 2.0**-24


def test_gamma_refuses_counts_that_leave_no_digit() -> None:
    with pytest.raises(ValueError, match=r"8388608 roundings in torch.float32.*use float64"):
        gamma(2**23, torch.float32)
