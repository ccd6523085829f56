"""The law of the view `envelope`: c . op(x) >= sum_i a_i . x_i + constant on the boxes, in exact arithmetic.

The worst point of a box is found exactly where that is possible (affine ops, elementwise ops: each unit alone), else
among many. A constant or a coefficient that is not finite claims nothing: `LinearBounds` reads it as minus infinity.
"""

import math
from collections.abc import Iterator
from functools import cache
from typing import Any

import mpmath
import numpy as np
import pytest
import torch
from torch import Tensor

from encoders.box import Box
from encoders.ops import (
    Abs,
    BatchNorm,
    Curve,
    KWinners,
    LeakyRelu,
    LogSoftmax,
    MatrixProduct,
    MaxPool2d,
    MultiplyConstant,
    Op,
    Product,
    Relu,
    ReluDifference,
    Sigmoid,
    Softmax,
    Tanh,
)
from encoders.views.coefficients import Coefficients
from encoders.views.envelope import Envelope
from tests.conformance.op_boxes import EXTREME_BOXES, MAGNITUDES, MAX, boxes_of, points_of
from tests.conformance.op_cases import CASES, STRESS_SCALES, Case, random
from tests.oracles.op_ranges import Range, exact_matrix, exact_ranges
from tests.oracles.op_values import PRECISION, Exact, exact_numbers, exact_value, is_linear, number_for

F64 = torch.float64
# The law is checked on this many boxes of each kind: the first is a point.
CHECKED = 2
# Of an affine op the gap between the bound and the exact least value, as a share of the terms' sizes.
TIGHTNESS = 1e-10
# What is lost to underflow beside that share.
UNDERFLOW = 1e-290
# Outputs depend on several inputs, and not linearly.
MIXING = (MaxPool2d, Softmax, LogSoftmax, KWinners)
HINGES: dict[type[Op], float] = {Relu: 0.0, Abs: -1.0}
WITH_ENVELOPE = [
    pytest.param(case, id=f"{kind}-{i}")
    for kind, cases in CASES.items()
    for i, case in enumerate(cases)
    if "envelope" in case.op.views()
]
HINGE_CASES = [Case(op, ((5,),)) for op in (Relu(), Abs(), LeakyRelu(0.0), LeakyRelu(0.3), LeakyRelu(1.0))]


@pytest.fixture(autouse=True)
def _precision() -> Iterator[None]:
    with mpmath.workprec(PRECISION):
        yield


@cache
def matrix_of(case: Case) -> tuple[Exact, Exact]:
    return exact_matrix(case)


def rows_of(batch: int, shape: tuple[int, ...], seed: int) -> Tensor:
    """Return coefficients `(batch, rows, *shape)` of all sorts."""
    normal = random(batch, 3, *shape, seed=seed)
    generator = torch.Generator().manual_seed(seed + 1)
    hot = torch.nn.functional.one_hot(
        torch.randint(math.prod(shape), (batch, 1), generator=generator), math.prod(shape)
    )
    hot = hot.to(F64).reshape(batch, 1, *shape)
    spread = 10.0 ** (torch.rand(batch, 1, *shape, generator=generator, dtype=F64) * 60.0 - 30.0)
    sparse = normal[:, :1] * (normal[:, 1:2] > 0.3)
    first = normal[:, :1]
    return torch.cat([first, sparse, hot, -hot, torch.zeros_like(hot), first * 1e20, first * 1e-310, first * spread], 1)


