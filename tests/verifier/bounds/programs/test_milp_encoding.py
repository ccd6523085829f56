"""Programs with binaries: rows that pin the value of each op, and one least margin by HiGHS, CBC and brute force."""

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from encoders import Network, Node
from encoders.box import Box, Shape
from encoders.formulations.relax import RelaxedNetwork, encode_exactly, estimate, relax
from encoders.linear_model import Direction
from encoders.network import INPUT
from encoders.ops import (
    Abs,
    Add,
    Affine,
    AveragePool2d,
    BatchNorm,
    GlobalAveragePool,
    LeakyRelu,
    MaxPool2d,
    Mwd,
    MwdConv2d,
    Op,
    Relu,
    Reshape,
    Sigmoid,
    Tanh,
)
from tests.answers import decided
from tests.networks.batches import random_batch
from tests.networks.chains import chain, hinge_network
from tests.networks.random_networks import random_network
from tests.oracles.polygons import least_margin
from verifier.bounds.linear.bounds import linear_bounds
from verifier.budget import Budget
from verifier.methods.exact import ExactMethod
from verifier.solvers import SOLVERS, Termination

F64 = torch.float64
# What solvers let rows and binaries miss, times the size of the numbers here.
SOLVER = 1e-6
PINNED: dict[str, tuple[Op, Shape]] = {
    "relu": (Relu(), (6,)),
    "leaky-relu": (LeakyRelu(0.3), (6,)),
    "abs": (Abs(), (6,)),
    "max-pool2d": (MaxPool2d((2, 2), (1, 1)), (1, 3, 3)),
    "max-pool2d padded": (MaxPool2d((3, 2), (2, 1), (1, 0, 1, 1), (1, 2)), (2, 3, 4)),
    "average-pool2d": (AveragePool2d((2, 3), (1, 1), (1, 0, 1, 0)), (1, 3, 3)),
    "global-average-pool": (GlobalAveragePool(4), (2, 2, 2)),
}


def boxes_of(network: Network, box: Box) -> dict[str, Box]:
    """Return the boxes of all nodes by intervals, batch 1."""
    names = [node.name for node in network.nodes]
    return {INPUT: box, **dict(zip(names, network.interval(box, names), strict=True))}


def random_box(shape: Shape, seed: int) -> tuple[Box, Tensor]:
    """Return a box and a point of it."""
    generator = torch.Generator().manual_seed(seed)
    centre, radius, share = (torch.rand(1, *shape, generator=generator, dtype=F64) for _ in range(3))
    lower, upper = 2.0 * centre - 1.0 - radius, 2.0 * centre - 1.0 + radius
    return Box(lower, upper), torch.minimum(lower + share * (upper - lower), upper)


def ends_at(encoded: RelaxedNetwork, x: Tensor, row: np.ndarray) -> tuple[float, float]:
    """Return (least, greatest) values of a row of the output over the rows with the input fixed to x."""
    places = encoded.columns[INPUT]
    found = []
    for sign in (1.0, -1.0):
        model = encoded.model(sign * row)
        lower, upper = model.col_lower.copy(), model.col_upper.copy()
        lower[places] = upper[places] = x.flatten().numpy()
        answer = SOLVERS["highs"].solve(replace(model, col_lower=lower, col_upper=upper), 60.0)
        assert answer.termination is Termination.OPTIMAL
        found.append(sign * float(model.cost @ answer.primal))
    return found[0], found[1]


@pytest.mark.parametrize("name", PINNED)
@pytest.mark.parametrize("seed", range(6))
def test_rows_with_binaries_admit_one_value_for_each_input(name, seed):
    op, shape = PINNED[name]
    network = chain(shape, op, dtype=F64)
    box, x = random_box(shape, seed)
    encoded = encode_exactly(network, boxes_of(network, box))
    assert encoded.direction is Direction.EXACT and not encoded.gaps
    assert encoded.binaries == int(encoded.integer.sum())
    row = np.random.default_rng(seed).normal(size=math.prod(network.output_shape))
    value = float(row @ network.evaluate(x).flatten().numpy())
    least, greatest = ends_at(encoded, x, row)
    assert least == pytest.approx(value, abs=SOLVER) and greatest == pytest.approx(value, abs=SOLVER)


