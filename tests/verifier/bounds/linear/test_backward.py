"""Linear bounds: never violated, never looser than intervals, equal to a naive dense CROWN, and exact in rationals."""

import dataclasses
import itertools
import math
from fractions import Fraction

import mpmath
import numpy as np
import pytest
import torch
from torch import Tensor

from encoders import Box, Network, Node
from encoders.network import INPUT
from encoders.ops import (
    Abs,
    Add,
    AddConstant,
    Affine,
    Conv2d,
    GlobalAveragePool,
    LeakyRelu,
    MaxPool2d,
    Op,
    Relu,
    Reshape,
    Sigmoid,
    Sub,
    Tanh,
)
from encoders.region import BallRegion
from encoders.views.coefficients import Coefficients
from tests.networks.chains import chain
from tests.networks.random_networks import random_network
from tests.oracles.op_values import exact_numbers, exact_value
from tests.seeds import seeds
from verifier.bounds.linear.bounds import linear_bounds
from verifier.bounds.linear.region_minimum import RegionMinimum

F64 = torch.float64
NORMS = ("inf", "2", "1")
# What the float64 evaluation of a sampled point may err by, as a share of the largest value in the network.
EVALUATION = 1e-12
POINTS = 250
DESCENT_STEPS = 5


def ball(centre: Tensor, *radius: float, domain: tuple[float, float] | None = None, norm: str = "inf") -> BallRegion:
    return BallRegion(centre, torch.tensor(radius, dtype=F64), domain, norm)


def unit_rows(batch: int, shape: tuple[int, ...]) -> Tensor:
    """Return +1 and then -1 times each unit."""
    eye = torch.eye(math.prod(shape), dtype=F64)
    return torch.cat([eye, -eye]).reshape(1, -1, *shape).expand(batch, -1, *shape)