def worst_residual(case: Case, box: tuple[Box, ...], constant_op: Range | None, c: Exact, a: Exact) -> Any:
    """Return the least c . op(x) - a . x over the boxes (batch 1), exactly or over many points.

    constant_op: the exact range of the outputs, of ops whose envelope is constant. c, a: flat, inputs side by side.
    """
    op, number = case.op, number_for(case.op)
    if constant_op is not None:
        ends = zip(c, constant_op.lower, constant_op.upper, strict=True)
        return sum(min(v * x, v * y) for v, x, y in ends)
    low, high = (
        np.concatenate([exact_numbers(end[0], number).reshape(-1) for end in ends])
        for ends in ([part.lower for part in box], [part.upper for part in box])
    )
    if is_linear(op):
        matrix, bias = matrix_of(case)
        residual = c @ matrix - a
        return np.minimum(residual * low, residual * high).sum() + c @ bias
    if isinstance(op, ReluDifference):
        units = zip(c, *(zip(*np.split(part, 2), strict=True) for part in (a, low, high)), strict=True)
        return sum(difference_minimum(*unit) for unit in units)
    if isinstance(op, Product | MatrixProduct):
        return bilinear_minimum(case, c, a, low, high)
    if not isinstance(op, MIXING):
        return sum(unit_minimum(op, *unit) for unit in zip(c, a, low, high, strict=True))
    # Where the function below is greatest, with the units that it does not see at either end.
    points = [np.where(a > 0, high, np.where(a < 0, low, rest)) for rest in (low, high)] + [low, high]
    points += [exact_numbers(x[0][0], number).reshape(-1) for x in points_of(box, 6, seed=0)]
    return min(c @ exact_value(op, (x.reshape(case.shapes[0]),), number).reshape(-1) - a @ x for x in points)


def bilinear_minimum(case: Case, c: Exact, a: Exact, low: Exact, high: Exact) -> Any:
    """Return a value of c . op(x, y) - a . (x, y) at corners, descending unit by unit: near the least, or it."""
    size = math.prod(case.shapes[0])

    def value(corner: Exact) -> Any:
        parts = np.split(corner, [size])
        inputs = tuple(part.reshape(shape) for part, shape in zip(parts, case.shapes, strict=True))
        return c @ exact_value(case.op, inputs, number_for(case.op)).reshape(-1) - a @ corner

    found = []
    for start in (low, high):
        corner, least = start.copy(), value(start)
        for i in range(len(low)):
            for end in (low[i], high[i]):
                trial = corner.copy()
                trial[i] = end
                if (reached := value(trial)) < least:
                    corner, least = trial, reached
        found.append(least)
    return min(found)


def difference_minimum(c: Any, a: tuple[Any, Any], low: tuple[Any, Any], high: tuple[Any, Any]) -> Any:
    """Return the least c (relu(z + d) - relu(z)) - a_d d - a_z z over a rectangle: at an end of one of its pieces.

    These are cut by z = 0 and z + d = 0, which meet in the origin.
    """
    places = [(d, z) for d in (low[0], high[0]) for z in (low[1], high[1], 0 * c, -d)]
    places += [(d, z) for z in (low[1], high[1]) for d in (-z,)] + [(0 * c, 0 * c)]
    inside = [(d, z) for d, z in places if low[0] <= d <= high[0] and low[1] <= z <= high[1]]
    return min(c * (max(z + d, 0) - max(z, 0)) - a[0] * d - a[1] * z for d, z in inside)


def unit_minimum(op: Op, c: Any, a: Any, low: Any, high: Any) -> Any:
    """Return the least c f(x) - a x over [low, high]: at an end, at the kink, or where f' is a / c."""
    number = number_for(op)
    candidates = [low, high, min(max(number(0.0), low), high)]
    if isinstance(op, Sigmoid | Tanh) and c != 0 and low < high:
        share = (a / c) * (4 if isinstance(op, Sigmoid) else 1)
        if 0 < share < 1:
            # f' = 1 - tanh(x)^2, and for the sigmoid a quarter of that at half the argument.
            place = mpmath.atanh(mpmath.sqrt(1 - share)) * (2 if isinstance(op, Sigmoid) else 1)
            candidates += [min(max(x, low), high) for x in (place, -place)]
    if isinstance(op, Curve):
        candidates += [min(max(number(x), low), high) for x in lowest_places(op, float(c), float(a), low, high)]
    values = exact_value(op, (np.array(candidates, dtype=object),), number)
    return min(c * f - a * x for f, x in zip(values.tolist(), candidates, strict=True))


