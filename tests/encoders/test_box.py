"""A box refuses ends that are none, and its set operations agree with pointwise membership."""

import math

import pytest
import torch
from torch import Tensor

from encoders.box import Box

F64 = torch.float64


def ends(*rows: list[float]) -> Tensor:
    return torch.tensor(rows, dtype=F64)


@pytest.mark.parametrize(
    ("lower", "upper", "message"),
    [
        (ends([0.0]), ends([0.0, 1.0]), "differ in shape"),
        (ends([0.0]), ends([1.0]).float(), "differ in dtype"),
        (ends([0.0, 1.0]), ends([1.0, 0.5]), "lower > upper"),
        (ends([math.nan]), ends([1.0]), "NaN"),
        (ends([0.0, 0.0]), ends([1.0, math.nan]), "NaN"),
        (ends([math.inf]), ends([-math.inf]), "lower > upper"),
    ],
)
def test_ends_that_are_no_box_are_refused(lower: Tensor, upper: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Box(lower, upper)


def test_infinite_and_equal_ends_are_boxes() -> None:
    box = Box(ends([-math.inf, 0.0]), ends([math.inf, 0.0]))
    assert box.shape == (2,) and box.batch == 1 and box.dtype == F64
    assert box.contains(ends([1e308, 0.0])).tolist() == [True]
    assert Box.point(ends([1.0, 2.0])).contains(ends([1.0, 2.0])).tolist() == [True]


def test_membership_has_no_tolerance_and_includes_the_ends() -> None:
    box = Box(ends([0.0, 0.0]).expand(4, 2), ends([1.0, 1.0]).expand(4, 2))
    x = ends([0.0, 1.0], [0.5, math.nextafter(1.0, 2.0)], [-5e-324, 0.5], [0.5, math.nan])
    assert box.contains(x).tolist() == [True, False, False, False]


def test_membership_looks_at_every_axis() -> None:
    box = Box(torch.zeros(2, 2, 3, dtype=F64), torch.ones(2, 2, 3, dtype=F64))
    x = torch.full((2, 2, 3), 0.5, dtype=F64)
    x[1, 1, 2] = 2.0
    assert box.contains(x).tolist() == [True, False]


def test_scalar_values_have_boxes_too() -> None:
    box = Box(torch.tensor([0.0, 0.0]), torch.tensor([1.0, 1.0]))
    assert box.shape == ()
    assert box.contains(torch.tensor([0.5, 1.5])).tolist() == [True, False]


def test_rows_are_taken_by_mask_index_and_slice() -> None:
    box = Box(ends([0.0], [1.0], [2.0]), ends([1.0], [2.0], [3.0]))
    assert box[torch.tensor([True, False, True])].lower.tolist() == [[0.0], [2.0]]
    assert box[torch.tensor([2, 0])].upper.tolist() == [[3.0], [1.0]]
    assert box[1:].batch == 2
