"""The law of the view `relax`: every row holds for y = op(x) and every x in the box, in exact arithmetic.

Points are corners and random ones, and for elementwise ops the kink; rows that claim nothing have infinite ends.
"""

from collections.abc import Iterator
from typing import Any

import mpmath
import numpy as np
import pytest
import torch

from encoders.box import Box
from encoders.views.relaxation import Relaxation
from tests.conformance.op_boxes import MAGNITUDES, boxes_of, points_of
from tests.conformance.op_cases import CASES, Case
from tests.oracles.op_values import PRECISION, Exact, exact_numbers, exact_value, number_for

WITH_RELAX = [
    pytest.param(case, id=f"{kind}-{i}")
    for kind, cases in CASES.items()
    for i, case in enumerate(cases)
    if "relax" in case.op.views()
]
# The first box of each batch is a point, and the others have point coordinates.
CHECKED = 3
POINTS = 6


@pytest.fixture(autouse=True)
def _precision() -> Iterator[None]:
    with mpmath.workprec(PRECISION):
        yield


def assert_rows_hold(case: Case, found: Relaxation, x: tuple[torch.Tensor, ...]) -> None:
    """Check every row at one point, x `(1, *shape)` each."""
    number = number_for(case.op)
    exact: tuple[Exact, ...] = tuple(exact_numbers(part[0], number) for part in x)
    y = exact_value(case.op, exact, number)
    values: list[Any] = [*(v for part in exact for v in part.reshape(-1).tolist()), *np.asarray(y).reshape(-1).tolist()]
    matrix = found.matrix
    assert matrix.shape == (len(found.lower), len(values))
    for i in range(matrix.shape[0]):
        part = slice(matrix.indptr[i], matrix.indptr[i + 1])
        terms = zip(matrix.data[part].tolist(), matrix.indices[part].tolist(), strict=True)
        total = sum((number(a) * values[j] for a, j in terms), start=number(0.0))
        assert found.lower[i] == -np.inf or total >= number(float(found.lower[i])), (i, "below")
        assert found.upper[i] == np.inf or total <= number(float(found.upper[i])), (i, "above")


@pytest.mark.parametrize("case", WITH_RELAX)
@pytest.mark.parametrize("magnitude", MAGNITUDES)
def test_every_row_holds_at_every_point_of_the_box(case: Case, magnitude: str) -> None:
    boxes = boxes_of(case, magnitude, seed=301)
    for index in range(CHECKED):
        box = tuple(part[index : index + 1] for part in boxes)
        found = case.op.relax(*box)
        points = list(points_of(box, POINTS, seed=302))
        kink = tuple(torch.zeros_like(part.lower).clamp(part.lower, part.upper) for part in box)
        for x in [*points, kink]:
            assert_rows_hold(case, found, x)


@pytest.mark.parametrize("case", WITH_RELAX)
def test_nested_boxes_have_one_pattern_and_their_rows_hold(case: Case) -> None:
    if len(case.shapes) > 1:
        return
    (outer,) = boxes_of(case, "ordinary", seed=303)
    outer = outer[1:2]
    whole = case.op.relax(outer)
    for share in (0.0, 0.3, 1.0):
        middle = outer.lower * (1.0 - share) + outer.upper * share
        inner = Box(torch.minimum(middle, outer.upper), outer.upper)
        found = case.op.relax(inner, around=outer)
        assert np.array_equal(found.matrix.indptr, whole.matrix.indptr)
        assert np.array_equal(found.matrix.indices, whole.matrix.indices)
        for x in points_of((inner,), POINTS, seed=304):
            assert_rows_hold(case, found, x)


@pytest.mark.parametrize("case", WITH_RELAX)
def test_affine_ops_become_equations(case: Case) -> None:
    found = case.op.relax(*(part[1:2] for part in boxes_of(case, "ordinary", seed=305)))
    if case.op.linear and case.op.kind != "batch-norm":
        assert np.array_equal(found.lower, found.upper)
