"""The laws that every op of the table obeys, checked against exact arithmetic.

The cases are `op_cases`, the boxes `op_boxes`; the oracles are `tests.oracles.op_values` and `op_ranges`.
"""

import math
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any

import mpmath
import pytest
import torch

from encoders.box import Box
from encoders.ops import (
    OPS,
    VIEWS,
    Add,
    AddConstant,
    Affine,
    AveragePool2d,
    AxisSum,
    BatchNorm,
    Concat,
    Conv2d,
    DivideConstant,
    Gather,
    GlobalAveragePool,
    LeakyRelu,
    MaxPool2d,
    MultiplyConstant,
    Mwd,
    MwdConv2d,
    Op,
    Reshape,
    Sigmoid,
    Slice,
    Sub,
    Tanh,
    Transpose,
    UnsupportedView,
    WeightedSum,
)
from tests.conformance.op_boxes import BOXES, EXTREME_BOXES, MAGNITUDES, MAX, boxes_of, points_of
from tests.conformance.op_cases import CASES, ROWS, STRESS_SCALES, Case, mwd, random
from tests.oracles.op_ranges import exact_ranges
from tests.oracles.op_values import (
    PRECISION,
    exact_numbers,
    exact_value,
    number_for,
)

F64 = torch.float64
INF = math.inf
# Wider than the exact range by this share of the operands' size at most: the bounds are a few dozen roundings.
TIGHTNESS = 1e-12
# Below this, underflow slack (a few dozen smallest normal numbers, times a weight) is all of a width.
UNDERFLOW = 1e-290
# float32 keeps 24 bits; the ops sum up to a few dozen terms of size 1 to 10.
FLOAT32_TOLERANCE = 1e-4


@pytest.fixture(autouse=True)
def _precision() -> Iterator[None]:
    with mpmath.workprec(PRECISION):
        yield


def weight_size(op: Op) -> float:
    """Return the largest weight or 1, for absolute tolerances."""
    return max([1.0, *(float(t.abs().max()) for t in op.parameters().values() if t.is_floating_point())])


def contains(box: Box, row: int, lower: list[Any], upper: list[Any]) -> bool:
    """Python compares a float (infinite ones too) with a Fraction or an mpmath number exactly."""
    ends = zip(box.lower[row].flatten().tolist(), lower, upper, box.upper[row].flatten().tolist(), strict=True)
    return all(a <= b and c <= d for a, b, c, d in ends)


# --------------------------------------------------------------------------------------------------- the laws


def test_the_table_covers_every_op() -> None:
    assert list(CASES) == list(OPS)
    for kind, cases in CASES.items():
        assert cases
        assert all(type(case.op) is OPS[kind] and case.op.kind == kind for case in cases)


@pytest.mark.parametrize("case", ROWS)
@pytest.mark.parametrize("magnitude", MAGNITUDES)
def test_interval_contains_evaluate_at_points_and_corners(case: Case, magnitude: str) -> None:
    boxes = boxes_of(case, magnitude, seed=101)
    result = case.op.interval(*boxes)
    assert bool((result.lower <= result.upper).all())
    for x in points_of(boxes, 20, seed=102):
        value = case.op.evaluate(*x)
        # Overflow of the float evaluation is its own error, not the interval's: exact laws follow below.
        value = value.where(value.isfinite(), result.lower)
        assert bool(result.contains(value).all())


@pytest.mark.parametrize("case", ROWS)
@pytest.mark.parametrize("magnitude", MAGNITUDES)
def test_interval_contains_the_exact_range_and_is_tight(case: Case, magnitude: str) -> None:
    boxes = boxes_of(case, magnitude, seed=103)
    result = case.op.interval(*boxes)
    for row, exact in enumerate(exact_ranges(case, boxes)):
        assert contains(result, row, exact.lower, exact.upper)
        low, high = result.lower[row].flatten().tolist(), result.upper[row].flatten().tolist()
        for a, b, c, d, size in zip(low, exact.lower, exact.upper, high, exact.size, strict=True):
            if size > MAX / 4:
                continue
            slack = size * Fraction(TIGHTNESS) if isinstance(size, Fraction) else size * TIGHTNESS
            assert b - a <= slack + type(slack)(UNDERFLOW)
            assert d - c <= slack + type(slack)(UNDERFLOW)