def lowest_places(op: Op, c: float, a: float, low: Any, high: Any) -> list[float]:
    """Return places where floats find c f(x) - a x least."""
    left, right = (torch.tensor(float(end), dtype=F64) for end in (low, high))
    for _ in range(4):
        middle = torch.stack([left, right]).clamp(-9.0, 9.0)
        shares = torch.linspace(0.0, 1.0, 33, dtype=F64)
        x = torch.cat([left + (right - left) * shares, middle[0] + (middle[1] - middle[0]) * shares]).sort().values
        best = int((c * op.evaluate(x) - a * x).nan_to_num(math.inf, math.inf).argmin())
        left, right = x[max(best - 1, 0)], x[min(best + 1, len(x) - 1)]
    return [value for value in (float(left), float(x[best]), float(right)) if math.isfinite(value)]


def assert_law(case: Case, boxes: tuple[Box, ...], envelope: Envelope, coefficients: Coefficients) -> int:
    """Check the law; return how many rows claimed something."""
    number = number_for(case.op)
    given, constant = envelope.below(coefficients)
    batch, rows = coefficients.rows
    assert tuple(constant.shape) == (batch, rows)
    c = coefficients.full(case.op.output_shape(*case.shapes)).reshape(batch, rows, -1)
    inputs = [part.full(shape) for part, shape in zip(given, case.shapes, strict=False)]
    # What functions below do not mention has no coefficients.
    inputs += [torch.zeros(batch, rows, *shape, dtype=F64) for shape in case.shapes[len(given) :]]
    assert [tuple(part.shape) for part in inputs] == [(batch, rows, *shape) for shape in case.shapes]
    a = torch.cat([part.flatten(2) for part in inputs], dim=2)
    claimed = 0
    for i in range(batch):
        box = tuple(part[i : i + 1] for part in boxes)
        constant_op = None if given else exact_ranges(case, box)[0]
        for j in range(rows):
            if not math.isfinite(float(constant[i, j])) or not bool(a[i, j].isfinite().all()):
                continue
            claimed += 1
            worst = worst_residual(
                case, box, constant_op, exact_numbers(c[i, j], number), exact_numbers(a[i, j], number)
            )
            assert worst >= number(float(constant[i, j])), (i, j)
    return claimed


@pytest.mark.parametrize("case", WITH_ENVELOPE)
@pytest.mark.parametrize("magnitude", MAGNITUDES)
def test_the_law_holds_for_rows_of_all_sorts(case: Case, magnitude: str) -> None:
    boxes = tuple(box[:CHECKED] for box in boxes_of(case, magnitude, seed=201))
    rows = rows_of(CHECKED, case.op.output_shape(*case.shapes), seed=202)
    claimed = assert_law(case, boxes, case.op.envelope(*boxes), Coefficients(rows))
    if magnitude in ("ordinary", "narrow", "subnormal"):
        assert claimed >= CHECKED * rows.shape[1]
    else:
        # Products of huge numbers overflow.
        assert claimed >= 1 or isinstance(case.op, Product | MatrixProduct)


@pytest.mark.parametrize("case", WITH_ENVELOPE)
def test_the_law_holds_for_parts_of_the_output(case: Case) -> None:
    if case.op.kind == "mwd-conv2d":
        return  # a constant: the part is cropped as for any other op
    boxes = tuple(box[:CHECKED] for box in boxes_of(case, "ordinary", seed=203))
    envelope, shape = case.op.envelope(*boxes), case.op.output_shape(*case.shapes)
    generator = torch.Generator().manual_seed(204)
    for trial in range(3):
        rows = rows_of(CHECKED, shape, seed=205 + trial)[:, :3]
        if len(shape) == 3:
            corner = tuple(int(torch.randint(n, (1,), generator=generator)) for n in shape[1:])
            size = tuple(
                1 + int(torch.randint(n - c, (1,), generator=generator)) for n, c in zip(shape[1:], corner, strict=True)
            )
            part = Coefficients(rows[..., : size[0], : size[1]], (corner[0], corner[1]))
        elif len(shape) == 1:
            units = torch.randperm(shape[0], generator=generator)[: max(1, shape[0] - 1 - trial)].sort().values
            part = Coefficients(rows[..., units], None, units)
        else:
            return
        assert assert_law(case, boxes, envelope, part) == CHECKED * 3
        if is_linear(case.op):
            # A part of the output is the same function as its full coefficients.
            (first, *_), (second, *_) = (envelope.below(c)[0] for c in (part, Coefficients(part.full(shape))))
            torch.testing.assert_close(first.full(case.shapes[0]), second.full(case.shapes[0]), rtol=1e-12, atol=1e-6)


