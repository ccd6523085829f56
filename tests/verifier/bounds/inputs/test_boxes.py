"""Halves cover their box, and the last box in is the first out."""

import torch

from verifier.bounds.inputs.boxes import BoxStore, InputBoxes, halves


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