def test_plain_float64_intervals_miss_the_exact_range_where_ours_do_not() -> None:
    missed = 0
    for case in CASES["affine"]:
        op = case.op
        assert isinstance(op, Affine)
        boxes = boxes_of(case, "ordinary", seed=104)
        positive, negative = op.weight.clamp(min=0), op.weight.clamp(max=0)
        bias = 0.0 if op.bias is None else op.bias
        low, high = boxes[0].lower, boxes[0].upper
        plain = Box.unchecked(low @ positive.T + high @ negative.T + bias, high @ positive.T + low @ negative.T + bias)
        ours = op.interval(*boxes)
        for row, exact in enumerate(exact_ranges(case, boxes)):
            missed += not contains(plain, row, exact.lower, exact.upper)
            assert contains(ours, row, exact.lower, exact.upper)
    assert missed > 5


@pytest.mark.parametrize("case", ROWS)
def test_the_interval_of_a_smaller_box_lies_inside_up_to_rounding(case: Case) -> None:
    boxes = boxes_of(case, "ordinary", seed=105)
    inner = tuple(
        Box(a, torch.maximum(a, b))
        for box in boxes
        for a, b in [(box.lower * 0.75 + box.upper * 0.25, box.lower * 0.25 + box.upper * 0.75)]
    )
    outside, inside = case.op.interval(*boxes), case.op.interval(*inner)
    # Operands are weights times values up to 10.
    slack = TIGHTNESS * 10.0 * weight_size(case.op)
    assert bool((inside.lower >= outside.lower - slack).all())
    assert bool((inside.upper <= outside.upper + slack).all())


@pytest.mark.parametrize("case", ROWS)
def test_evaluate_is_differentiable(case: Case) -> None:
    # Random points are no ties: two equal values in a maximum have probability 0.
    x = tuple(random(2, *shape, seed=106 + i).requires_grad_() for i, shape in enumerate(case.shapes))
    assert torch.autograd.gradcheck(case.op.evaluate, x, eps=1e-6, atol=1e-6 * weight_size(case.op), rtol=1e-4)


@pytest.mark.parametrize("case", ROWS)
def test_an_empty_batch_has_empty_values_and_boxes(case: Case) -> None:
    """Searches go on with what is left of a batch, which may be nothing."""
    boxes = tuple(Box.unchecked(box.lower[:0], box.upper[:0]) for box in boxes_of(case, "ordinary", seed=1))
    shape = (0, *case.op.output_shape(*case.shapes))
    assert case.op.evaluate(*(box.lower for box in boxes)).shape == shape
    assert case.op.interval(*boxes).lower.shape == shape


@pytest.mark.parametrize("case", ROWS)
def test_rows_of_a_batch_are_independent(case: Case) -> None:
    x = tuple(random(4, *shape, seed=107 + i) for i, shape in enumerate(case.shapes))
    together = case.op.evaluate(*x)
    for row in range(4):
        alone = case.op.evaluate(*(value[row : row + 1] for value in x))
        # Libraries sum in another order for another batch size.
        tolerance = TIGHTNESS * weight_size(case.op)
        torch.testing.assert_close(together[row : row + 1], alone, rtol=TIGHTNESS, atol=tolerance)
        changed = tuple(value.clone() for value in x)
        for value in changed:
            value[(row + 1) % 4] = torch.nan
        assert torch.equal(case.op.evaluate(*changed)[row], together[row])


@pytest.mark.parametrize("case", ROWS)
def test_an_infinite_box_does_not_widen_the_other_rows_of_its_batch(case: Case) -> None:
    boxes = boxes_of(case, "ordinary", seed=108)
    before = case.op.interval(*boxes)
    for box in boxes:
        box.lower[2], box.upper[2] = -INF, INF
    after = case.op.interval(*boxes)
    others = torch.arange(BOXES) != 2
    assert torch.equal(before[others].lower, after[others].lower)
    assert torch.equal(before[others].upper, after[others].upper)