@pytest.mark.parametrize("case", HINGE_CASES, ids=["relu", "abs", "leaky-0", "leaky-0.3", "leaky-1"])
@pytest.mark.parametrize("magnitude", MAGNITUDES)
@pytest.mark.parametrize("per_row", [False, True], ids=["one slope for all rows", "a slope for each row"])
def test_the_law_holds_for_any_slope_that_a_caller_gives(case: Case, magnitude: str, per_row: bool) -> None:
    boxes = tuple(box[:CHECKED] for box in boxes_of(case, magnitude, seed=206))
    shape = case.shapes[0]
    rows = rows_of(CHECKED, shape, seed=207)
    slope = random(CHECKED, *([rows.shape[1]] if per_row else []), *shape, seed=208) * 3.0
    slope[-1] = 1e300
    slope[..., 1] = 0.5
    slope[..., 2] = 5e-324
    assert assert_law(case, boxes, case.op.envelope(*boxes, slope=slope), Coefficients(rows)) >= 1
    # As many rows as inputs: an axis that is taken for the other one would go unnoticed.
    square = slope[:, :CHECKED] if per_row else slope
    assert_law(case, boxes, case.op.envelope(*boxes, slope=square), Coefficients(rows[:, :CHECKED]))


@pytest.mark.parametrize("case", HINGE_CASES, ids=["relu", "abs", "leaky-0", "leaky-0.3", "leaky-1"])
def test_the_slope_range_is_what_the_envelope_uses(case: Case) -> None:
    (box,) = boxes_of(case, "ordinary", seed=209)
    choice = case.op.slope_range(box)
    assert choice is not None
    least, greatest, chosen = choice
    assert bool((least <= chosen).all()) and bool((chosen <= greatest).all())
    rows = Coefficients(torch.eye(5, dtype=F64).expand(len(box.lower), 5, 5))
    own = case.op.envelope(box).below(rows)
    assert torch.equal(own[1], case.op.envelope(box, slope=chosen).below(rows)[1])
    for end, beyond in ((least, least - 1.0), (greatest, greatest + 1.0)):
        inside, outside = (case.op.envelope(box, slope=s).below(rows)[0][0].full((5,)) for s in (end, beyond))
        assert torch.equal(inside, outside)
    is_open = case.op.open_units(box)
    assert torch.equal(is_open, (box.lower < 0) & (box.upper > 0))


@pytest.mark.parametrize("op", [Sigmoid(), Tanh()])
@pytest.mark.parametrize("magnitude", MAGNITUDES)
def test_the_law_holds_wherever_lines_of_an_s_shape_touch(op: Op, magnitude: str) -> None:
    case = Case(op, ((5,),))
    boxes = tuple(box[:CHECKED] for box in boxes_of(case, magnitude, seed=214))
    share = random(CHECKED, 2, 5, seed=215).abs()
    share[-1] = 1e300
    share[..., 0], share[..., 1], share[..., 2] = 0.0, 1.0, float("nan")
    rows = rows_of(CHECKED, (5,), seed=216)
    assert assert_law(case, boxes, op.envelope(*boxes, slope=share), Coefficients(rows)) >= 1


@pytest.mark.parametrize("op", [Sigmoid(), Tanh()])
def test_an_s_shape_takes_the_places_that_it_names_by_itself_and_follows_their_gradient(op: Op) -> None:
    ends = [[-3.0, -2.0, 0.5, -2.5, 0.0]], [[2.5, -0.5, 2.0, 0.1, 1.0]]
    box = Box(*(torch.tensor(end, dtype=F64) for end in ends))
    least, greatest, chosen = op.slope_range(box)
    assert bool((least <= chosen).all()) and bool((chosen <= greatest).all())
    own, named = op.envelope(box), op.envelope(box, slope=chosen)
    for first, second in zip(vars(own).values(), vars(named).values(), strict=True):
        torch.testing.assert_close(first, second, rtol=1e-9, atol=1e-9)
    share = torch.full((1, 2, 5), 0.3, dtype=F64, requires_grad=True)

    def lines_at_a_fifth(share: torch.Tensor) -> torch.Tensor:
        lines = op.envelope(box, slope=share)
        below, above = ((lines.lower_slope, lines.lower_offset), (lines.upper_slope, lines.upper_offset))
        return torch.stack([slope * 0.2 + offset for slope, offset in (below, above)])

    torch.autograd.gradcheck(lines_at_a_fifth, share, atol=1e-5, eps=1e-5)


