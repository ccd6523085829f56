"""Boxes of weights: bounds hold, in rational numbers, for every weight and input of the boxes, and are not wasteful."""

import itertools
from fractions import Fraction

import pytest
import torch
from torch import Tensor

from encoders import Network
from encoders.box import Box
from encoders.ops import Affine, Conv2d, DropConnect, DropConnect2d, Op, RandomAffine, RandomConv2d, Relu, Reshape
from encoders.ops.weight_box import WeightBox, box_around
from encoders.views.coefficients import Coefficients
from tests.networks.chains import chain

F64 = torch.float64
CPU = torch.device("cpu")
SIGNS = {"any": (-1.0, 1.0), "not negative": (0.0, 1.0), "not positive": (-1.0, 0.0), "huge": (-1e250, 1e250)}


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def rand(*shape: int, seed: int) -> Tensor:
    return torch.rand(*shape, generator=generator(seed), dtype=F64)


def fractions(x: Tensor) -> list[Fraction]:
    return [Fraction(value) for value in x.flatten().tolist()]


def small_box(seed: int, scale: float = 1.0) -> WeightBox:
    """Return a box of 2 x 3 weights, one of them known, and two biases."""
    weight, bias = (rand(2, 3, seed=seed) - 0.5) * scale, rand(2, seed=seed + 1) - 0.5
    spread = rand(2, 3, seed=seed + 2) * 0.3 * scale
    spread[0, 1] = 0.0
    return box_around(Affine(weight, bias), {}, {"weight": spread, "bias": rand(2, seed=seed + 3) * 0.1})


def corners(box: WeightBox, unit: int, lower: Tensor, upper: Tensor) -> list[Fraction]:
    """Return the values of a unit at all corners of weights, bias and inputs, in rational numbers."""
    centre, spread = box.centre.parameters(), box.spread.parameters()
    c, r = fractions(centre["weight"][unit]), fractions(spread["weight"][unit])
    b, s = fractions(centre["bias"][unit : unit + 1])[0], fractions(spread["bias"][unit : unit + 1])[0]
    ends = [sorted({*pair}) for pair in zip(fractions(lower), fractions(upper), strict=True)]
    values = []
    for x in itertools.product(*ends):
        for signs in itertools.product((-1, 1), repeat=len(c)):
            values.append(b + sum((ci + sign * ri) * xi for ci, ri, sign, xi in zip(c, r, signs, x, strict=True)))
    return [value + end for value in values for end in (-s, s)]


@pytest.mark.parametrize("signs", SIGNS)
@pytest.mark.parametrize("scale", [1.0, 1e-310])
def test_intervals_and_lines_contain_every_corner_exactly(signs: str, scale: float) -> None:
    least, greatest = SIGNS[signs]
    for seed in range(3):
        box = small_box(seed * 10, scale)
        ends = torch.sort(rand(2, 1, 3, seed=seed + 500) * (greatest - least) + least, dim=0).values
        if seed == 0:
            ends[1] = ends[0]
        x = Box(ends[0], ends[1])
        found, envelope = box.interval(x), box.envelope(x)
        for unit in range(2):
            values = corners(box, unit, x.lower, x.upper)
            assert found.lower[0, unit].item() <= min(values) and max(values) <= found.upper[0, unit].item()
            if signs == "not negative" and scale == 1.0:
                # Exact up to a few roundings of numbers of size 1.
                assert min(values) - Fraction(found.lower[0, unit].item()) < 1e-14
                assert Fraction(found.upper[0, unit].item()) - max(values) < 1e-14
        # Rows c of the outputs: the least value over all corners of weights and inputs lies above the line's.
        rows = torch.randn(1, 2, 2, generator=generator(seed), dtype=F64)
        (slopes,), constant = envelope.below(Coefficients(rows))
        for row in range(2):
            c = fractions(rows[0, row])
            for point in itertools.product(*zip(x.lower[0], x.upper[0], strict=True)):
                at = torch.stack(point)[None]
                least_value = sum(min(ck * value for value in corners(box, unit, at, at)) for unit, ck in enumerate(c))
                line = Fraction(constant[0, row].item()) + sum(
                    a * v for a, v in zip(fractions(slopes.full((3,))[0, row]), fractions(at), strict=True)
                )
                assert line <= least_value
                if signs == "not negative" and scale == 1.0:
                    assert least_value - line < 1e-13