@pytest.mark.parametrize("op", [Sigmoid(), Tanh()], ids=["sigmoid", "tanh"])
@pytest.mark.parametrize("seed", range(6))
def test_curves_stay_within_the_declared_gap_which_falls_with_the_segments(op, seed):
    network = chain((3,), op, dtype=F64)
    box, x = random_box((3,), seed)
    wide = Box(4.0 * box.lower, 4.0 * box.upper)
    gaps = []
    for segments in (1, 2, 4, 8):
        encoded = encode_exactly(network, boxes_of(network, wide), segments)
        assert encoded.direction is Direction.OUTER
        (gap,) = encoded.gaps.values()
        gaps.append(gap)
        assert (encoded.binaries == 0) is (segments == 1) and encoded.binaries <= 3 * segments
        # At zero all auxiliary values may be zero, whatever the binaries.
        for unit, point in enumerate((4.0 * x, 4.0 * x, torch.zeros_like(x).clamp(wide.lower, wide.upper))):
            value = float(network.evaluate(point)[0, unit])
            least, greatest = ends_at(encoded, point, np.eye(3)[unit])
            assert value - gap - SOLVER <= least <= value + SOLVER
            assert value - SOLVER <= greatest <= value + gap + SOLVER
            assert greatest - least <= gap + SOLVER
    assert gaps[3] < 0.3 * gaps[1] < 0.3 * gaps[0]


@pytest.mark.parametrize("seed", range(40))
def test_graphs_of_all_ops_keep_their_value_among_the_solutions(seed):
    """With the input fixed, the rows hold the network's value, and nothing else where no op declares a gap."""
    network = random_network(seed)
    if any(isinstance(node.op, Mwd | MwdConv2d) for node in network.nodes):
        return  # their rows have tests of their own
    box, x = random_box(network.input_shape, seed)
    narrow = Box(x - 0.3 * (x - box.lower), x + 0.3 * (box.upper - x))
    encoded = encode_exactly(network, boxes_of(network, narrow))
    # Of a batch norm the gap is its rounding; it is no less a gap.
    curved = any(gap > 1e-9 for gap in encoded.gaps.values())
    assert encoded.direction is (Direction.OUTER if encoded.gaps else Direction.EXACT)
    size = math.prod(network.output_shape)
    row = np.random.default_rng(seed).normal(size=size)
    value = float(row @ network.evaluate(x).flatten().numpy())
    least, greatest = ends_at(encoded, x, row)
    tolerance = 20.0 * SOLVER * (1.0 + abs(value))
    assert least <= value + tolerance and greatest >= value - tolerance
    assert curved or greatest - least <= 2.0 * tolerance


def test_a_node_that_reads_one_value_twice_keeps_its_binaries_apart():
    network = Network((Node("relu", Relu(), (INPUT,)), Node("twice", Add(), ("relu", "relu"))), (2,), F64)
    box = Box(torch.tensor([[-1.0, -2.0]], dtype=F64), torch.tensor([[1.0, 2.0]], dtype=F64))
    encoded = encode_exactly(network, boxes_of(network, box))
    assert encoded.binaries == 2
    # 2 max(x, 0) at (0.5, -1), weighed 1 and 3.
    x = torch.tensor([[0.5, -1.0]], dtype=F64)
    assert ends_at(encoded, x, np.array([1.0, 3.0])) == pytest.approx((1.0, 1.0), abs=SOLVER)


def least_by(solver: str, seed: int, radius: float) -> tuple[float, float]:
    """Return (the least margin over all rivals by a solver, the exact one)."""
    network = hinge_network(seed)
    batch = random_batch(network, 1, seed)
    region = batch.region(radius)
    reference = int(batch.classes[0])
    bounds = linear_bounds(network, region)
    encoded = encode_exactly(bounds.network, bounds.boxes)
    found = math.inf
    for rival in set(range(3)) - {reference}:
        model = encoded.model(np.eye(3)[reference] - np.eye(3)[rival])
        assert model.direction is Direction.EXACT
        answer = SOLVERS[solver].solve(model, 60.0)
        assert answer.termination is Termination.OPTIMAL
        found = min(found, float(model.cost @ answer.primal))
    ends = region.enclosure()
    exact = least_margin(network, ends.lower[0].tolist(), ends.upper[0].tolist(), reference)
    if abs(exact) > 1e-9:
        assert bool(decided(ExactMethod(), batch, region, Budget()).certified[0]) is (exact > 0)
    return found, float(exact)


@pytest.mark.parametrize("seed", range(24))
def test_highs_agrees_with_brute_force_and_our_search(seed):
    found, exact = least_by("highs", seed, 0.3)
    assert found == pytest.approx(exact, abs=1e-5)


@pytest.mark.parametrize("seed", range(6))
def test_cbc_agrees_too(seed):
    found, exact = least_by("pulp", seed, 0.3)
    assert found == pytest.approx(exact, abs=1e-5)


@dataclass(frozen=True, eq=False)
class Cube(Op):
    """An op with the views that it must have, and no other."""

    kind = "cube"

    def output_shape(self, *shapes: Shape) -> Shape:
        return shapes[0]

    def evaluate(self, *x: Tensor) -> Tensor:
        return x[0] ** 3

    def interval(self, *boxes: Box) -> Box:
        return Box(boxes[0].lower ** 3 - 1e-9, boxes[0].upper ** 3 + 1e-9)