@pytest.mark.parametrize("case", ROWS)
def test_float32_is_close_to_float64(case: Case) -> None:
    x = tuple(random(5, *shape, seed=109 + i).float() for i, shape in enumerate(case.shapes))
    single = case.op.cast(torch.float32, torch.device("cpu"))
    result = single.evaluate(*x)
    assert result.dtype == torch.float32
    wide = case.op.evaluate(*(value.double() for value in x))
    tolerance = FLOAT32_TOLERANCE * weight_size(case.op)
    torch.testing.assert_close(result.double(), wide, rtol=FLOAT32_TOLERANCE, atol=tolerance)


@pytest.mark.parametrize("case", ROWS)
def test_a_degenerate_box_contains_the_value(case: Case) -> None:
    x = tuple(random(5, *shape, seed=110 + i) for i, shape in enumerate(case.shapes))
    box = case.op.interval(*(Box.point(value) for value in x))
    assert bool(box.contains(case.op.evaluate(*x)).all())


@pytest.mark.parametrize("case", ROWS)
def test_infinite_and_huge_ends_give_neither_nan_nor_a_box_that_is_too_small(case: Case) -> None:
    generator = torch.Generator().manual_seed(111)
    number = number_for(case.op)
    ends = torch.tensor(EXTREME_BOXES, dtype=F64)
    for trial in range(4):
        boxes = []
        for shape in case.shapes:
            # First the same kind of box in all places, then mixtures.
            kinds = torch.arange(len(ends)).reshape(-1, *[1] * len(shape)).expand(-1, *shape)
            if trial:
                kinds = torch.randint(len(ends), (len(ends), *shape), generator=generator)
            boxes.append(Box(ends[kinds][..., 0], ends[kinds][..., 1]))
        result = case.op.interval(*boxes)
        assert bool((result.lower <= result.upper).all()), "NaN or wrong order"
        finite = tuple(Box(b.lower.clamp(-MAX, MAX), b.upper.clamp(-MAX, MAX)) for b in boxes)
        for x in points_of(finite, 4, seed=112 + trial):
            for row in range(len(ends)):
                point = tuple(exact_numbers(value[row], number) for value in x)
                value = exact_value(case.op, point, number).reshape(-1).tolist()
                assert contains(result, row, value, value)


@pytest.mark.parametrize("kind", [kind for kind, cases in CASES.items() if cases[0].op.parameters()])
@pytest.mark.parametrize("scale", STRESS_SCALES)
def test_extreme_weights_keep_the_exact_range_inside(kind: str, scale: float) -> None:
    for case in CASES[kind][:3]:
        scaled = {
            name: value * scale if value.is_floating_point() else value for name, value in case.op.parameters().items()
        }
        if "variance" in scaled:
            scaled["variance"] = scaled["variance"].clamp(min=1e-310)
        if any(not bool(value.isfinite().all()) for value in scaled.values()):
            continue
        extreme = type(case.op)(**scaled, **case.op.settings())
        for magnitude in MAGNITUDES:
            boxes = boxes_of(case, magnitude, seed=113)
            boxes = tuple(box[:3] for box in boxes)
            result = extreme.interval(*boxes)
            for row, exact in enumerate(exact_ranges(Case(extreme, case.shapes), boxes)):
                assert contains(result, row, exact.lower, exact.upper), magnitude


def test_a_width_that_overflows_times_a_zero_weight_is_no_nan() -> None:
    # 0 * (MAX - (-MAX)) in the radius; the value 0 * 0 + 1 * 0.5 is finite.
    op = Affine(torch.tensor([[0.0, 1.0]], dtype=F64))
    box = op.interval(Box(torch.tensor([[-MAX, 0.0]], dtype=F64), torch.tensor([[MAX, 1.0]], dtype=F64)))
    assert float(box.lower) <= 0.0 and float(box.upper) >= 1.0


def test_batch_norm_covers_the_cancellation_of_its_shift() -> None:
    # y = 0 up to rounding: the error is that of the product and the shift, not of y.
    op = BatchNorm(random(500, seed=117), random(500, seed=118).square(), random(500, seed=119), random(500, seed=120))
    x = (op.mean - op.shift * torch.sqrt(op.variance + op.epsilon) / op.scale)[None]
    box = op.interval(Box.point(x))
    value = exact_value(op, (exact_numbers(x[0], mpmath.mpf),), mpmath.mpf).tolist()
    assert contains(box, 0, value, value)
    assert bool((box.upper - box.lower <= TIGHTNESS * (1.0 + op.shift.abs())).all())