def test_differences_of_classes_are_proved_with_the_inputs_in_common() -> None:
    """y_0 - y_1 with x in common is positive here, though the two boxes of values overlap."""
    box = box_around(
        Affine(torch.tensor([[1.0, 1.0], [1.0, 0.5]], dtype=F64)), {}, {"weight": torch.full((2, 2), 0.1, dtype=F64)}
    )
    x = Box(torch.tensor([[0.5, 1.0]], dtype=F64), torch.tensor([[1.0, 1.0]], dtype=F64))
    classes = torch.tensor([0])
    values = box.interval(x)
    assert values.lower[0, 0] < values.upper[0, 1]
    # 0.5 x_1 - 0.2 x_0 - 0.2 x_1 >= 0.5 - 0.4; with a spread of 0.13 a draw has 0.5 - 0.52.
    assert bool(box.compare(x, classes=classes).wins.all())
    wider = box_around(box.mean, {}, {"weight": torch.full((2, 2), 0.13, dtype=F64)})
    assert not bool(wider.compare(x, classes=classes).wins.all())


def networks() -> dict[str, Network]:
    conv, dense, last = rand(2, 1, 3, 3, seed=1) - 0.3, rand(5, 32, seed=2) - 0.5, rand(3, 5, seed=3) - 0.5
    bias = rand(2, seed=4)
    tail: list[Op] = [Relu(), Reshape((32,))]
    normal = [
        RandomConv2d(conv.float(), bias.float(), deviation=conv.abs().float() / 50, bias_deviation=bias.float() / 50),
        *tail,
        RandomAffine(dense.float(), deviation=torch.full((5, 32), 0.01)),
        Relu(),
        RandomAffine(last.float(), torch.ones(3), deviation=last.abs().float() / 20),
    ]
    dropped = [
        DropConnect2d(conv, bias, rate=0.05),
        *tail,
        DropConnect(dense / 3, rate=0.3),
        Relu(),
        DropConnect(last, torch.ones(3, dtype=F64), rate=0.5),
    ]
    return {
        "normal": chain((1, 6, 6), *normal),
        "dropped": chain((1, 6, 6), *dropped, dtype=F64),
    }


def weights_within(network: Network, drawn: Network) -> bool:
    """Return whether the weights of a draw lie in the box, compared without rounding."""
    for node, other in zip(network.nodes, drawn.nodes, strict=True):
        if not isinstance(node.op, WeightBox):
            continue
        centre, spread = node.op.centre.parameters(), node.op.spread.parameters()
        for name, value in other.op.parameters().items():
            for w, c, r in zip(
                fractions(value),
                fractions(centre[name]),
                fractions(spread[name]) if name in spread else [Fraction(0)] * value.numel(),
                strict=True,
            ):
                if not c - r <= w <= c + r:
                    return False
    return True


@pytest.mark.parametrize("name", ["normal", "dropped"])
def test_bounds_over_draws_contain_ten_thousand_draws_and_points(name: str) -> None:
    """Of the intervals here; of the linear bounds in `tests/verifier/bounds/linear`."""
    network = networks()[name]
    within = network.over_draws(3.5)
    centre = rand(1, 1, 6, 6, seed=5)
    box = Box(centre - 0.03, centre + 0.03)
    (found,) = within.interval(box)
    source, inside = generator(6), 0
    for _ in range(100):
        drawn = network.draw(source)
        if not weights_within(within, drawn):
            continue
        x = centre + (torch.rand(120, 1, 6, 6, generator=source, dtype=F64) * 2 - 1).sign() * 0.03
        x = torch.minimum(torch.maximum(x, box.lower), box.upper)
        assert bool(found.contains(drawn.evaluate(x)).all())
        inside += len(x)
    assert inside >= 10_000
    assert found.upper.isfinite().all()


def test_every_dropped_weight_lies_in_the_box_however_it_was_rounded() -> None:
    for dtype in (torch.float32, F64, torch.bfloat16):
        weight = (rand(40, 40, seed=8) - 0.5).to(dtype)
        weight[0] = torch.tensor(1e-40, dtype=dtype)
        network = chain((40,), DropConnect(weight, rate=0.3))
        assert all(weights_within(network.over_draws(0.0), network.draw(generator(seed))) for seed in range(3))


def test_the_mean_is_one_of_the_draws_and_is_what_is_evaluated() -> None:
    for network in networks().values():
        within, x = network.over_draws(2.0), rand(3, 1, 6, 6, seed=7)
        assert torch.equal(within.evaluate(x), network.evaluate(x))
        means = chain((1, 6, 6), *(getattr(node.op, "mean", node.op) for node in within.nodes), dtype=network.dtype)
        assert weights_within(within, means)
        assert torch.equal(means.evaluate(x), network.evaluate(x))


