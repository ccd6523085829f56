"""No unsafe point is lost: half-spaces of boxes, and combinations of rows, against rational arithmetic."""

from fractions import Fraction

import numpy as np
import pytest
import torch

from encoders.property import Halfspaces
from tests.networks.chains import random_relu_network
from tests.seeds import seeds
from verifier.certificates.conjunctions import Conjunctions
from verifier.certificates.halfspaces import HalfspacesOfBox

SCALES = (1.0, 1e-300, 1e150, 1e-12)


def halfspaces_of(seed: int) -> tuple[HalfspacesOfBox, np.random.Generator]:
    """Return half-spaces of four boxes with three inputs and three rows, of sizes far apart, some of them zero."""
    rng = np.random.default_rng(seed)
    scale = SCALES[seed % len(SCALES)]
    slopes = rng.normal(size=(4, 3, 3)) * rng.choice([0.0, 1.0, 1e-8], size=(4, 3, 3), p=[0.2, 0.7, 0.1])
    ends = np.sort(rng.normal(size=(2, 4, 3)), axis=0) * scale
    ends[1, 0, 0] = ends[0, 0, 0]
    constant = rng.normal(size=(4, 3)) * scale
    made = (torch.from_numpy(values) for values in (slopes, constant, ends[0], ends[1]))
    return HalfspacesOfBox(*made), rng


def value(halfspaces: HalfspacesOfBox, box: int, row: int, point: list[Fraction]) -> Fraction:
    slopes = halfspaces.slopes[box, row].tolist()
    return sum(
        (Fraction(s) * x for s, x in zip(slopes, point, strict=True)), Fraction(halfspaces.constant[box, row].item())
    )


def points_of(halfspaces: HalfspacesOfBox, box: int, rng: np.random.Generator) -> list[list[Fraction]]:
    """Return points of a box: random ones, and corners."""
    lower, upper = halfspaces.lower[box].numpy(), halfspaces.upper[box].numpy()
    shares = np.concatenate([rng.random((60, 3)), rng.integers(0, 2, size=(20, 3))])
    return [
        [Fraction(a) + Fraction(s) * (Fraction(b) - Fraction(a)) for s, a, b in zip(share, lower, upper, strict=True)]
        for share in shares.tolist()
    ]


@pytest.mark.parametrize("seed", seeds(12, 400))
def test_what_half_spaces_leave_holds_every_point_that_they_allow(seed: int) -> None:
    halfspaces, rng = halfspaces_of(seed)
    for group in (slice(0, 1), slice(0, 3)):
        lower, upper = halfspaces.left(group)
        for box in range(4):
            for point in points_of(halfspaces, box, rng):
                if all(value(halfspaces, box, row, point) <= 0 for row in range(group.start, group.stop)):
                    ends = zip(lower[box].tolist(), point, upper[box].tolist(), strict=True)
                    assert all(Fraction(a) <= x <= Fraction(b) for a, x, b in ends)


@pytest.mark.parametrize("seed", seeds(12, 400))
def test_a_combination_of_rows_is_no_higher_than_the_worst_row_anywhere(seed: int) -> None:
    halfspaces, rng = halfspaces_of(seed)
    bounds = halfspaces.combined(slice(0, 3)).tolist()
    for box, bound in enumerate(bounds):
        for point in points_of(halfspaces, box, rng) if bound > -np.inf else ():
            assert Fraction(bound) <= max(value(halfspaces, box, row, point) for row in range(3))


def test_a_combination_refutes_what_no_row_refutes() -> None:
    # x - y + .1 <= 0 and y - x + .1 <= 0 on the unit square: each is met somewhere, both nowhere.
    slopes = torch.tensor([[[1.0, -1.0], [-1.0, 1.0]]], dtype=torch.float64)
    constant = torch.full((1, 2), 0.1, dtype=torch.float64)
    square = torch.zeros(1, 2, dtype=torch.float64), torch.ones(1, 2, dtype=torch.float64)
    halfspaces = HalfspacesOfBox(slopes, constant, *square)
    assert float(halfspaces.combined(slice(0, 1))) < 0
    assert float(halfspaces.combined(slice(0, 2))) == pytest.approx(0.1)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_numbers_that_overflowed_cut_nothing_and_refute_nothing(bad: float) -> None:
    slopes = torch.tensor([[[bad, 1.0], [0.5, bad]]], dtype=torch.float64)
    constant = torch.tensor([[-torch.inf, 1.0]], dtype=torch.float64)
    square = torch.zeros(1, 2, dtype=torch.float64), torch.ones(1, 2, dtype=torch.float64)
    halfspaces = HalfspacesOfBox(slopes, constant, *square)
    assert not bool(halfspaces.combined(slice(0, 2)) > 0)
    lower, upper = halfspaces.left(slice(0, 2))
    assert torch.equal(lower, square[0]) and torch.equal(upper, square[1])


def test_the_excess_of_a_point_says_whether_it_is_unsafe() -> None:
    network = random_relu_network(3, (2, 4, 3)).cast(torch.float64, torch.device("cpu"))
    rows = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]], dtype=torch.float64)
    unsafe = (Halfspaces(rows, torch.tensor([0.1, 0.2], dtype=torch.float64)), Halfspaces(-rows[:1], rows[0, 1:2]))
    asked = Conjunctions.of_polyhedra(network, unsafe)
    points = torch.rand(50, 2, dtype=torch.float64)
    excess = asked.excess(points)
    for point, amount in zip(points, excess.tolist(), strict=True):
        outputs = network.evaluate(point[None])[0]
        assert (amount <= 0) is any(halfspaces.contains(outputs) for halfspaces in unsafe)