@pytest.mark.parametrize(("op", "least"), [(Sigmoid(), 0.0), (Tanh(), -1.0), (mwd(1, 1, [True], seed=121), 0.0)])
def test_bounded_ops_keep_their_bounds(op: Op, least: float) -> None:
    ends = torch.tensor([[-INF], [-1e4], [0.0]], dtype=F64)
    box = op.interval(Box(ends, -ends))
    assert float(box.lower.min()) >= least and float(box.upper.max()) <= 1.0


def test_batch_norm_covers_a_quotient_that_underflows_before_a_large_scale() -> None:
    # 1e-300 / sqrt(1e300) * 1e300 = 1e-150, while the quotient 1e-450 is 0 in floats.
    one = torch.ones(1, dtype=F64)
    op = BatchNorm(one * 0, one * 1e300, one * 1e300, one * 0, 0.0)
    box = op.interval(Box.point(torch.tensor([[1e-300]], dtype=F64)))
    assert float(box.lower) <= 1e-150 <= float(box.upper)


@pytest.mark.parametrize("case", ROWS)
def test_output_shape_agrees_with_evaluate_and_interval(case: Case) -> None:
    x = tuple(random(3, *shape, seed=114 + i) for i, shape in enumerate(case.shapes))
    expected = case.op.output_shape(*case.shapes)
    assert tuple(case.op.evaluate(*x).shape) == (3, *expected)
    assert case.op.interval(*(Box.point(value) for value in x)).shape == expected


@pytest.mark.parametrize("case", ROWS)
def test_a_linear_op_is_its_apply_plus_bias(case: Case) -> None:
    if not isinstance(case.op, WeightedSum):
        return
    x, y = (random(2, *case.shapes[0], seed=seed) for seed in (115, 116))
    zero = torch.zeros_like(x)
    tolerance = {"rtol": 1e-9, "atol": 1e-6}
    torch.testing.assert_close(case.op.evaluate(x) - case.op.evaluate(zero), case.op.apply(x), **tolerance)
    torch.testing.assert_close(case.op.apply(x + 2.0 * y), case.op.apply(x) + 2.0 * case.op.apply(y), **tolerance)


@pytest.mark.parametrize("case", ROWS)
def test_a_missing_view_is_refused_by_name(case: Case) -> None:
    assert case.op.views()[:2] == ("evaluate", "interval")
    for view in set(VIEWS) - set(case.op.views()):
        with pytest.raises(UnsupportedView, match=f"{case.op.kind!r} has no view {view!r}; it has: evaluate, interval"):
            getattr(case.op, view)(None)


# One wrong input each: an op refuses shapes that evaluate could not take.
MISFITS: list[tuple[Op, tuple[tuple[int, ...], ...]]] = [
    (Affine(torch.ones(2, 3)), ((4,),)),
    (Affine(torch.ones(2, 3)), ((),)),
    (Conv2d(torch.ones(1, 2, 3, 3)), ((1, 5, 5),)),
    (Conv2d(torch.ones(1, 2, 3, 3)), ((2, 2, 5),)),
    (Add(), ((3,), (1,))),
    (Sub(), ((2, 3), (3,))),
    (AddConstant(torch.ones(2, 3)), ((3,),)),
    (MultiplyConstant(torch.ones(4)), ((3,),)),
    (DivideConstant(torch.ones(2, 1)), ((1, 3),)),
    (Reshape((4,)), ((3,),)),
    (Reshape((-1, -3)), ((3,),)),
    (Transpose((0, 0)), ((2, 3),)),
    (Concat(0), ((2, 1), (2, 2))),
    (Slice(0, 0, 4), ((3,),)),
    (Gather(torch.tensor([0, 4])), ((2, 2),)),
    (AxisSum((1,), 2), ((2,),)),
    (AxisSum((0,), 2), ((3, 2),)),
    (BatchNorm(*[torch.ones(2)] * 4), ((3,),)),
    (AveragePool2d((2, 2), (1, 1)), ((2, 2),)),
    (GlobalAveragePool(4), ((2, 5),)),
    (MaxPool2d((3, 3), (1, 1)), ((1, 2, 2),)),
    (Mwd(torch.ones(2, 3), torch.ones(2, 3), torch.tensor([True, False])), ((2,),)),
    (MwdConv2d(torch.ones(2, 1, 3, 3), torch.ones(2, 1, 3, 3), torch.tensor([True, False])), ((2, 5, 5),)),
    (MwdConv2d(torch.ones(2, 1, 3, 3), torch.ones(2, 1, 3, 3), torch.tensor([True, False])), ((1, 2, 5),)),
]


