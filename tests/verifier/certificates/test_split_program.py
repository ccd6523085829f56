"""Bounds of networks of hinges are below the exact value at every point, in rationals, whatever the multipliers are."""

import math
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.optimize import linprog

from encoders.box import Box
from encoders.formulations.relax import RelaxedNetwork, relax
from encoders.network import INPUT, Network, Node
from encoders.ops import (
    Abs,
    Add,
    AddConstant,
    Affine,
    BatchNorm,
    DivideConstant,
    LeakyRelu,
    Op,
    Relu,
    Sub,
    Tanh,
)
from tests.networks.chains import chain
from tests.networks.hinge_graphs import hinge_networks, odd_network
from tests.networks.random_boxes import box_of, points_of
from tests.oracles.node_values import exact_values
from tests.oracles.polygons import least_margin
from tests.seeds import few_or, seeds
from verifier.certificates.split_program import SplitProgram
from verifier.certificates.sweep import upper_line

F64 = torch.float64

# Bounds lie within this share of the sizes that were summed: U times a few dozen entries of a column.
CLOSE_TO_ROUNDING = 1e-13
# How far a bound from a solver's multipliers may lie below its optimum, and what its tolerances add to that.
TIGHT, SOLVER = 1e-6, 1e-7
# Bounds of columns that are as good as none.
WIDE = 1e5