def test_no_deviation_leaves_the_bounds_of_the_mean() -> None:
    network = networks()["normal"]
    box = Box(rand(2, 1, 6, 6, seed=9), rand(2, 1, 6, 6, seed=9) + 0.05)
    (found,), (mean,) = network.over_draws(0.0).interval(box), network.interval(box)
    torch.testing.assert_close(found.lower, mean.lower, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found.upper, mean.upper, rtol=1e-12, atol=1e-12)


def test_only_views_that_bounds_need_are_there() -> None:
    """Rows and pieces are of one network: a program would find out about the mean alone."""
    within = networks()["normal"].over_draws(1.0)
    boxes = [node.op for node in within.nodes if isinstance(node.op, WeightBox)]
    assert len(boxes) == 3
    assert all(op.views() == ("evaluate", "interval", "envelope") and not op.linear for op in boxes)


def test_how_far_draws_lie_is_part_of_the_identity_and_survives_casts() -> None:
    network = networks()["normal"]
    digests = {network.digest, *(network.over_draws(k).digest for k in (0.0, 1.0, 2.0))}
    assert len(digests) == 4
    within = network.over_draws(1.0)
    assert within.cast(F64).cast(torch.float32).nodes[0].op.centre.weight.dtype == torch.float32
    assert within.cast(F64).nodes[0].op.spread.parameters().keys() == {"weight", "bias"}


def test_the_share_of_draws_is_that_of_independent_normal_weights() -> None:
    network = networks()["normal"]
    # 18 + 2 + 160 + 15 weights, none of deviation zero; P(|z| <= 2) = 0.9544997.
    assert network.share_of_draws(2.0) == pytest.approx(0.9544997361036416**195)
    within, source = network.over_draws(3.5), generator(10)
    found = sum(weights_within(within, network.draw(source)) for _ in range(300))
    share = network.share_of_draws(3.5)
    # Five standard errors of a share of 300.
    assert abs(found / 300 - share) <= 5 * (share * (1 - share) / 300) ** 0.5
    assert networks()["dropped"].share_of_draws(0.0) == 1.0


@pytest.mark.parametrize("deviations", [-1.0, float("inf"), float("nan")])
def test_what_is_no_number_of_deviations_is_refused(deviations: float) -> None:
    with pytest.raises(ValueError, match="draws lie within a finite number of deviations"):
        networks()["normal"].over_draws(deviations)


def test_boxes_of_convolutions_match_those_of_the_matrices_they_are() -> None:
    """A convolution as a dense layer of its matrix: the same bounds, as no output here reads a weight twice."""
    conv = Conv2d(rand(2, 1, 2, 2, seed=11) - 0.5, rand(2, seed=12), (2, 1), (1, 0, 0, 1))
    spread = {"weight": rand(2, 1, 2, 2, seed=13) * 0.1, "bias": rand(2, seed=14) * 0.1}
    box = box_around(conv, {}, spread)
    shape = (1, 4, 3)
    matrices = [torch.tensor(op.matrix(shape).toarray()) for op in (box.centre, box.spread)]
    biases = [op.evaluate(torch.zeros(1, *shape, dtype=F64)).flatten() for op in (box.centre, box.spread)]
    dense = box_around(Affine(matrices[0], biases[0]), {}, {"weight": matrices[1], "bias": biases[1]})
    lower = rand(3, *shape, seed=15) - 0.6
    x = Box(lower, lower + rand(3, *shape, seed=16))
    found, expected = box.interval(x), dense.interval(Box(x.lower.flatten(1), x.upper.flatten(1)))
    torch.testing.assert_close(found.lower.flatten(1), expected.lower, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found.upper.flatten(1), expected.upper, rtol=1e-12, atol=1e-12)
    rows = torch.randn(3, 5, *box.output_shape(shape), generator=generator(17), dtype=F64)
    (slopes,), constant = box.envelope(x).below(Coefficients(rows))
    (others,), values = dense.envelope(Box(x.lower.flatten(1), x.upper.flatten(1))).below(Coefficients(rows.flatten(2)))
    torch.testing.assert_close(slopes.full(shape).flatten(2), others.full((12,)), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(constant, values, rtol=1e-12, atol=1e-12)