@pytest.mark.parametrize("case", [p for p in WITH_ENVELOPE if is_linear(p.values[0].op)])
@pytest.mark.parametrize("magnitude", ["ordinary", "narrow"])
def test_the_function_below_an_affine_op_is_the_op_up_to_rounding(case: Case, magnitude: str) -> None:
    boxes = tuple(box[:CHECKED] for box in boxes_of(case, magnitude, seed=210))
    number = number_for(case.op)
    matrix, bias = matrix_of(case)
    shape = case.op.output_shape(*case.shapes)
    rows = rows_of(CHECKED, shape, seed=211)
    given, constant = case.op.envelope(*boxes).below(Coefficients(rows))
    a = torch.cat([part.full(s).flatten(2) for part, s in zip(given, case.shapes, strict=True)], dim=2)
    size = torch.cat([torch.maximum(box.lower.abs(), box.upper.abs()).flatten(1) for box in boxes], dim=1)
    for i in range(CHECKED):
        reach = exact_numbers(size[i], number)
        for j in range(rows.shape[1]):
            c = exact_numbers(rows[i, j].flatten(), number)
            gap = abs(c @ matrix - exact_numbers(a[i, j], number)) @ reach + c @ bias - number(float(constant[i, j]))
            terms = abs(c) @ (abs(matrix) @ reach + abs(bias))
            if isinstance(case.op, BatchNorm):
                # The mean is subtracted before the product: it is an operand too.
                axes = (-1, *[1] * (len(shape) - 1))
                mean = case.op.mean.reshape(axes).expand(shape).flatten()
                terms = terms + 2 * abs(c) @ abs(matrix @ exact_numbers(mean, number))
            assert gap <= number(TIGHTNESS) * terms + number(UNDERFLOW) * (1 + sum(abs(c)))


@pytest.mark.parametrize("case", WITH_ENVELOPE)
def test_infinite_and_huge_ends_claim_nothing_false(case: Case) -> None:
    if case.op.kind == "mwd-conv2d":
        return  # its envelope is the dense layer's, and its oracle takes a minute
    ends = torch.tensor(EXTREME_BOXES, dtype=F64)
    generator = torch.Generator().manual_seed(212)
    for trial in range(2):
        boxes = []
        for shape in case.shapes:
            kinds = torch.arange(len(ends)).reshape(-1, *[1] * len(shape)).expand(-1, *shape)
            if trial:
                kinds = torch.randint(len(ends), (len(ends), *shape), generator=generator)
            boxes.append(Box(ends[kinds][..., 0], ends[kinds][..., 1]))
        rows = Coefficients(rows_of(len(ends), case.op.output_shape(*case.shapes), seed=213)[:, :6])
        given, constant = case.op.envelope(*boxes).below(rows)
        # Of an infinite end only what is true of its finite part can be checked; a finite claim there is suspicious.
        finite = tuple(Box(box.lower.clamp(-MAX, MAX), box.upper.clamp(-MAX, MAX)) for box in boxes)
        for i in range(len(ends)):
            one = tuple(box[i : i + 1] for box in finite)
            picked = _Fixed(tuple(c.with_values(c.values[i : i + 1]) for c in given), constant[i : i + 1])
            if trial and i % 3:
                continue
            assert_law(case, one, picked, rows.with_values(rows.values[i : i + 1]))


class _Fixed(Envelope):
    """Answers that were computed before, for one row of a batch."""

    def __init__(self, given: tuple[Coefficients, ...], constant: Tensor) -> None:
        self.given, self.constant = given, constant

    def below(self, coefficients: Coefficients) -> tuple[tuple[Coefficients, ...], Tensor]:
        return self.given, self.constant


