"""Units of linear models: powers of two, exact both ways, and the same numbers for a model and its multiples."""

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.sparse import csr_array

from encoders.linear_model import Direction, LinearModel
from encoders.scaling import exponents, scaling_of, times_power, uniform_scaling, unit
from tests.programs.awkward_model import awkward_model

FIELDS = ("cost", "row_lower", "row_upper", "col_lower", "col_upper")


def twin(some: LinearModel, seed: int, most: int = 300) -> LinearModel:
    """Return a model in other units: columns and rows times powers of two, integer columns as they are."""
    random = np.random.default_rng(seed)
    rows, columns = random.integers(-most, most, some.rows), random.integers(-most, most, some.columns)
    columns[some.integer] = 0
    A = csr_array((times_power(some.A.data, np.repeat(rows, np.diff(some.A.indptr)) + columns[some.A.indices]),
                   some.A.indices, some.A.indptr), shape=some.A.shape)  # fmt: skip
    cost = times_power(some.cost, columns + int(random.integers(-most, most)))
    return replace(
        some, cost=cost, A=A, row_lower=times_power(some.row_lower, rows), row_upper=times_power(some.row_upper, rows),
        col_lower=times_power(some.col_lower, -columns), col_upper=times_power(some.col_upper, -columns),
    )  # fmt: skip


def same(one: LinearModel, other: LinearModel) -> bool:
    arrays = all(np.array_equal(getattr(one, name), getattr(other, name)) for name in FIELDS)
    return arrays and np.array_equal(one.A.toarray(), other.A.toarray())


def test_exponents_are_the_least_powers_of_two_above():
    assert exponents(np.array([1.0, 1.5, -2.0, 0.5, 0.0, 2.0**-1074, 1.7e308])).tolist() == [
        0,
        1,
        1,
        -1,
        0,
        -1074,
        1024,
    ]
    assert unit(0.3) == 0.5 and unit(-4.0) == 4.0 and unit(0.0) == 1.0


@pytest.mark.parametrize("seed", range(20))
def test_every_column_row_and_cost_is_of_size_one(seed):
    some = awkward_model(seed, integer=seed % 2 == 0)
    scaled = scaling_of(some).scaled(some)
    reach = np.maximum(np.abs(scaled.col_lower), np.abs(scaled.col_upper))[~some.integer]
    rows = np.abs(scaled.A.toarray()).max(axis=1)
    for sizes in (reach, rows, np.abs(scaled.cost).max(keepdims=True)):
        assert (sizes > 0.5).all() and (sizes <= 1.0).all()
    again = scaling_of(scaled)
    assert not again.rows.any() and not again.columns.any() and again.cost == 0
    assert scaled.integer.tolist() == some.integer.tolist() and scaled.direction is some.direction


@pytest.mark.parametrize("seed", range(20))
def test_a_model_and_its_twin_in_other_units_become_equal(seed):
    some = awkward_model(seed, integer=seed % 2 == 0)
    # What is always 0 takes its unit from its column.
    some = replace(some, col_lower=np.where([True, False, False, False], 0.0, some.col_lower),
                   col_upper=np.where([True, False, False, False], 0.0, some.col_upper))  # fmt: skip
    other = twin(some, seed)
    assert same(scaling_of(some).scaled(some), scaling_of(other).scaled(other))


@pytest.mark.parametrize("seed", range(20))
def test_what_is_unscaled_says_the_same_of_the_model(seed):
    random = np.random.default_rng(seed)
    some = awkward_model(seed)
    scaling = scaling_of(some)
    scaled = scaling.scaled(some)
    x, y = random.normal(size=some.columns), random.normal(size=some.rows)
    point = scaling.point(x)
    assert scaling.scaled_point(point).tolist() == x.tolist()
    # Value, rows and bounds are equal up to the order of sums, which powers of two do not change.
    assert scaling.value(float(scaled.cost @ x)) == some.cost @ point
    assert times_power(scaled.A @ x, -scaling.rows).tolist() == (some.A @ point).tolist()
    assert some.dual_bound(scaling.row_dual(y)) == scaling.value(scaled.dual_bound(y))
    zero = np.zeros(some.columns)
    refuted = replace(some, cost=zero).dual_bound(scaling.ray(y))
    assert (refuted > 0) is (replace(scaled, cost=zero).dual_bound(y) > 0)


def test_more_rows_and_another_cost_get_units_of_their_own():
    some = awkward_model(3)
    scaling = scaling_of(some)
    row = csr_array(np.array([[0.0, 2.0**60, 0.0, 2.0**-40]]))
    grown = scaling.with_rows(row)
    assert grown.rows[:-1].tolist() == scaling.rows.tolist()
    assert np.abs(grown.scaled_entries(row, some.rows)).max() == 1.0
    cost = some.cost * 2.0**70
    assert scaling.with_cost(cost).scaled_cost(cost).tolist() == scaling.scaled_cost(some.cost).tolist()


def test_ends_of_any_size_stay_ends():
    """Infinite ends stay infinite, finite ones finite, also where they leave the range of float64."""
    A = csr_array(np.array([[1e-300, 0.0], [2.0**-1074, 0.0], [1e300, 0.0]]))
    some = LinearModel(
        np.array([1e-310, 0.0]), A, np.array([-math.inf, -1.0, 1e-320]), np.array([1e300, math.inf, 1e308]),
        np.array([0.0, 0.0]), np.array([1.0, 1e-310]), Direction.OUTER,
    )  # fmt: skip
    scaled = scaling_of(some).scaled(some)
    assert np.isfinite(scaled.row_lower).tolist() == [False, True, True]
    assert np.isfinite(scaled.row_upper).tolist() == [True, False, True]
    assert scaled.A.toarray()[:, 0].tolist() == pytest.approx([1e-300 * 2.0**996, 1.0, 1e300 * 2.0**-997])
    nothing = LinearModel(
        np.zeros(1), csr_array((0, 1)), np.zeros(0), np.zeros(0), np.zeros(1), np.zeros(1), Direction.OUTER
    )
    assert same(scaling_of(nothing).scaled(nothing), nothing)


def test_a_uniform_scaling_is_another_unit_of_all_columns():
    some = awkward_model(5)
    scaling = uniform_scaling(some, 3)
    scaled = scaling.scaled(some)
    assert scaled.A.toarray().tolist() == some.A.toarray().tolist()
    assert (scaled.row_lower * 8).tolist() == some.row_lower.tolist()
    assert (scaled.col_upper * 8).tolist() == some.col_upper.tolist() and scaled.cost.tolist() == some.cost.tolist()
