"""Halves cover their box, the last box in is the first out, and a side is divided only where it can be."""

import torch

from verifier.bounds.inputs.boxes import BoxStore, InputBoxes, chosen_sides, halves


def boxes_of(lower: list[list[float]], upper: list[list[float]]) -> InputBoxes:
    count = torch.zeros(len(lower), dtype=torch.int64)
    ends = (torch.tensor(values, dtype=torch.float64) for values in (lower, upper))
    return InputBoxes(*ends, count, -count.to(torch.float64), torch.zeros(len(lower), 2, 0))


def test_halves_share_the_middle_and_cover_the_box() -> None:
    boxes = boxes_of([[0.0, -3.0], [1.0, 5.0]], [[1.0, 1.0], [1.5, 6.0]])
    both = halves(boxes, torch.tensor([1, 0]))
    assert both.lower.tolist() == [[0.0, -3.0], [0.0, -1.0], [1.0, 5.0], [1.25, 5.0]]
    assert both.upper.tolist() == [[1.0, -1.0], [1.0, 1.0], [1.25, 6.0], [1.5, 6.0]]


def test_a_store_gives_the_newest_boxes_first_and_all_of_them() -> None:
    store = BoxStore()
    for start in (0.0, 10.0):
        store.add(boxes_of([[start + i] for i in range(3)], [[start + i + 1] for i in range(3)]))
    taken = [store.take(4).lower.flatten().tolist(), store.take(4).lower.flatten().tolist()]
    assert sorted(taken[0]) == [2.0, 10.0, 11.0, 12.0] and taken[1] == [0.0, 1.0]
    assert len(store) == 0


def test_the_side_that_moves_the_bound_is_halved_and_points_are_not() -> None:
    one = float(torch.nextafter(torch.tensor(1.0, dtype=torch.float64), torch.tensor(2.0, dtype=torch.float64)))
    boxes = boxes_of([[0.0, 0.0], [1.0, 0.0], [1.0, 2.0]], [[1.0, 1.0], [one, 1.0], [one, 2.0]])
    slopes = torch.tensor([[[0.1, 5.0]], [[1e300, 1.0]], [[1.0, 1.0]]], dtype=torch.float64)
    sides = chosen_sides(boxes, slopes, torch.ones(2, dtype=torch.float64))
    assert sides.tolist() == [[1, 1], [1, 1], [-1, -1]]


def test_sides_that_slopes_do_not_show_are_halved_by_width() -> None:
    boxes = boxes_of([[0.0, 0.0]], [[0.01, 1.0]])
    sides = chosen_sides(boxes, torch.zeros(1, 1, 2, dtype=torch.float64), torch.ones(2, dtype=torch.float64))
    assert sides.tolist() == [[1, 1]]
    nothing = torch.full((1, 1, 2), torch.nan, dtype=torch.float64)
    assert chosen_sides(boxes, nothing, torch.ones(2, dtype=torch.float64)).tolist() == [[1, 1]]