def sampled(region: BallRegion, count: int, generator: torch.Generator) -> Tensor:
    """Return points `(count, batch, *shape)` of the region: corners, its border in the norm, and inside."""
    batch, shape = region.centre.shape[0], tuple(region.centre.shape[1:])
    away = torch.randn(count, batch, math.prod(shape), generator=generator, dtype=F64)
    away[: count // 3] = away[: count // 3].sign()
    if region.norm == "1":
        # Corners of the ball lie on the axes.
        hot = torch.nn.functional.one_hot(away[: count // 3].abs().argmax(dim=2), away.shape[2])
        away[: count // 3] *= hot
    order = math.inf if region.norm == "inf" else int(region.norm)
    away = away / torch.linalg.vector_norm(away, ord=order, dim=2, keepdim=True)
    share = torch.rand(count, 1, 1, generator=generator, dtype=F64)
    share[: count // 2] = 1.0
    points = region.centre + (away * share * region.radius[:, None]).reshape(count, batch, *shape)
    return torch.stack(
        [region.clip(p, F64) for p in points[: count // 10]] + list(_pulled(region, points[count // 10 :]))
    )


def _pulled(region: BallRegion, points: Tensor) -> Tensor:
    """Return points a little nearer the centre, so that rounding leaves them in ball and domain."""
    points = region.centre + (points - region.centre) * (1.0 - 1e-13)
    least, greatest = region.domain or (-math.inf, math.inf)
    return points.clamp(least, greatest)


def all_values(network: Network, points: Tensor) -> dict[str, Tensor]:
    """Return every node's values `(count, batch, *shape)` at points `(count, batch, *input)`."""
    names = [node.name for node in network.nodes]
    count, batch = points.shape[:2]
    values = network.cast(F64).fold(points.flatten(0, 1), lambda op, x: op.evaluate(*x), names)
    return {name: v.reshape(count, batch, *v.shape[1:]) for name, v in zip(names, values, strict=True)}


def descended(network: Network, region: BallRegion, rows: Tensor) -> Tensor:
    """Return the least values `(batch, rows)` that sign descent finds."""
    batch, count = rows.shape[:2]
    regions = BallRegion(
        region.centre.repeat_interleave(count, 0), region.radius.repeat_interleave(count), region.domain, region.norm
    )
    x, flat = regions.centre.clone(), rows.flatten(0, 1)
    best = torch.full((batch * count,), math.inf, dtype=F64)
    for step in range(DESCENT_STEPS + 1):
        x.requires_grad_(True)
        values = (network.evaluate(x) * flat).flatten(1).sum(dim=1)
        best = torch.minimum(best, values.detach())
        (gradient,) = torch.autograd.grad(values.sum(), x)
        size = regions.radius.reshape(-1, *[1] * (x.dim() - 1)) * 2.0 * 0.7**step
        if region.norm == "inf":
            gradient = gradient.sign()
        else:
            norm = gradient.flatten(1).norm(dim=1).clamp(min=1e-300)
            gradient = gradient / norm.reshape(-1, *[1] * (x.dim() - 1))
        x = regions.clip(x.detach() - size * gradient, F64)
    return best.reshape(batch, count)


@pytest.mark.parametrize("block", seeds(2, 10))
def test_no_bound_is_violated_by_sampled_points_or_descent_on_random_networks(block: int) -> None:
    evaluations = 0
    for seed in range(block * 20, block * 20 + 20):
        network, generator = random_network(seed), torch.Generator().manual_seed(seed)
        centre = torch.rand(2, *network.input_shape, generator=generator, dtype=F64)
        domain = (0.0, 1.0) if seed % 2 else None
        region = ball(centre, 0.1, 0.6, domain=domain, norm=NORMS[seed % 3])
        bounds = linear_bounds(network, region)
        points = sampled(region, POINTS, generator)
        values = all_values(network, points)
        scale = 1.0 + max(float(v.abs().max()) for v in values.values())
        slack = EVALUATION * scale
        evaluations += points.shape[0] * points.shape[1]
        names = [node.name for node in network.nodes]
        intervals = dict(zip(names, network.interval(region.enclosure(), names), strict=True))
        for name in names:
            box = bounds.boxes[name]
            assert bool((values[name] >= box.lower - slack).all()), (seed, name)
            assert bool((values[name] <= box.upper + slack).all()), (seed, name)
            # Not to the last bit: rounded intervals of smaller boxes may be an ulp wider.
            assert bool((box.lower >= intervals[name].lower - slack).all()), (seed, name)
            assert bool((box.upper <= intervals[name].upper + slack).all()), (seed, name)
        rows = torch.randn(2, 4, *network.output_shape, generator=generator, dtype=F64)
        rows = torch.cat([rows, unit_rows(2, network.output_shape)], dim=1)
        minimum = bounds.minimise(rows, with_points=True)
        found = torch.einsum("brk,nbk->nbr", rows.flatten(2), values[network.output.name].flatten(2))
        slack *= 1.0 + float(rows.abs().flatten(2).sum(dim=2).max())
        assert bool((minimum.bound <= found.amin(dim=0) + slack).all()), seed
        assert bool((minimum.bound <= descended(network, region, rows) + slack).all()), seed
        evaluations += rows.shape[0] * rows.shape[1] * (DESCENT_STEPS + 1)
        # A lower bound of the negated row is minus an upper bound.
        units = math.prod(network.output_shape)
        assert bool((minimum.bound[:, 4 : 4 + units] <= -minimum.bound[:, 4 + units :]).all())
        if minimum.points is not None:
            assert tuple(minimum.points.shape) == (2, rows.shape[1], *network.input_shape)
            least = BallRegion(region.centre, region.radius, domain, "inf").enclosure()
            for j in range(rows.shape[1]):
                assert bool(least.contains(minimum.points[:, j]).all())
    assert evaluations >= 10_000


@pytest.mark.parametrize("seed", range(0, 200, 4))
def test_the_least_value_of_an_output_is_never_below_its_interval(seed: int) -> None:
    network, generator = random_network(seed), torch.Generator().manual_seed(seed)
    centre = torch.rand(2, *network.input_shape, generator=generator, dtype=F64)
    region = ball(centre, 0.1, 0.6, norm=NORMS[seed % 3])
    bound = linear_bounds(network, region).minimise(unit_rows(2, network.output_shape)).bound
    (box,) = network.interval(region.enclosure())
    interval = torch.cat([box.lower.flatten(1), -box.upper.flatten(1)], dim=1)
    assert bool((bound >= interval - 1e-12 * (1.0 + interval.abs())).all())


@pytest.mark.parametrize("seed", range(0, 60, 3))
def test_pieces_of_any_size_give_the_same_boxes(seed: int) -> None:
    network, generator = random_network(seed), torch.Generator().manual_seed(seed)
    region = ball(torch.rand(3, *network.input_shape, generator=generator, dtype=F64), 0.1, 0.3, 0.0)
    whole, cut = linear_bounds(network, region), linear_bounds(network, region, piece_bytes=1)
    for name, box in whole.boxes.items():
        torch.testing.assert_close(cut.boxes[name].lower, box.lower, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(cut.boxes[name].upper, box.upper, rtol=1e-9, atol=1e-9)


def test_rows_of_a_batch_do_not_mix() -> None:
    for seed in range(20):
        network, generator = random_network(seed), torch.Generator().manual_seed(seed)
        region = ball(torch.rand(3, *network.input_shape, generator=generator, dtype=F64), 0.2, 0.01, 0.5)
        rows = unit_rows(3, network.output_shape)
        together = linear_bounds(network, region).minimise(rows).bound
        for i in range(3):
            alone = linear_bounds(network, region[i : i + 1]).minimise(rows[i : i + 1]).bound
            torch.testing.assert_close(together[i : i + 1], alone, rtol=1e-9, atol=1e-9)


# ------------------------------------------------------------------------------- slopes that a caller chooses


def relu_chain(seed: int, sizes: tuple[int, ...], bias: bool = True) -> Network:
    generator = torch.Generator().manual_seed(seed)
    ops: list[Op] = []
    for inputs, outputs in itertools.pairwise(sizes):
        weight = torch.randn(outputs, inputs, generator=generator, dtype=F64) * (2.0 / inputs) ** 0.5
        ops += [Affine(weight, 0.3 * torch.randn(outputs, generator=generator, dtype=F64) if bias else None), Relu()]
    return chain((sizes[0],), *ops[:-1], dtype=F64)


@pytest.mark.parametrize("per_row", [False, True])
def test_bounds_with_any_given_slopes_hold(per_row: bool) -> None:
    for seed in range(8):
        network, generator = relu_chain(seed, (4, 7, 6, 3)), torch.Generator().manual_seed(seed)
        region = ball(torch.randn(2, 4, generator=generator, dtype=F64), 0.3, 0.8)
        rows = torch.randn(2, 5, 3, generator=generator, dtype=F64)
        names = [node.name for node in network.nodes]
        relus = [node.name for node in network.nodes if isinstance(node.op, Relu)]
        slopes = {
            (names[-1], name): torch.randn(2, *([5] if per_row else []), *network.shapes[name], generator=generator)
            .to(F64)
            .add(0.5)
            for name in relus
        }
        slopes[names[2], relus[0]] = torch.rand(2, 7, generator=generator, dtype=F64)
        bounds = linear_bounds(network, region, slopes=slopes)
        values = all_values(network, sampled(region, 400, generator))
        for name, box in bounds.boxes.items():
            if name != INPUT:
                assert bool((values[name] >= box.lower - 1e-12).all()) and bool(
                    (values[name] <= box.upper + 1e-12).all()
                )
        found = torch.einsum("brk,nbk->nbr", rows, values[names[-1]]).amin(dim=0)
        assert bool((bounds.minimise(rows).bound <= found + 1e-12).all())


def test_bounds_are_differentiable_in_the_slopes() -> None:
    network = relu_chain(3, (4, 7, 6, 3))
    region = ball(torch.zeros(2, 4, dtype=F64), 0.5, 1.0)
    relu = network.nodes[3].name
    slope = torch.full((2, 6), 0.5, dtype=F64, requires_grad=True)
    bounds = linear_bounds(network, region, slopes={(network.output.name, relu): slope})
    rows = unit_rows(2, (3,))
    (gradient,) = torch.autograd.grad(bounds.minimise(rows).bound.sum(), slope)
    assert bool((gradient != 0).any()) and bool(gradient.isfinite().all())


# ------------------------------------------------------------------------------------------ independent oracles


def naive_crown(
    layers: list[tuple[np.ndarray, np.ndarray]], low: np.ndarray, high: np.ndarray, *, cuts: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Return (lower, upper) of the last layer's units, by plain dense float64 CROWN (Zhang et al. 2018).

    Relu lines as there: above the chord, below slope 1 where u > -l and else 0. Units that intervals leave open get
    linear bounds cut with the interval; the first layer and closed units keep their interval. cuts: the best of the
    bounds over the box of any node on the way back counts.
    """
    boxes: list[tuple[np.ndarray, np.ndarray]] = []

    def least(rows: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
        return np.maximum(rows, 0) @ lower + np.minimum(rows, 0) @ upper

    def backward(last: int, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        constant, best = np.zeros(len(rows)), np.full(len(rows), -np.inf)
        for k in range(last, -1, -1):
            weight, bias = layers[k]
            if cuts and k < len(boxes):
                best = np.maximum(best, constant + least(rows, *boxes[k]))
            constant, rows = constant + rows @ bias, rows @ weight
            if k:
                lower, upper = boxes[k - 1]
                best = np.maximum(best, constant + least(rows, np.maximum(lower, 0), np.maximum(upper, 0)))
                is_open = (lower < 0) & (upper > 0)
                width = np.where(is_open, upper - lower, 1.0)
                chord = np.where(is_open, upper / width, (lower >= 0) * 1.0)
                offset = np.where(is_open, -lower * upper / width, 0.0)
                below = np.where(is_open, (upper > -lower) * 1.0, (lower >= 0) * 1.0)
                positive, negative = np.maximum(rows, 0), np.minimum(rows, 0)
                constant, rows = constant + negative @ offset, positive * below + negative * chord
        result = constant + least(rows, low, high)
        return result, np.maximum(result, best)

    left, right = low, high
    for k, (weight, bias) in enumerate(layers):
        lower, upper = least(weight, left, right) + bias, -least(-weight, left, right) + bias
        if k and k < len(layers) - 1:
            is_open = (lower < 0) & (upper > 0)
            eye = np.eye(len(bias))
            lower = np.where(is_open, np.maximum(lower, backward(k, eye)[0]), lower)
            upper = np.where(is_open, np.minimum(upper, -backward(k, -eye)[0]), upper)
        boxes.append((lower, upper))
        left, right = np.maximum(lower, 0), np.maximum(upper, 0)
    eye = np.eye(len(layers[-1][1]))
    return backward(len(layers) - 1, eye)[cuts], -backward(len(layers) - 1, -eye)[cuts]


def layers_of(network: Network) -> list[tuple[np.ndarray, np.ndarray]]:
    ops = [node.op for node in network.nodes if isinstance(node.op, Affine)]
    return [(op.weight.numpy(), np.zeros(op.weight.shape[0]) if op.bias is None else op.bias.numpy()) for op in ops]


@pytest.mark.parametrize("sizes", [(3, 8, 2), (4, 9, 7, 3), (5, 12, 10, 8, 4), (6, 20, 20, 20, 20, 3)])
def test_relu_networks_agree_with_a_naive_dense_crown(sizes: tuple[int, ...]) -> None:
    for seed, radius in itertools.product(range(5), (0.02, 0.2, 0.7)):
        network = relu_chain(seed, sizes, bias=seed % 3 != 0)
        centre = torch.randn(1, sizes[0], generator=torch.Generator().manual_seed(seed), dtype=F64)
        # One input: in a batch, units that another input leaves open are tightened too.
        region = ball(centre, radius)
        bound = linear_bounds(network, region).minimise(unit_rows(1, (sizes[-1],))).bound[0].numpy()
        box = region.enclosure()
        ends = box.lower[0].numpy(), box.upper[0].numpy()
        for cuts in (False, True):
            lower, upper = naive_crown(layers_of(network), *ends, cuts=cuts)
            expected = np.concatenate([lower, -upper])
            tolerance = 1e-9 * (1.0 + np.abs(expected))
            assert bool((bound >= expected - tolerance).all())
        assert bool((bound <= expected + tolerance).all())


def test_a_hand_computed_network() -> None:
    # x in [-1, 1]; h = relu(x), relu(-x); y = h1 + h2 = |x|. Chords above: (x + 1)/2 + (1 - x)/2 = 1, the maximum.
    # Below, u = -l = 1 takes slope 0 (u > -l fails): y >= 0, the minimum.
    network = chain(
        (1,),
        Affine(torch.tensor([[1.0], [-1.0]], dtype=F64)),
        Relu(),
        Affine(torch.tensor([[1.0, 1.0]], dtype=F64)),
        dtype=F64,
    )
    bounds = linear_bounds(network, ball(torch.zeros(1, 1, dtype=F64), 1.0))
    lower, negative_upper = bounds.minimise(torch.tensor([[[1.0], [-1.0]]], dtype=F64)).bound[0].tolist()
    assert -1e-13 < lower <= 0.0 and 1.0 <= -negative_upper < 1.0 + 1e-13


@pytest.mark.parametrize(("norm", "expected"), [("inf", 7.0), ("2", 5.0), ("1", 4.0)])
def test_a_ball_uses_its_dual_norm(norm: str, expected: float) -> None:
    # min 3 x - 4 y over the unit ball around 0 is minus the dual norm of (3, -4).
    region = ball(torch.zeros(1, 2, dtype=F64), 1.0, norm=norm)
    (bound,) = RegionMinimum(region)(Coefficients(torch.tensor([[[3.0, -4.0]]], dtype=F64)))[0].tolist()
    assert -expected - 1e-13 < bound <= -expected
    cut = ball(torch.tensor([[0.0, 1.0]], dtype=F64), 1.0, domain=(0.0, 1.0), norm=norm)
    # x >= 0 and y <= 1 leave 3 * 0 - 4 * 1.
    (bound,) = RegionMinimum(cut)(Coefficients(torch.tensor([[[3.0, -4.0]]], dtype=F64)))[0].tolist()
    assert -4.0 - 1e-13 < bound <= -4.0


@pytest.mark.parametrize("norm", ["2", "1"])
@pytest.mark.parametrize("exponent", [-320.0, -300.0, -160.0, -20.0, 0.0, 20.0, 160.0, 300.0])
def test_dual_norms_are_rounded_up(norm: str, exponent: float) -> None:
    generator = torch.Generator().manual_seed(5)
    rows = torch.randn(2, 5, 30, generator=generator, dtype=F64) * 10.0**exponent
    rows[:, 1] *= torch.rand(30, generator=generator, dtype=F64) ** 40
    rows[:, 2, 1:] = 0.0
    # A float step off a binary fraction, so that sums round.
    centre = torch.randn(2, 30, generator=generator, dtype=F64)
    radius = torch.rand(2, generator=generator, dtype=F64)
    bound = RegionMinimum(BallRegion(centre, radius, None, norm))(Coefficients(rows))
    for i, j in itertools.product(range(2), range(5)):
        if not math.isfinite(float(bound[i, j])):
            assert exponent == 300.0
            continue
        c = [Fraction(v) for v in rows[i, j].tolist()]
        value = sum(a * Fraction(b) for a, b in zip(c, centre[i].tolist(), strict=True))
        gap = value - Fraction(float(bound[i, j]))
        r = Fraction(float(radius[i]))
        assert gap >= 0
        if norm == "1":
            assert gap >= r * max(abs(v) for v in c)
        else:
            assert gap * gap >= r * r * sum(v * v for v in c)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("radius", [0.0, 1e-20, 1e-9])
def test_the_minimum_over_a_ball_holds_where_the_centre_cancels(norm: str, radius: float) -> None:
    # c . centre loses all its digits: its error is that of the terms, not of the sum.
    generator = torch.Generator().manual_seed(6)
    c = torch.randn(40, 20, generator=generator, dtype=F64) * 1e6
    x = torch.randn(20, generator=generator, dtype=F64)
    rows = torch.cat([c, -c * (1.0 + 2.0**-40), torch.rand(40, 3, generator=generator, dtype=F64)], dim=1)
    centre = torch.cat([x, x, torch.zeros(3, dtype=F64)])[None]
    bound = RegionMinimum(ball(centre, radius, norm=norm))(Coefficients(rows[None]))[0].tolist()
    point = [Fraction(v) for v in centre[0].tolist()]
    for row, low in zip(rows.tolist(), bound, strict=True):
        assert Fraction(low) <= sum(Fraction(a) * b for a, b in zip(row, point, strict=True))


# ------------------------------------------------------------------------------------------------ exact rationals


def exact_outputs(network: Network, x: list[Fraction]) -> list[Fraction]:
    """Return the output of a chain of affine and relu ops at a point, without rounding."""
    for node in network.nodes:
        if isinstance(node.op, Affine):
            bias = [0.0] * node.op.weight.shape[0] if node.op.bias is None else node.op.bias.tolist()
            x = [
                sum((Fraction(w) * v for w, v in zip(row, x, strict=True)), start=Fraction(b))
                for row, b in zip(node.op.weight.tolist(), bias, strict=True)
            ]
        else:
            assert isinstance(node.op, Relu)
            x = [max(v, Fraction(0)) for v in x]
    return x


def cancelling_chain(seed: int, depth: int = 4, width: int = 6) -> Network:
    """Return a relu network whose layers subtract numbers near 1e8 from each other: (1e8 + a) x - 1e8 y."""
    generator = torch.Generator().manual_seed(seed)
    ops: list[Op] = []
    for _ in range(depth):
        small = torch.randn(width, width, generator=generator, dtype=F64)
        signs = 1.0 - 2.0 * (torch.arange(width) % 2)
        ops += [Affine(1e8 * signs + small, torch.randn(width, generator=generator, dtype=F64)), Relu()]
        # Back to size 1, so that the next layer cancels again.
        ops += [Affine(torch.eye(width, dtype=F64) * 0.3 + 0.1), Relu()]
    return chain((width,), *ops, Affine(torch.randn(4, width, generator=generator, dtype=F64)), dtype=F64)


def test_plain_float64_bounds_miss_exact_values_where_ours_do_not() -> None:
    missed, rows = 0, 0
    for seed in range(25):
        network = cancelling_chain(seed)
        generator = torch.Generator().manual_seed(seed)
        # All coordinates nearly equal: the terms of 1e8 cancel down to the last bits.
        centre = 0.7 + 1e-8 * torch.randn(2, 6, generator=generator, dtype=F64)
        region = ball(centre, 0.0, 0.0)
        ours = linear_bounds(network, region).minimise(unit_rows(2, (4,))).bound
        for i in range(2):
            point = centre[i].numpy()
            lower, upper = naive_crown(layers_of(network), point, point)
            exact = exact_outputs(network, [Fraction(v) for v in point.tolist()])
            for k, value in enumerate(exact):
                rows += 1
                missed += not Fraction(float(lower[k])) <= value <= Fraction(float(upper[k]))
                assert Fraction(float(ours[i, k])) <= value <= -Fraction(float(ours[i, 4 + k]))
    assert rows == 200
    assert missed > 100


def test_plain_float64_bounds_miss_the_exact_range_of_a_ball_where_ours_do_not() -> None:
    # Every relu is active on the ball, so the network is affine there and its exact range is that of a rational row.
    missed, rows = 0, 0
    for seed in range(25):
        generator = torch.Generator().manual_seed(seed)
        first = torch.tensor([[1e8 + 1, -1e8, 1.0], [1e8, 1e8 - 1, -3.0], [0.1, 0.2, 0.3]], dtype=F64)
        second = torch.randn(3, 3, generator=generator, dtype=F64) * torch.tensor([1e8, 1.0, 1.0], dtype=F64)
        last = torch.randn(2, 3, generator=generator, dtype=F64)
        high = torch.full((3,), 1e17, dtype=F64)
        network = chain((3,), Affine(first, high), Relu(), Affine(second.abs(), high), Relu(), Affine(last), dtype=F64)
        region = ball(torch.rand(1, 3, generator=generator, dtype=F64), 0.05)
        ours = linear_bounds(network, region).minimise(unit_rows(1, (2,))).bound[0].tolist()
        low, top = (end[0].numpy() for end in (region.enclosure().lower, region.enclosure().upper))
        plain = naive_crown(layers_of(network), low, top)
        # The exact row: differences of the affine map at 0 and the unit vectors. The ball itself, not its enclosure.
        at = [exact_outputs(network, [Fraction(int(i == j)) for j in range(3)]) for i in range(-1, 3)]
        centre, radius = [Fraction(v) for v in region.centre[0].tolist()], Fraction(0.05)
        for k in range(2):
            row = [value[k] - at[0][k] for value in at[1:]]
            middle = at[0][k] + sum(a * b for a, b in zip(row, centre, strict=True))
            reach = radius * sum(abs(a) for a in row)
            rows += 1
            missed += Fraction(float(plain[0][k])) > middle - reach or Fraction(float(plain[1][k])) < middle + reach
            assert Fraction(ours[k]) <= middle - reach and -Fraction(ours[2 + k]) >= middle + reach
    assert rows == 50
    assert missed > 10


def exact_values(network: Network, x: Tensor) -> dict[str, np.ndarray]:
    """Return every node's value at one point (no batch axis), to the working precision of mpmath."""
    values = {INPUT: exact_numbers(x, mpmath.mpf)}
    for node in network.nodes:
        values[node.name] = np.asarray(exact_value(node.op, tuple(values[i] for i in node.inputs), mpmath.mpf))
    return values


def rescaled(network: Network, seed: int, digits: float) -> Network:
    """Return the network with each weight tensor times a power of ten, up to the given digits either way."""
    generator = torch.Generator().manual_seed(seed)
    nodes = []
    for node in network.nodes:
        op = node.op
        if isinstance(op, Affine | Conv2d):
            factor = 10.0 ** (digits * (2.0 * float(torch.rand(1, generator=generator)) - 1.0))
            # The common part makes neighbouring terms cancel.
            op = dataclasses.replace(op, weight=(op.weight + 3.0 * float(torch.rand(1, generator=generator))) * factor)
        nodes.append(Node(node.name, op, node.inputs))
    return Network(tuple(nodes), network.input_shape, F64)


@pytest.mark.parametrize("seed", seeds(16, 48))
def test_every_box_and_bound_of_a_random_network_holds_exactly(seed: int) -> None:
    # No tolerance: values are computed to 160 digits, at corners and inside of balls down to a point.
    digits, radius = ((0.0, 0.0), (0.0, 1e-9), (4.0, 0.0), (8.0, 1e-3))[seed % 4]
    network, generator = rescaled(random_network(seed), seed, digits), torch.Generator().manual_seed(seed)
    centre = torch.rand(1, *network.input_shape, generator=generator, dtype=F64)
    region = ball(centre, radius, norm=NORMS[seed // 4 % 3])
    bounds = linear_bounds(network, region)
    rows = torch.cat([torch.randn(1, 3, *network.output_shape, generator=generator, dtype=F64)] * 2, dim=1)
    rows = torch.cat([rows[:, :3], -rows[:, 3:], unit_rows(1, network.output_shape)], dim=1)
    least = bounds.minimise(rows, with_points=True)
    points = [centre, region.clip(centre + radius, F64), region.clip(centre - radius, F64)]
    if least.points is not None:
        points += [region.clip(least.points[:, j], F64) for j in range(4)]
    with mpmath.workprec(530):
        for x in points[:1] if radius == 0.0 else points:
            assert bool(region.contains(x).all())
            values = exact_values(network, x[0])
            for name, box in bounds.boxes.items():
                ends = (box.lower[0].flatten().tolist(), box.upper[0].flatten().tolist())
                for low, value, high in zip(ends[0], values[name].flatten().tolist(), ends[1], strict=True):
                    assert low <= value <= high, name
            output = values[network.output.name].reshape(-1)
            for row, bound in zip(rows[0], least.bound[0].tolist(), strict=True):
                assert bound <= exact_numbers(row.flatten(), mpmath.mpf) @ output


# ---------------------------------------------------------------------------------------------------- float traps


def claims(network: Network, region: BallRegion, points: list[Tensor]) -> Tensor:
    """Return the output's bounds after checking them, and all boxes, at the points; no NaN, no infinity inward."""
    bounds = linear_bounds(network, region)
    result = bounds.minimise(unit_rows(region.centre.shape[0], network.output_shape)).bound
    assert not bool(result.isnan().any()) and not bool((result == math.inf).any())
    for box in bounds.boxes.values():
        assert bool((box.lower <= box.upper).all())
        assert not bool((box.lower == math.inf).any()) and not bool((box.upper == -math.inf).any())
    units = math.prod(network.output_shape)
    for x in points:
        value = network.evaluate(x).flatten(1)
        known = value.isfinite()
        slack = 1e-12 * value.abs() + 1e-290
        assert bool((result[:, :units] <= value + slack)[known].all())
        assert bool((-result[:, units:] >= value - slack)[known].all())
    return result


@pytest.mark.parametrize("activation", [Relu(), LeakyRelu(0.1), Abs(), Sigmoid(), Tanh()], ids=lambda op: op.kind)
@pytest.mark.parametrize("radius", [0.0, 5e-324, 1e-300, 1e-16, 1e8, 1e200, 1e308])
def test_balls_of_any_size_give_neither_nan_nor_a_false_claim(activation: Op, radius: float) -> None:
    generator = torch.Generator().manual_seed(31)
    first, second, third = (torch.randn(4, 4, generator=generator, dtype=F64) for _ in range(3))
    network = chain((4,), Affine(first), activation, Affine(second), activation, Affine(third), dtype=F64)
    for scale in (0.0, 1.0, 1e-310):
        centre = torch.randn(2, 4, generator=generator, dtype=F64) * scale
        region = ball(centre, radius, radius)
        points = [region.clip(p, F64) for p in (centre, centre + radius, centre - radius)]
        result = claims(network, region, points)
        if radius <= 1e8:
            assert bool(result.isfinite().all())


@pytest.mark.parametrize("scale", [5e-324, 1e-320, 1e-300, 1e-160, 1e160, 1e300, 1e307])
def test_extreme_weights_give_neither_nan_nor_a_false_claim(scale: float) -> None:
    generator = torch.Generator().manual_seed(32)
    weights = [torch.randn(3, 3, generator=generator, dtype=F64) for _ in range(3)]
    centre = torch.randn(2, 3, generator=generator, dtype=F64)
    for place in range(3):
        scaled = [w * scale if i == place else w for i, w in enumerate(weights)]
        network = chain((3,), Affine(scaled[0]), Relu(), Affine(scaled[1]), Relu(), Affine(scaled[2]), dtype=F64)
        for radius in (0.0, 0.1, 1e10):
            region = ball(centre, radius, radius)
            points = [region.clip(p, F64) for p in (centre, centre + radius, centre - radius)]
            claims(network, region, points)


def test_a_region_without_a_finite_box_claims_nothing_false() -> None:
    # 1e308 in each coordinate: sums overflow, and the middle of the box does.
    network = relu_chain(1, (3, 5, 4, 2))
    region = ball(torch.full((1, 3), 1.5e308, dtype=F64), 1.7e308)
    result = claims(network, region, [region.centre])
    assert bool((result == -math.inf).all())


def test_ends_at_zero_are_closed_units_of_a_relu() -> None:
    # l = u = 0, l = 0 < u, l < 0 = u: the lines are the function itself.
    network = chain((3,), Relu(), Affine(torch.tensor([[1.0, 1.0, 1.0], [-1.0, -1.0, -1.0]], dtype=F64)), dtype=F64)
    region = BallRegion(torch.tensor([[0.0, 0.5, -0.5]], dtype=F64), torch.tensor([0.5], dtype=F64), None)
    bounds = linear_bounds(network, region)
    assert bounds.boxes[INPUT].lower[0, 1] == 0.0 and bounds.boxes[INPUT].upper[0, 2] == 0.0
    result = bounds.minimise(unit_rows(1, (2,))).bound[0]
    # Relu of the first is in [0, .5], with the chord .25 + x / 2 above; the second is x itself, the third 0.
    assert torch.allclose(result, torch.tensor([0.0, -1.5, -1.5, 0.0], dtype=F64), atol=1e-13)
    point = ball(torch.zeros(1, 3, dtype=F64), 0.0)
    assert linear_bounds(network, point).minimise(unit_rows(1, (2,))).bound.abs().max() < 1e-300


def test_bounds_at_a_point_enclose_the_exact_value() -> None:
    for seed in range(10):
        network = relu_chain(seed, (5, 9, 8, 3))
        centre = torch.randn(4, 5, generator=torch.Generator().manual_seed(seed), dtype=F64)
        result = linear_bounds(network, ball(centre, 0.0, 0.0, 0.0, 0.0)).minimise(unit_rows(4, (3,))).bound
        for i in range(4):
            for k, value in enumerate(exact_outputs(network, [Fraction(v) for v in centre[i].tolist()])):
                low, high = Fraction(float(result[i, k])), -Fraction(float(result[i, 3 + k]))
                assert low <= value <= high
                assert high - low < Fraction(1, 10**11)


@pytest.mark.parametrize("padding", [(0, 0, 0, 0), (1, 1, 1, 1), (1, 0, 0, 1)])
def test_max_pools_with_ties_and_padding_hold(padding: tuple[int, int, int, int]) -> None:
    generator = torch.Generator().manual_seed(33)
    weight = torch.randn(2, 1, 2, 2, generator=generator, dtype=F64)
    pool = MaxPool2d((2, 2), (1, 1), padding)
    shape = pool.output_shape((2, 3, 3))
    last = Affine(torch.randn(3, math.prod(shape), generator=generator, dtype=F64))
    flat = Reshape((math.prod(shape),))
    network = chain((1, 4, 4), Conv2d(weight), pool, Relu(), flat, last, dtype=F64)
    # Equal inputs tie everywhere; a single large one wins its windows; all below zero must not lose to padding.
    centres = torch.zeros(3, 1, 4, 4, dtype=F64)
    centres[1, 0, 1, 1] = 9.0
    centres[2] = -5.0
    for radius in (0.0, 0.1, 2.0):
        region = ball(centres, *[radius] * 3)
        points = list(sampled(region, 60, generator)) if radius else [centres]
        bounds = linear_bounds(network, region)
        result = bounds.minimise(unit_rows(3, (3,))).bound
        for x in points:
            value = network.evaluate(x)
            assert bool((result[:, :3] <= value + 1e-12).all()) and bool((-result[:, 3:] >= value - 1e-12).all())
        if not radius:
            # Some fifty roundings of terms up to 45 * 3.
            assert bool((-result[:, 3:] - result[:, :3] < 1e-11).all())


def test_a_difference_of_a_node_with_itself_is_zero() -> None:
    # Two paths meet with opposite signs: intervals lose all of it, linear bounds nothing but rounding.
    nodes = (
        Node("a", Affine(torch.tensor([[1.0, 2.0], [-3.0, 1.0]], dtype=F64)), (INPUT,)),
        Node("r", Relu(), ("a",)),
        Node("d", Sub(), ("r", "r")),
        Node("s", Add(), ("d", "d")),
        Node("y", AddConstant(torch.tensor(0.1, dtype=F64)), ("s",)),
    )
    network = Network(nodes, (2,), F64)
    result = linear_bounds(network, ball(torch.zeros(1, 2, dtype=F64), 1.0)).minimise(unit_rows(1, (2,))).bound[0]
    assert bool((result[:2] <= 0.1).all()) and bool((result[:2] > 0.1 - 1e-13).all())
    assert bool((result[2:] <= -0.1).all()) and bool((result[2:] > -0.1 - 1e-13).all())


# --------------------------------------------------------------------------------------- shapes at the border


def test_a_mean_over_a_map_before_dead_units_is_bounded() -> None:
    generator = torch.Generator().manual_seed(34)
    shift = torch.tensor([-9.0, -9.0, -9.0, -9.0, 0.0, 0.0], dtype=F64)
    for keep in (True, False):
        mean = GlobalAveragePool(4, keep_axes=keep)
        ops: list[Op] = [Conv2d(torch.randn(6, 1, 1, 1, generator=generator, dtype=F64)), mean]
        ops += [Reshape((6,))] if keep else []
        last = Affine(torch.randn(3, 6, generator=generator, dtype=F64))
        network = chain((1, 2, 2), *ops, AddConstant(shift), Relu(), last, dtype=F64)
        region = ball(torch.rand(2, 1, 2, 2, generator=generator, dtype=F64), 0.1, 0.5)
        claims(network, region, list(sampled(region, 50, generator)))


def test_windows_that_see_padding_only_are_bounded() -> None:
    generator = torch.Generator().manual_seed(35)

    def weight(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=F64)

    network = chain(
        (1, 3, 3),
        Conv2d(weight(2, 1, 3, 3), None, (1, 1), (1, 1, 1, 1)),
        Relu(),
        Conv2d(weight(2, 2, 1, 1), weight(2), (1, 1), (2, 1, 1, 2)),
        Relu(),
        Conv2d(weight(2, 2, 2, 2), weight(2)),
        Relu(),
        Reshape((2 * 5 * 5,)),
        Affine(weight(3, 50)),
        dtype=F64,
    )
    region = ball(torch.rand(2, 1, 3, 3, generator=generator, dtype=F64), 0.1, 0.5)
    claims(network, region, list(sampled(region, 50, generator)))


def test_scalar_nodes_are_bounded() -> None:
    first, second = torch.tensor([[1.0, 2.0], [1.0, -1.0]], dtype=F64), torch.tensor([[1.0, -1.0]], dtype=F64)
    network = chain(
        (2,),
        Affine(first),
        Relu(),
        Affine(second),
        Reshape(()),
        Relu(),
        AddConstant(torch.tensor(0.1, dtype=F64)),
        dtype=F64,
    )
    region = ball(torch.zeros(2, 2, dtype=F64), 0.5, 1.0)
    bounds = linear_bounds(network, region)
    result = bounds.minimise(torch.tensor([[1.0, -1.0]] * 2, dtype=F64)).bound
    values = network.evaluate(sampled(region, 200, torch.Generator().manual_seed(36)).flatten(0, 1)).reshape(-1, 2)
    assert bool((result[:, 0] <= values.amin(dim=0) + 1e-13).all())
    assert bool((-result[:, 1] >= values.amax(dim=0) - 1e-13).all())


def test_an_empty_batch_and_no_rows_give_empty_bounds() -> None:
    network = relu_chain(1, (2, 3, 2))
    empty = BallRegion(torch.zeros(0, 2, dtype=F64), torch.zeros(0, dtype=F64))
    assert linear_bounds(network, empty).minimise(torch.zeros(0, 4, 2, dtype=F64)).bound.shape == (0, 4)
    bounds = linear_bounds(network, ball(torch.zeros(2, 2, dtype=F64), 0.5, 1.0))
    assert bounds.minimise(torch.zeros(2, 0, 2, dtype=F64)).bound.shape == (2, 0)


def test_given_boxes_are_used_and_only_tighten() -> None:
    network = relu_chain(2, (3, 6, 6, 2))
    region = ball(torch.zeros(2, 3, dtype=F64), 0.5, 1.0)
    first = linear_bounds(network, region)
    again = linear_bounds(network, region, boxes=first.boxes)
    for name, box in first.boxes.items():
        assert bool((again.boxes[name].lower >= box.lower).all()) and bool((again.boxes[name].upper <= box.upper).all())


def test_interval_boxes_hold_for_subnormal_weights_on_wide_boxes() -> None:
    # |W| t is rounded, and a subnormal weight times 1 + 2(n+12)u is itself: the factor must not be lost.
    weight = torch.tensor([[5e-324 * 1234567]], dtype=F64)
    for op in (Affine(weight), Conv2d(weight.reshape(1, 1, 1, 1))):
        for share in torch.rand(40, generator=torch.Generator().manual_seed(37), dtype=F64).tolist():
            end = torch.full((1, 1) if isinstance(op, Affine) else (1, 1, 1, 1), share * 1e300, dtype=F64)
            box = op.interval(Box(-end, end))
            assert Fraction(float(box.upper)) >= Fraction(float(weight)) * Fraction(float(end.flatten()[0]))
