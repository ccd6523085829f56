"""Which side is halved: hand-computed scores, and sides that no float64 halves."""

import torch

from encoders.box import Box
from encoders.network import Network
from encoders.ops import Affine, Relu
from encoders.region import BallRegion
from encoders.views.coefficients import Coefficients
from tests.networks.chains import chain
from verifier.bounds.inputs.boxes import InputBoxes
from verifier.bounds.inputs.sides import OpenRows, best_sides
from verifier.bounds.linear.bounds import linear_bounds


def scores_on(network: Network, lower: list[float], upper: list[float]) -> torch.Tensor:
    """Return the scores of the sides of a box, where the one row is the network's one output."""
    network = network.cast(torch.float64, torch.device("cpu"))
    ends = [torch.tensor([values], dtype=torch.float64) for values in (lower, upper)]
    bounds = linear_bounds(network, BallRegion.of_box(Box(*ends)))
    seen: dict[str, Coefficients] = {}
    minimum = bounds.minimise(torch.ones(1, 1, 1, dtype=torch.float64), with_points=True, seen=seen)
    assert minimum.below is not None
    return OpenRows(bounds.passes, seen, torch.zeros(1, dtype=torch.int64), minimum.below.slopes).scores(
        InputBoxes.root(*ends)
    )


def test_gaps_are_shared_among_the_sides_by_what_these_move() -> None:
    # Units z0 = 10 x0 in [0, 10], which is linear, and z1 = x0 + 3 x1 - 2 in [-2, 2]. y = relu(z0) - 2 relu(z1). The
    # lines of unit 1, slope 0 or 1 below and 1/2 z + 1 above, lie 1 apart at z = 0; its coefficient is -2. From face to
    # face side 0 moves it by 1, side 1 by 3: scores 2 (1/4, 3/4), though y moves most along side 0.
    network = chain((2,), Affine(torch.tensor([[10.0, 0.0], [1.0, 3.0]]), torch.tensor([0.0, -2.0])), Relu(),
                    Affine(torch.tensor([[1.0, -2.0]])))  # fmt: skip
    torch.testing.assert_close(
        scores_on(network, [0.0, 0.0], [1.0, 1.0]), torch.tensor([[0.5, 1.5]], dtype=torch.float64)
    )


def test_without_gaps_sides_count_by_what_they_move_the_rows() -> None:
    network = chain((2,), Affine(torch.tensor([[1.0, -2.0]])))
    torch.testing.assert_close(
        scores_on(network, [0.0, 0.0], [4.0, 1.0]), torch.tensor([[4.0, 2.0]], dtype=torch.float64)
    )


def test_sides_without_a_middle_are_not_halved() -> None:
    one = float(torch.nextafter(torch.tensor(1.0, dtype=torch.float64), torch.tensor(2.0, dtype=torch.float64)))
    lower = torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.0, 2.0]], dtype=torch.float64)
    upper = torch.tensor([[1.0, 1.0], [one, 1.0], [one, 2.0]], dtype=torch.float64)
    boxes = InputBoxes(lower, upper, torch.zeros(3), torch.zeros(3), torch.zeros(3, 2, 0))
    scores = torch.tensor([[0.1, 5.0], [1e300, 1.0], [1.0, 1.0]], dtype=torch.float64)
    assert best_sides(boxes, scores).tolist() == [1, 1, -1]
    assert best_sides(boxes, torch.full_like(scores, torch.nan)).tolist() == [0, 1, -1]