def test_known_units_get_no_binary_and_ops_without_the_view_are_named():
    network = hinge_network(0)
    batch = random_batch(network, 1, 0)
    bounds = linear_bounds(network, batch.region(0.1))
    encoded = encode_exactly(bounds.network, bounds.boxes)
    sources = [node.inputs[0] for node in network.nodes if not node.op.linear]
    units = sum(int(((bounds.boxes[s].lower < 0) & (bounds.boxes[s].upper > 0)).sum()) for s in sources)
    assert encoded.binaries == units
    assert not relax(bounds.network, bounds.boxes).integer.any()
    cubic = chain((2,), Cube(), Affine(torch.eye(2, dtype=F64)), dtype=F64)
    box, _ = random_box((2,), 0)
    with pytest.raises(ValueError, match=r"view 'exact'.*0-cube"):
        encode_exactly(cubic, boxes_of(cubic, box))


def test_segments_are_at_least_one_and_rows_with_binaries_are_not_narrowed():
    network = chain((2,), Sigmoid(), dtype=F64)
    box, _ = random_box((2,), 1)
    boxes = boxes_of(network, box)
    with pytest.raises(ValueError, match="segment"):
        encode_exactly(network, boxes, segments=0)
    # One segment leaves no binary, and yet these are not the rows of `relax`.
    with pytest.raises(ValueError, match="encode the network again"):
        encode_exactly(network, boxes, segments=1).within(boxes)
    assert relax(network, boxes).within(boxes).direction is Direction.OUTER


def test_a_gap_of_rounding_alone_makes_the_rows_outer():
    values: list[Any] = list(torch.rand(4, 2, dtype=F64, generator=torch.Generator().manual_seed(2)))
    network = chain((2, 1, 1), BatchNorm(*values), Reshape((2,)), dtype=F64)
    box, _ = random_box((2, 1, 1), 2)
    encoded = encode_exactly(network, boxes_of(network, box))
    assert encoded.direction is Direction.OUTER and 0.0 < encoded.gaps["0-batch-norm"] < 1e-13


@pytest.mark.parametrize("seed", range(40))
def test_estimates_are_never_below_the_rows_of_random_graphs(seed):
    network = random_network(seed)
    box, _ = random_box(network.input_shape, seed)
    boxes = boxes_of(network, Box(8.0 * box.lower, 8.0 * box.upper))
    for segments in (1, 4):
        rows, entries = estimate(network, "exact", segments)
        encoded = encode_exactly(network, boxes, segments)
        assert encoded.A.shape[0] <= rows and encoded.A.nnz <= entries


@pytest.mark.parametrize(
    ("op", "shape", "sizes"),
    [
        # Four rows a unit, two of them with its binary.
        (Relu(), (6,), (24, 60)),
        (LeakyRelu(0.5), (6,), (24, 60)),
        (Abs(), (6,), (24, 60)),
        # Four windows of four cells: 2 * 4 + 3 rows with 9 * 4 + 2 entries each.
        (MaxPool2d((2, 2), (2, 2)), (1, 4, 4), (44, 152)),
    ],
    ids=lambda value: getattr(value, "kind", None),
)
def test_estimates_of_open_units_and_windows_are_exact(op, shape, sizes):
    network = chain(shape, op, dtype=F64)
    ones = torch.ones(1, *shape, dtype=F64)
    encoded = encode_exactly(network, boxes_of(network, Box(-ones, ones)))
    assert estimate(network, "exact") == sizes == (encoded.A.shape[0], encoded.A.nnz)


def test_estimates_count_segments_and_literals_which_those_of_the_relaxation_do_not():
    curve = chain((5,), Tanh(), dtype=F64)
    ones = torch.ones(1, 5, dtype=F64)
    encoded = encode_exactly(curve, boxes_of(curve, Box(-4.0 * ones, 4.0 * ones)), 16)
    # All units have the same box, so that each is cut into all 16 segments.
    assert encoded.binaries == 5 * 16
    assert estimate(curve, "exact", 16) == (encoded.A.shape[0], encoded.A.nnz) == (5 * 38, 5 * 197)
    assert estimate(curve) == estimate(curve, segments=16) == (15, 30)
    weight = torch.ones(3, 7, dtype=F64)
    distances = chain((7,), Mwd(weight, 0.0 * weight, torch.zeros(3, dtype=torch.bool)), dtype=F64)
    ones = torch.ones(1, 7, dtype=F64)
    encoded = encode_exactly(distances, boxes_of(distances, Box(-ones, ones)))
    # 14 literals for each unit, in three rows each and in one sum, then the link.
    rows, entries = estimate(distances, "exact")
    assert encoded.binaries == 3 * (14 + 4) and entries > 12 * 3 * 7
    assert (encoded.A.shape[0], encoded.A.nnz) == (rows, entries)
