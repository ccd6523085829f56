"""The law of the view `exact`: y = op(x) fits the rows with whole binaries, in exact arithmetic, and little else does.

Which binaries are right is read off the rows themselves: a binary of a window names the cell that its row compares, one
of a curve the part of the range that its two rows allow.
"""

import math
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import mpmath
import numpy as np
import pytest
import torch

from encoders.box import Box
from encoders.ops import Abs, BatchNorm, Curve, LeakyRelu, MaxPool2d, Op, Relu, Sigmoid, Tanh
from encoders.views.exact_window import exact_window
from encoders.views.relaxation import Relaxation, sum_up
from tests.conformance.op_boxes import MAGNITUDES, boxes_of, points_of
from tests.conformance.op_cases import CASES, Case
from tests.oracles.op_values import PRECISION, exact_numbers, exact_value, number_for

F64 = torch.float64
CHECKED = 3
POINTS = 6
# The gap of a curve with four times the segments, as a share: a sixteenth in the limit.
FALL = 0.35
WITH_EXACT = [
    pytest.param(case, id=f"{kind}-{i}")
    for kind, cases in CASES.items()
    for i, case in enumerate(cases)
    if "exact" in case.op.views() and not kind.startswith("mwd")
]
CURVES: tuple[Op, ...] = (Sigmoid(), Tanh())


@pytest.fixture(autouse=True)
def _precision() -> Iterator[None]:
    with mpmath.workprec(PRECISION):
        yield


def entries(found: Relaxation, row: int) -> dict[int, float]:
    part = slice(found.matrix.indptr[row], found.matrix.indptr[row + 1])
    return dict(zip(found.matrix.indices[part].tolist(), found.matrix.data[part].tolist(), strict=True))


def right_columns(op: Op, found: Relaxation, x: list[Any], y: list[Any]) -> list[Any]:
    """Return auxiliary values and binaries that belong to the values x and y."""
    first = found.matrix.shape[1] - found.binaries
    rows = [entries(found, i) for i in range(found.matrix.shape[0])]
    if isinstance(op, Relu | LeakyRelu | Abs):
        # Rows x - y - M b >= -M come one for each binary.
        units = {max(row): min(row) for row in rows if max(row) >= first}
        return [int(x[units[first + k]] >= 0) for k in range(found.binaries)]
    if isinstance(op, MaxPool2d):
        cells = {max(row): sorted(row)[:2] for row in rows if len(row) == 3 and min(row) < len(x) <= sorted(row)[1]}
        binaries, done = [], set()
        for k in range(found.binaries):
            place, output = cells[first + k]
            wins = output not in done and x[place] == y[output - len(x)]
            done |= {output} if wins else set()
            binaries.append(int(wins))
        return binaries
    count = found.binaries
    auxiliary: list[Any] = [0] * count
    binaries, done = [], set()
    ends: dict[int, list[float]] = {k: [math.nan, math.nan] for k in range(count)}
    unit_of = {}
    for i, row in enumerate(rows):
        if len(row) == 2 and min(row) >= 2 * len(x):
            if found.upper[i] == 0.0 or found.lower[i] == 0.0:
                ends[max(row) - first][int(found.lower[i] != 0.0)] = -row[max(row)]
        elif min(row) < len(x) and max(row) >= 2 * len(x):
            unit_of |= {column - 2 * len(x): min(row) for column in row if column >= 2 * len(x)}
    for k in range(count):
        unit = unit_of[k]
        inside = unit not in done and ends[k][0] <= x[unit] <= ends[k][1]
        done |= {unit} if inside else set()
        binaries.append(int(inside))
        auxiliary[k] = x[unit] if inside else 0
    return [*auxiliary, *binaries]


def assert_fits(op: Op, found: Relaxation, x: list[Any], y: list[Any], number: Any) -> None:
    """Check in exact arithmetic that every row holds with the right binaries."""
    values = [*x, *y, *right_columns(op, found, x, y)]
    assert found.matrix.shape == (len(found.lower), len(values))
    ends = np.zeros((2, 0)) if found.auxiliary is None else np.array(found.auxiliary)
    for low, high, value in zip(*ends.tolist(), values[len(x) + len(y) :], strict=False):
        assert low <= value <= high
    for i in range(len(found.lower)):
        total = sum((number(a) * values[j] for j, a in entries(found, i).items()), start=number(0.0))
        assert found.lower[i] == -np.inf or total >= number(float(found.lower[i])), (i, "below")
        assert found.upper[i] == np.inf or total <= number(float(found.upper[i])), (i, "above")


@pytest.mark.parametrize("case", WITH_EXACT)
@pytest.mark.parametrize("magnitude", MAGNITUDES)
def test_every_value_of_the_op_fits_the_rows(case: Case, magnitude: str) -> None:
    number = number_for(case.op)
    boxes = boxes_of(case, magnitude, seed=401)
    for index in range(CHECKED):
        box = tuple(part[index : index + 1] for part in boxes)
        for segments in (1, 3) if isinstance(case.op, Sigmoid | Tanh | Curve) else (1,):
            found = case.op.exact(*box, segments=segments)
            if not np.isfinite(found.matrix.data).all():
                continue  # a constant that overflows: no model is made of such rows
            kink = tuple(torch.zeros_like(part.lower).clamp(part.lower, part.upper) for part in box)
            for x in [*points_of(box, POINTS, seed=402), kink]:
                exact = tuple(exact_numbers(part[0], number) for part in x)
                y = np.asarray(exact_value(case.op, exact, number)).reshape(-1).tolist()
                assert_fits(case.op, found, [v for part in exact for v in part.reshape(-1).tolist()], y, number)