def slopes_of(generator: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Return slopes, some of them far outside [0, 1] or no numbers."""
    slopes = generator.random(shape) * generator.choice([1.0, 3.0]) - generator.choice([0.0, 1.0])
    for odd in (0.0, 1.0, np.nan, np.inf, -np.inf):
        slopes[generator.random(shape) < 0.02] = odd
    return slopes


def multipliers_of(generator: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Return multipliers of either sign and all magnitudes."""
    spread = generator.choice([0.0, 2.0, 20.0, 300.0], p=[0.3, 0.4, 0.2, 0.1])
    size = np.where(generator.random(shape) < 0.5, 0.0, 10.0 ** (generator.uniform(-1.0, 1.0, shape) * spread))
    multipliers = np.where(generator.random(shape) < 0.5, size, -size)
    if generator.random() < 0.1:
        multipliers[generator.random(shape) < 0.1] = generator.choice([np.nan, np.inf, -np.inf, 5e-324, -1.7e308])
    return multipliers


def finished(network: Network, box: Box, generator: np.random.Generator | None = None) -> SplitProgram:
    """Return the program of a network, boxes tightened with random slopes if there is a generator."""
    program = SplitProgram(network, box)
    while (name := program.advance()) is not None:
        places = program.open_units(name)
        if generator is not None and len(places):
            places = places[generator.random(len(places)) < 0.7]
            program.tighten(name, places, slopes_of(generator, (2 * len(places), program.units)))
    return program


def consistent_signs(
    program: SplitProgram, values: dict[str, np.ndarray], generator: np.random.Generator
) -> np.ndarray:
    """Return random signs `(units,)` of a part that holds the point of the values."""
    known = np.concatenate([np.sign(values[hinge.source]).astype(np.int8) for hinge in program.hinges] or [np.zeros(0)])
    random_signs = generator.integers(0, 2, len(known)) * 2 - 1
    drawn = np.where(known == 0, random_signs, known) * (
        generator.random(len(known)) < generator.choice([0.0, 0.5, 1.0])
    )
    return drawn.astype(np.int8)


def assert_below_exact_values(network: Network, box: Box, seed: int, points: int = 4) -> tuple[int, int]:
    """Check the law at points of a box, for the boxes and for rows of the output; return (bounds, finite ones)."""
    generator = np.random.default_rng(seed)
    program = finished(network, box, generator)
    output = program.network.output.name
    size = len(program.reach(output))
    checked = finite = 0
    for point in points_of(box, generator, points):
        values = exact_values(program.network, point)
        kept = {INPUT, *(node.name for node in program.network.nodes)}
        pooled = {node.inputs[0] for node in network.nodes if node.op.maximum}
        for name, value in exact_values(network, point).items():
            # A pool of a hinge is written as the hinge of a pool.
            assert name in kept or name in pooled
            assert name not in kept or (values[name] == value).all(), f"{name} is not what the network gives"
        for name, found in program.boxes.items():
            ends = (end.flatten().tolist() for end in (found.lower, found.upper))
            for low, value, high in zip(next(ends), values[name], next(ends), strict=True):
                assert low <= value <= high, name
        signs = np.stack([consistent_signs(program, values, generator) for _ in range(3)])
        rows = (
            generator.normal(size=(3, size)) * (generator.random((3, size)) < 0.8) * generator.choice([1.0, 1e-9, 1e9])
        )
        shape = (3, program.units)
        multipliers = multipliers_of(generator, shape) if generator.random() < 0.8 else None
        bounds = program.bounds(output, rows, signs, slopes_of(generator, shape), multipliers)
        for row, bound in zip(rows, bounds.tolist(), strict=True):
            value = sum((Fraction(r) * v for r, v in zip(row.tolist(), values[output], strict=True)), start=Fraction(0))
            assert bound <= value, (bound, float(value))
            checked, finite = checked + 1, finite + math.isfinite(bound)
    return checked, finite


# ----------------------------------------------------------------------------------------------------------- soundness


@pytest.mark.parametrize("seed", seeds(24, 120))
def test_bounds_and_boxes_hold_at_every_point_of_random_graphs(seed):
    network = hinge_networks(120)[seed]
    checked, finite = assert_below_exact_values(network, box_of(network, np.random.default_rng(seed)), seed)
    assert finite > checked / 2


@pytest.mark.parametrize("seed", seeds(30, 150))
def test_bounds_hold_where_hinges_read_the_input_hinges_and_one_value_twice(seed):
    network = odd_network(seed)
    assert_below_exact_values(network, box_of(network, np.random.default_rng(seed)), seed)


@pytest.mark.parametrize("count", few_or(6, 20))
@pytest.mark.parametrize("scale", [1e-320, 1e-305, 1e-200, 1e-150, 1e150, 1e200, 1e307])
def test_bounds_hold_where_numbers_under_and_overflow(scale, count):
    finite = 0
    for seed in range(count):
        generator = np.random.default_rng(seed)
        weights = [torch.from_numpy(generator.normal(size=(3, 3))) for _ in range(3)]
        bias = torch.from_numpy(generator.normal(size=3))
        factor = [scale, 1.0, min(1 / scale, 1e300)]
        first, second, third = ([*factor], [factor[1], factor[0], factor[2]], [factor[2], factor[0], factor[1]])[
            seed % 3
        ]
        ops = (Affine(weights[0] * first, bias * first), Relu(), Affine(weights[1] * second, bias), Abs(),
               Affine(weights[2] * third, bias * scale))  # fmt: skip
        network = chain((3,), *ops, dtype=F64)
        box = box_of(network, generator)
        if seed % 2:
            box = Box(box.lower * 1e-300, box.upper * 1e-300)
        finite += assert_below_exact_values(network, box, seed)[1]
    assert finite > 0 or scale > 1e300


@pytest.mark.parametrize("seed", seeds(9, 40))
def test_roundings_are_covered_where_nothing_else_leaves_room(seed):
    """On a box of one point with known signs a bound is the value up to rounding; sums cancel eight digits or more."""
    generator = np.random.default_rng(seed)
    point, first, last = (generator.normal(size=shape) for shape in (30, (40, 30), (2, 40)))
    first, last = (w * 10.0 ** generator.uniform(0, 8, size=w.shape) for w in (first, last))
    bias = generator.normal(size=40) - first @ point
    hinge = (Relu(), LeakyRelu(0.1), Abs())[seed % 3]
    weights = [torch.from_numpy(w) for w in (first, bias, last)]
    network = chain((30,), Affine(*weights[:2]), hinge, Affine(weights[2]), dtype=F64)
    program = finished(network, Box.point(torch.from_numpy(point[None])), generator)
    values = exact_values(network, point)
    signs = np.sign(values[program.hinges[0].source]).astype(np.int8)[None].repeat(2, axis=0)
    rows, nothing = np.array([[1.0, -1.0], [-1.0, 1.0]]), np.zeros((2, 40))
    found = program.bounds(network.output.name, rows, signs, nothing, nothing)
    first_value, second_value = values[network.output.name]
    size = float(np.abs(last).sum(axis=0) @ (np.abs(first) @ np.abs(point) + np.abs(bias)))
    for bound, value in zip(found.tolist(), (first_value - second_value, second_value - first_value), strict=True):
        assert 0 <= value - Fraction(bound) <= CLOSE_TO_ROUNDING * size


def test_the_roundings_of_reduced_costs_are_covered():
    """Two layers without bias whose product is zero up to rounding: what is computed of it says nothing of its sign.

    No row end is large here, so that the slack of their sum does not cover the entries of the product.
    """
    above = 0
    for seed in range(40):
        generator = np.random.default_rng(seed)
        first, last = generator.normal(size=(50, 3)), generator.normal(size=(2, 50))
        first[:, 0] = 10.0 ** generator.uniform(-3, 3, size=50)
        # Rows of the second layer orthogonal to the columns of the first.
        last -= np.linalg.lstsq(first, first @ np.linalg.pinv(first) @ last.T, rcond=None)[0].T @ first.T
        network = chain((3,), Affine(torch.from_numpy(first)), Affine(torch.from_numpy(last)), dtype=F64)
        point = generator.normal(size=3)
        program = finished(network, Box.point(torch.from_numpy(point[None])))
        rows = np.concatenate([np.eye(2), -np.eye(2)])
        found = program.bounds(network.output.name, rows, None, np.zeros((4, 0)), None)
        values = exact_values(network, point)[network.output.name]
        assert all(bound <= value for bound, value in zip(found.tolist(), [*values, *-values], strict=True))
        above += sum(
            Fraction(bound) > value
            for bound, value in zip((rows @ last @ first @ point).tolist(), [*values, *-values], strict=True)
        )
    assert above > 40, "plain floats err to both sides"


def test_a_product_of_weights_that_underflows_is_not_taken_for_zero():
    """-1e-200 (1e-200 x) is -1e-250 at x = 1e150, though the product of the two weights is 0 in floats."""
    weights = [torch.tensor([[w]], dtype=F64) for w in (1e-200, -1e-200)]
    network = chain((1,), Affine(weights[0]), Affine(weights[1]), dtype=F64)
    program = finished(network, Box.point(torch.tensor([[1e150]], dtype=F64)))
    (found,) = program.bounds(network.output.name, np.ones((1, 1)), None, np.zeros((1, 0)), None)
    (value,) = exact_values(network, np.array([1e150]))[network.output.name]
    assert found <= value < -9e-251 and found > -1e-100


@pytest.mark.parametrize("seed", seeds(3, 12))
def test_a_sum_that_cancels_from_1e16_is_bounded_by_its_exact_value(seed):
    """1e16 + x - 1e16 is x in real arithmetic; floats make an even whole number of it."""
    generator = np.random.default_rng(seed)
    big, one = torch.full((4,), 1e16, dtype=F64), torch.ones(4, dtype=F64)
    ops = (
        AddConstant(big),
        Affine(torch.eye(4, dtype=F64)),
        LeakyRelu(0.5),
        AddConstant(-big),
        AddConstant(one),
        Relu(),
    )
    network = chain((4,), *ops, dtype=F64)
    for width in (0.0, 0.5):
        centre = generator.normal(size=(1, 4))
        box = Box(torch.from_numpy(centre - width), torch.from_numpy(centre + width))
        assert_below_exact_values(network, box, seed)


@pytest.mark.parametrize("seed", seeds(8, 25))
def test_slopes_and_multipliers_of_any_size_prove_nothing_false(seed):
    """Whatever the multipliers are, the bound is below the exact minimum over the box (polygons in rationals)."""
    generator = np.random.default_rng(seed)
    network, lower, upper = plane_network(generator)
    box = Box(*(torch.tensor([end], dtype=F64) for end in (lower, upper)))
    program = finished(network, box, generator)
    least = least_margin(network, lower, upper, 0)
    rows = np.tile(np.array([[1.0, -1.0]]), (40, 1))
    shape = (40, program.units)
    for multipliers in (None, multipliers_of(generator, shape), multipliers_of(generator, shape)):
        found = program.bounds(network.output.name, rows, None, slopes_of(generator, shape), multipliers)
        assert (found <= float(least)).all()
        assert max(map(Fraction, found[np.isfinite(found)]), default=least) <= least


@pytest.mark.parametrize("count", few_or(4, 12))
def test_boxes_hold_the_exact_ranges_of_units_and_gain_from_slopes(count):
    gained = 0
    for seed in range(count):
        generator = np.random.default_rng(seed)
        network, lower, upper = plane_network(generator)
        box = Box(*(torch.tensor([end], dtype=F64) for end in (lower, upper)))
        plain, tight = finished(network, box), finished(network, box, generator)
        name, nodes = network.nodes[2].name, network.nodes[:3]
        for unit in range(network.shapes[name][0]):
            ends = [end.flatten()[unit].item() for end in (tight.boxes[name].lower, tight.boxes[name].upper)]
            pick = torch.zeros(2, network.shapes[name][0], dtype=F64)
            for sign, end in ((1.0, ends[0]), (-1.0, -ends[1])):
                pick[0, unit] = sign
                part = chain((2,), *(node.op for node in nodes), Affine(pick.clone()), dtype=F64)
                assert Fraction(end) <= least_margin(part, lower, upper, 0)
        gained += int((tight.boxes[name].lower > plain.boxes[name].lower).sum())
    assert gained > count / 3


def plane_network(generator: np.random.Generator) -> tuple[Network, list[float], list[float]]:
    """Return a network of two inputs and outputs, of one kind of hinge, and the ends of a box."""
    sizes = (2, 5, 4, 2)
    hinge = (Relu(), LeakyRelu(0.2), Abs())[generator.integers(3)]
    ops: list[Op] = []
    for inputs, outputs in pairwise(sizes):
        weight = torch.from_numpy(generator.normal(size=(outputs, inputs)))
        ops += [Affine(weight, torch.from_numpy(generator.normal(size=outputs)) * 0.5), hinge]
    centre = generator.normal(size=2) * 0.3
    half = generator.choice([0.1, 0.5, 1.0])
    return chain((2,), *ops[:-1], dtype=F64), (centre - half).tolist(), (centre + half).tolist()


# ----------------------------------------------------------------------------------------------------------- tightness


def cut_boxes(program: SplitProgram, signs: np.ndarray) -> dict[str, Box]:
    """Return the boxes of a program on the part of the signs `(units,)`, those of values that no hinge reads made wide.

    So only rows speak of them, but for y >= 0 of open relus, which is their second row.
    """
    boxes = dict(program.boxes)
    wide = torch.full_like(boxes[program.network.output.name].lower, WIDE)
    boxes[program.network.output.name] = Box(-wide, wide)
    for hinge in program.hinges:
        box = boxes[hinge.source]
        own = torch.from_numpy(signs[hinge.units]).reshape(box.lower.shape)
        lower = torch.where(own > 0, box.lower.clamp(min=0), box.lower)
        upper = torch.where(own < 0, box.upper.clamp(max=0), box.upper)
        boxes[hinge.source] = Box(lower, upper)
        wide = torch.full_like(lower, WIDE)
        is_open = (lower < 0) & (upper > 0)
        boxes[hinge.name] = Box(torch.where(is_open & (hinge.left == 0.0), 0.0, -wide), wide)
    return boxes


def solved(relaxed: RelaxedNetwork, row: np.ndarray) -> tuple[float, np.ndarray, np.ndarray] | None:
    """Return (optimum, multipliers of the rows, reduced costs) of the program by scipy's solver; None if empty."""
    model = relaxed.model(row)
    equal = model.row_lower == model.row_upper
    above, below = np.isfinite(model.row_upper) & ~equal, np.isfinite(model.row_lower) & ~equal
    A = model.A.toarray()
    found = linprog(
        model.cost, np.vstack([A[above], -A[below]]), np.concatenate([model.row_upper[above], -model.row_lower[below]]),
        A[equal], model.row_lower[equal], np.column_stack([model.col_lower, model.col_upper]), "highs-ds",
    )  # fmt: skip
    if found.status == 2:
        return None
    assert found.status == 0, found.message
    dual = np.zeros(len(A))
    dual[equal] = found.eqlin.marginals
    dual[above] += found.ineqlin.marginals[: above.sum()]
    dual[below] -= found.ineqlin.marginals[above.sum() :]
    return found.fun, dual, found.lower.marginals + found.upper.marginals


def named_numbers(
    program: SplitProgram, relaxed: RelaxedNetwork, dual: np.ndarray, left_over: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the (slopes, multipliers) `(units,)` that name a program's multipliers."""
    slopes, multipliers = np.zeros(program.units), np.zeros(program.units)
    read: set[str] = set()
    for hinge in program.hinges:
        box = relaxed.boxes[hinge.source]
        units = np.flatnonzero(((box.lower < 0) & (box.upper > 0)).flatten().numpy())
        right = dual[relaxed.starts[hinge.name] :][: len(units)]
        left = dual[relaxed.starts[hinge.name] + len(units) :][: len(units)]
        if hinge.left == 0.0:
            # The row y >= 0 of a relu is the bound of its column.
            left = -left_over[relaxed.columns[hinge.name][units]]
        both = right + left
        slopes[hinge.units.start + units] = np.where(both < 0, right / np.where(both < 0, both, 1.0), 0.0)
        if hinge.source not in read:
            multipliers[hinge.units] = left_over[relaxed.columns[hinge.source]]
        read.add(hinge.source)
    return slopes, multipliers


@pytest.mark.parametrize("count", few_or(8, 30))
@pytest.mark.parametrize("hinge", [Relu(), LeakyRelu(0.1), Abs()], ids=["relu", "leaky-relu", "abs"])
def test_the_multipliers_of_a_linear_program_give_its_optimum(hinge, count):
    """Two numbers a unit name every multiplier: the best ones reach the optimum over the same rows, parts included."""
    compared = 0
    for seed in range(count):
        generator = np.random.default_rng(seed)
        ops: list[Op] = []
        for inputs, outputs in ((4, 7), (7, 6), (6, 5), (5, 2)):
            weight = torch.from_numpy(generator.normal(size=(outputs, inputs)) / inputs**0.5)
            ops += [Affine(weight, torch.from_numpy(generator.normal(size=outputs)) * 0.3), hinge]
        network = chain((4,), *ops[:-1], dtype=F64)
        centre = torch.from_numpy(generator.normal(size=(1, 4)))
        program = finished(network, Box(centre - 0.5, centre + 0.5))
        values = exact_values(network, (centre[0] + 0.2).numpy())
        signs = consistent_signs(program, values, generator)
        relaxed = relax(program.network, cut_boxes(program, signs))
        row = np.array([1.0, -1.0])
        answer = solved(relaxed, row)
        assert answer is not None, "the part holds a point"
        optimum, dual, left_over = answer
        slopes, multipliers = named_numbers(program, relaxed, dual, left_over)
        (found,) = program.bounds(network.output.name, row[None], signs[None], slopes[None], multipliers[None])
        assert optimum - TIGHT <= found <= optimum + SOLVER
        compared += int((signs != 0).any())
    assert compared > count / 3


# ---------------------------------------------------------------------------------------------------- borders and odds


def relu_program(lower: list[float], upper: list[float], hinge: Op) -> SplitProgram:
    count = len(lower)
    network = chain((count,), Affine(torch.eye(count, dtype=F64)), hinge, dtype=F64)
    return finished(network, Box(*(torch.tensor([end], dtype=F64) for end in (lower, upper))))


@pytest.mark.parametrize("hinge", [Relu(), LeakyRelu(0.1), Abs()], ids=lambda op: op.kind)
def test_hand_computed_bounds_of_one_hinge(hinge):
    """On [-1, 3] the least of y is that of slope x, the greatest that of the line through both ends."""
    program = relu_program([-1.0], [3.0], hinge)
    left = hinge.hinge_slope
    name, slopes = program.network.output.name, np.array([[0.0], [1.0], [0.5], [-7.0], [7.0]])
    found = program.bounds(name, np.ones((5, 1)), None, slopes, None)
    ends = [min(s * x for x in (-1.0, 3.0)) for s in (left, 1.0, (1.0 + left) / 2, left, 1.0)]
    assert found == pytest.approx(ends, abs=1e-12)
    assert program.bounds(name, -np.ones((1, 1)), None, np.zeros((1, 1)), None) == pytest.approx(-3.0, abs=1e-12)
    # Where x >= 0, y is x; where x <= 0, left x: a multiplier of size 1 towards the end makes the bound exact.
    for sign, multiplier, value in ((1, 1.0, 0.0), (-1, left, min(left * -1.0, 0.0))):
        signs = np.array([[sign]], dtype=np.int8)
        found = program.bounds(name, np.ones((1, 1)), signs, np.zeros((1, 1)), np.array([[multiplier]]))
        assert found == pytest.approx(value, abs=1e-12)


def test_boxes_that_end_at_zero_need_no_slope():
    """x in [0, 2], [-2, 0], [0, 0] and [-0.0, 0.0]: y is x, left x, 0 and 0 whatever the slopes are."""
    for hinge in (Relu(), LeakyRelu(0.1), Abs()):
        # A hinge of the input itself: boxes of affine values are never exactly zero.
        lower, upper = [0.0, -2.0, 0.0, -0.0], [2.0, 0.0, 0.0, 0.0]
        box = Box(*(torch.tensor([end], dtype=F64) for end in (lower, upper)))
        program = finished(chain((4,), hinge, dtype=F64), box)
        left = hinge.hinge_slope
        rows = np.concatenate([np.eye(4), -np.eye(4)])
        least = np.array([0.0, min(-2.0 * left, 0.0), 0.0, 0.0, -2.0, min(2.0 * left, 0.0), 0.0, 0.0])
        for slope in (0.0, 0.5, 1.0):
            found = program.bounds(program.network.output.name, rows, None, np.full((8, 4), slope), None)
            assert (found <= least).all() and found == pytest.approx(least, abs=1e-12)


def test_a_value_that_is_read_twice_counts_twice():
    """(x + x) - relu(x) on [1, 2] is x, whose least value is 1."""
    nodes = (Node("a", Affine(torch.eye(1, dtype=F64)), (INPUT,)), Node("r", Relu(), ("a",)),
             Node("s", Add(), ("a", "a")), Node("d", Sub(), ("s", "r")))  # fmt: skip
    network = Network(nodes, (1,), F64)
    program = finished(network, Box(torch.ones(1, 1, dtype=F64), 2 * torch.ones(1, 1, dtype=F64)))
    rows = np.array([[1.0], [-1.0]])
    assert program.bounds("d", rows, None, np.zeros((2, 1)), None) == pytest.approx([1.0, -2.0], abs=1e-12)


def test_opposite_signs_of_two_hinges_on_one_value_leave_zero():
    """relu(x) + |x| where x >= 0 by the first and x <= 0 by the second is 0; its bound is 0 up to rounding."""
    nodes = (Node("a", Affine(torch.eye(1, dtype=F64)), (INPUT,)), Node("r", Relu(), ("a",)), Node("b", Abs(), ("a",)),
             Node("s", Add(), ("r", "b")))  # fmt: skip
    program = finished(Network(nodes, (1,), F64), Box(-torch.ones(1, 1, dtype=F64), torch.ones(1, 1, dtype=F64)))
    for signs in ([1, -1], [-1, 1]):
        for row in (1.0, -1.0):
            for multiplier in (0.0, 3.0, -3.0):
                split = np.array([signs], dtype=np.int8)
                multipliers = np.array([[multiplier, 2.0 * multiplier]])
                (found,) = program.bounds("s", np.array([[row]]), split, np.full((1, 2), 0.5), multipliers)
                assert found <= 0.0
    (best,) = program.bounds(
        "s", np.array([[-1.0]]), np.array([[1, -1]], dtype=np.int8), np.zeros((1, 2)), np.zeros((1, 2))
    )
    assert best <= 0.0


@pytest.mark.parametrize("left", [0.0, 0.01, 0.1, 1.0, -1.0])
def test_lines_lie_above_the_hinge_at_both_ends_in_rationals(left):
    """s x + t >= max(x, left x) at l and at u, hence between: ends of all sizes, subnormal and zero ones too."""
    generator = np.random.default_rng(7)
    lower, upper = (
        generator.choice([1.0, 1e-8, 1e-300, 5e-324, 1e150], 4000) * 10.0 ** generator.uniform(-3, 3, 4000)
        for _ in range(2)
    )
    lower[:20], upper[20:40] = 0.0, 0.0
    slopes, offsets = upper_line(-lower, upper, left)
    for low, high, slope, offset in zip(*(v.tolist() for v in (-lower, upper, slopes, offsets)), strict=True):
        for x in map(Fraction, (low, high)):
            assert Fraction(slope) * x + Fraction(offset) >= max(x, x * Fraction(left))


def test_the_two_ends_of_a_row_of_batch_norm_are_not_confused():
    """With scale and shift 0 the value is 0 within what underflow may leave; times 1e300 a wrong end would show."""
    zero, one = torch.zeros(1, dtype=F64), torch.ones(1, dtype=F64)
    network = chain((1,), BatchNorm(zero, one, zero, zero), Affine(torch.tensor([[1e300]], dtype=F64)), dtype=F64)
    program = finished(network, Box(-one[None], one[None]))
    rows = np.array([[1.0], [-1.0]])
    found = program.bounds(network.output.name, rows, None, np.zeros((2, 0)), None)
    assert (found <= 0.0).all() and (found > -1.0).all()


def test_overflow_proves_nothing():
    huge = torch.full((2, 2), 1e308, dtype=F64)
    network = chain((2,), Affine(huge), Relu(), Affine(huge), dtype=F64)
    program = finished(network, Box(-torch.ones(1, 2, dtype=F64), torch.ones(1, 2, dtype=F64)))
    for multipliers in (None, np.full((2, 2), 1e308), np.full((2, 2), np.inf)):
        found = program.bounds(network.output.name, np.eye(2), None, np.zeros((2, 2)), multipliers)
        assert (found == -np.inf).all()


def test_division_by_a_negative_number_is_bounded_like_any_other():
    """relu(x / -2) on [-4, 2] lies in [0, 2]."""
    network = chain((1,), DivideConstant(torch.tensor([-2.0], dtype=F64)), Relu(), dtype=F64)
    program = finished(network, Box(torch.tensor([[-4.0]], dtype=F64), torch.tensor([[2.0]], dtype=F64)))
    rows = np.array([[1.0], [-1.0]])
    found = program.bounds(network.output.name, rows, None, np.zeros((2, 1)), None)
    assert found == pytest.approx([0.0, -2.0], abs=1e-12)
    assert_below_exact_values(network, program.boxes[INPUT], 0)


def test_other_ops_are_refused_by_name():
    network = chain((2,), Affine(torch.eye(2)), Tanh(), Affine(torch.eye(2)))
    with pytest.raises(ValueError, match="1-tanh"):
        SplitProgram(network, Box(torch.zeros(1, 2, dtype=F64), torch.ones(1, 2, dtype=F64)))