@pytest.mark.parametrize(("op", "shapes"), MISFITS, ids=[op.kind for op, _ in MISFITS])
def test_shapes_that_do_not_fit_are_refused(op: Op, shapes: tuple[tuple[int, ...], ...]) -> None:
    with pytest.raises(ValueError):
        op.output_shape(*shapes)


WRONG_SETTINGS: list[Callable[[], Op]] = [
    lambda: Affine(torch.ones(2, 3), torch.ones(3)),
    lambda: Conv2d(torch.ones(3, 1, 2, 2), groups=2),
    lambda: DivideConstant(torch.tensor([1.0, 0.0])),
    lambda: Gather(torch.tensor([0.0, 1.0])),
    lambda: Gather(torch.tensor([0, -1])),
    lambda: Gather(torch.tensor([0, -2]), torch.tensor(0.0)),
    lambda: Gather(torch.tensor([0, -1]), torch.zeros(1, 2)),
    lambda: Gather(torch.zeros(0, dtype=torch.int64)),
    lambda: AxisSum((), 1),
    lambda: AxisSum((1, 0), 4),
    lambda: AxisSum((-1,), 4),
    lambda: LeakyRelu(1.5),
    lambda: LeakyRelu(math.nan),
    lambda: BatchNorm(*[torch.zeros(2)] * 4, epsilon=0.0),
    lambda: BatchNorm(*[torch.ones(2)] * 4, epsilon=math.nan),
    lambda: BatchNorm(*[torch.ones(2)] * 4, epsilon=math.inf),
    lambda: BatchNorm(torch.ones(2), -torch.ones(2), torch.ones(2), torch.ones(2), epsilon=2.0),
    lambda: AveragePool2d((3, 3), (1, 1), (2, 2, 2, 2)),
    lambda: MaxPool2d((2, 2), (1, 1), (2, 0, 0, 0)),
    lambda: Mwd(-torch.ones(1, 2), torch.ones(1, 2), torch.tensor([True])),
    lambda: Mwd(torch.ones(1, 2), torch.ones(1, 2), torch.tensor([1])),
    lambda: Mwd(torch.ones(1, 2), torch.ones(1, 2), torch.tensor([True]), None, "cubic"),
    lambda: Mwd(torch.ones(1, 2), torch.ones(1, 2), torch.tensor([True]), torch.ones(1)),
    lambda: Mwd(torch.ones(1, 2), torch.ones(1, 2), torch.tensor([True]), torch.ones(2), "linear"),
    lambda: MwdConv2d(torch.ones(1, 2), torch.ones(1, 2), torch.tensor([True])),
    lambda: MwdConv2d(-torch.ones(1, 1, 2, 2), torch.ones(1, 1, 2, 2), torch.tensor([True])),
    lambda: MwdConv2d(torch.ones(1, 1, 2, 2), torch.ones(1, 1, 2, 2), torch.tensor([True]), (0, 1)),
    lambda: MwdConv2d(torch.ones(1, 1, 2, 2), torch.ones(1, 1, 2, 2), torch.tensor([True]), (1, 1), (2, 0, 0, 0)),
]


@pytest.mark.parametrize("make", WRONG_SETTINGS)
def test_settings_without_a_meaning_are_refused(make: Callable[[], Op]) -> None:
    with pytest.raises(ValueError):
        make()


def test_a_max_pool_window_without_any_input_is_refused() -> None:
    # Kernel 2, dilation 2, padding 1 on one row: the window looks at rows -1 and 1 only.
    with pytest.raises(ValueError, match="without any input"):
        MaxPool2d((2, 1), (1, 1), (1, 0, 1, 0), (2, 1)).output_shape((1, 1, 1))