@pytest.mark.parametrize("left", [0.49, 0.3, 0.01, 0.1, 0.7, 0.9999999])
def test_switched_rows_cut_off_no_end_of_the_box(left: float) -> None:
    """The constants are at least (left - 1) l and (1 - left) u in rationals, for slopes whose difference is rounded."""
    box = Box(-torch.rand(1, 400, dtype=F64, generator=torch.Generator().manual_seed(1)), torch.ones(1, 400, dtype=F64))
    found = LeakyRelu(left).exact(box)
    assert found.binaries == 400 and found.gap == 0.0
    for unit, low in enumerate(box.lower[0].tolist()):
        column = found.matrix[:, [800 + unit]].toarray().ravel()
        right, other = -min(column), max(column)
        assert Fraction(right) >= (Fraction(left) - 1) * Fraction(low)
        assert Fraction(other) >= (1 - Fraction(left))
        assert right <= (left - 1.0) * low * (1 + 1e-15) and other <= (1 - left) * (1 + 1e-15)


def test_only_cells_that_can_still_win_get_a_binary() -> None:
    # Window 1: cell 0 always wins. 2: cells 0 and 2 overlap, cell 1 is below both. 3: a tie of two points.
    lower = np.array([5.0, 0.0, 1.0, 0.0, -9.0, 1.0, 2.0, 2.0, 1.0])
    upper = np.array([6.0, 5.0, 2.0, 3.0, 1.0, 2.0, 2.0, 2.0, 1.5])
    found = exact_window(lower, upper, np.arange(9).reshape(3, 3))
    assert found.binaries == 2
    # Equations of windows 1 and 3, two rows for each of two cells, and three rows of the open window.
    assert found.matrix.shape == (2 + 4 + 3, 9 + 3 + 2)
    # y <= x_3 + (2 - 0) (1 - b), y <= x_5 + (3 - 1) (1 - b), constants rounded up.
    assert (-found.lower[4:6]).tolist() == pytest.approx([2.0, 2.0]) and (-found.lower[4:6] >= 2.0).all()


def test_signs_that_are_known_get_no_binary() -> None:
    box = Box(torch.tensor([[0.0, -1.0, -1.0]], dtype=F64), torch.tensor([[1.0, 0.0, 1.0]], dtype=F64))
    assert [op.exact(box).binaries for op in (Relu(), LeakyRelu(0.1), Abs())] == [1, 1, 1]


def test_a_directed_sum_is_at_least_the_exact_one_and_at_most_a_few_floats_above() -> None:
    values = np.random.default_rng(3).normal(size=(200, 9)) * 10.0 ** np.random.default_rng(4).uniform(-9, 9, (200, 9))
    for bound, row in zip(sum_up(values).tolist(), values.tolist(), strict=True):
        exact = sum(map(Fraction, row), start=Fraction(0))
        assert exact <= Fraction(bound) <= exact + Fraction(1e-14) * sum(map(abs, map(Fraction, row)))
    with_infinity = np.array([[1.0, -np.inf], [1e308, 1e308], [-1e308, -1e308]])
    assert sum_up(with_infinity).tolist() == [np.inf, np.inf, -float(np.finfo(float).max)]


@pytest.mark.parametrize("op", CURVES, ids=["sigmoid", "tanh"])
def test_the_gap_of_a_curve_holds_is_attained_and_falls(op: Op) -> None:
    generator = torch.Generator().manual_seed(5)
    lower = 6.0 * torch.randn(1, 40, generator=generator, dtype=F64)
    box = Box(lower, lower + 8.0 * torch.rand(1, 40, generator=generator, dtype=F64))
    found = {segments: op.exact(box, segments=segments) for segments in (1, 2, 4, 8, 16, 32)}
    gaps = {segments: made.gap for segments, made in found.items()}
    assert found[1].binaries == 0 and 0 < found[2].binaries <= 80
    for segments in (1, 2, 4, 8):
        assert gaps[4 * segments] <= FALL * gaps[segments]
    assert gaps[2] < gaps[1] and gaps[32] < 5e-3
    # Units that are flat where they live need fewer parts than the bent ones.
    assert found[8].binaries < 0.5 * 8 * 40


def test_a_unit_that_is_cut_lies_in_one_of_its_parts() -> None:
    """Without the sum of its binaries x = y = 0 would fit in no part at all, where the sigmoid of 0 is 1/2."""
    found = Sigmoid().exact(Box(-torch.ones(1, 1, dtype=F64), torch.ones(1, 1, dtype=F64)), segments=3)
    nothing = np.zeros(found.matrix.shape[1])
    assert found.binaries == 3
    assert (found.matrix @ nothing < found.lower).any() or (found.matrix @ nothing > found.upper).any()


def test_a_unit_whose_range_is_a_point_or_all_numbers_is_not_cut() -> None:
    lower = torch.tensor([[0.3, -math.inf, -2.0]], dtype=F64)
    upper = torch.tensor([[0.3, math.inf, 2.0]], dtype=F64)
    for op in CURVES:
        found = op.exact(Box(lower, upper), segments=4)
        assert found.binaries == 4 and 1.0 <= found.gap <= 2.0 + 1e-9
        assert np.isfinite(found.matrix.data).all()
        assert op.exact(Box(lower[:, ::2], upper[:, ::2]), segments=4).gap < 0.1


def test_batch_norm_declares_its_rounding_as_a_gap() -> None:
    op = BatchNorm(*torch.rand(4, 3, dtype=F64, generator=torch.Generator().manual_seed(6)))
    found = op.exact(Box(-torch.ones(1, 3, dtype=F64), torch.ones(1, 3, dtype=F64)))
    assert 0.0 < found.gap < 1e-13 and found.binaries == 0