@pytest.mark.parametrize("kind", [k for k, c in CASES.items() if c[0].op.parameters() and not k.startswith("mwd")])
@pytest.mark.parametrize("scale", STRESS_SCALES)
def test_the_law_holds_for_extreme_weights(kind: str, scale: float) -> None:
    for case in CASES[kind][:2]:
        scaled = {
            name: value * scale if value.is_floating_point() else value for name, value in case.op.parameters().items()
        }
        if "variance" in scaled:
            scaled["variance"] = scaled["variance"].clamp(min=1e-310)
        if any(
            not bool(v.isfinite().all()) or (kind == "divide-constant" and bool((v == 0).any()))
            for v in scaled.values()
        ):
            continue
        extreme = Case(type(case.op)(**scaled, **case.op.settings()), case.shapes)
        for magnitude in MAGNITUDES:
            boxes = tuple(box[1:3] for box in boxes_of(case, magnitude, seed=214))
            rows = rows_of(2, case.op.output_shape(*case.shapes), seed=215)
            assert_law(extreme, boxes, extreme.op.envelope(*boxes), Coefficients(rows))


@pytest.mark.parametrize("op", [Relu(), Abs(), LeakyRelu(0.3), MultiplyConstant(torch.tensor(5e-324, dtype=F64))])
def test_subnormal_slopes_on_wide_boxes_keep_the_law(op: Op) -> None:
    # The chord of a relu on [-1e300, 1e-20] is subnormal: half of it is rounded, and c x = 1e320 multiplies the error.
    case = Case(op, ((60,),))
    upper = 1e-20 * torch.arange(1, 61, dtype=F64) / 7.0
    box = Box(torch.full((1, 60), -1e300, dtype=F64), upper[None])
    rows = torch.diag(torch.full((60,), -1e20, dtype=F64))[None]
    assert assert_law(case, (box,), op.envelope(box), Coefficients(torch.cat([rows, -rows], dim=1))) > 0


@pytest.mark.parametrize("op", [Sigmoid(), Tanh()])
@pytest.mark.parametrize(
    ("low", "high"),
    [
        (-1e3, 1e3), (1e-300, 2e-300), (-5.0, 1e-9), (-1e-9, 5.0), (-1e-300, 1e-300), (0.0, 0.0), (0.0, 3.0),
        (-3.0, 0.0), (30.0, 31.0), (-31.0, -30.0), (700.0, 800.0), (-0.1, 0.1), (1.0, 1.0 + 1e-15), (-1.0, 1.0),
        (-2.0, 40.0), (-40.0, 2.0), (-1e-3, 50.0), (1e307, MAX), (-MAX, 1.0), (5e-324, 1.0),
    ],
)  # fmt: skip
def test_lines_around_an_s_shape_hold_at_their_worst_point(op: Op, low: float, high: float) -> None:
    case = Case(op, ((1,),))
    ends = [torch.full((1, 1), end, dtype=F64) for end in (low, high)]
    rows = torch.tensor([[[1.0], [-1.0], [1e200], [-1e-200]]], dtype=F64)
    envelope = op.envelope(Box(*ends))
    assert_law(case, (Box(*ends),), envelope, Coefficients(rows))
    if (low >= 0 or high <= 0) and abs(low) < 50:
        # On a convex or concave part one line is the chord, the other a tangent: near one end they are close.
        (a,), constant = envelope.below(Coefficients(rows[:, :2]))
        gaps = [-float((a.values[0, :, 0] * x + constant[0]).sum()) for x in (low, high)]
        box = op.interval(Box(*ends))
        assert min(gaps) <= float(box.upper - box.lower) + 1e-13


def test_the_sum_that_one_input_of_overlapping_windows_collects_is_rounded_outward() -> None:
    # Every window chooses the input in the middle, which lies in [-1, 0]: its upper end hides no rounding of the sum.
    case = Case(MaxPool2d((1, 5), (1, 1)), ((1, 1, 9),))
    low = torch.full((1, 1, 1, 9), -3.0, dtype=F64)
    low[..., 4] = -1.0
    box = Box(low, torch.zeros_like(low))
    rows = random(1, 40, 1, 1, 5, seed=216).abs()
    assert assert_law(case, (box,), case.op.envelope(box), Coefficients(rows)) == 40
