"""Adjoints are exact transposes, for any part of the output, and the arithmetic of windows and units."""

import itertools
import math
from fractions import Fraction

import pytest
import torch
from torch import Tensor

from encoders.box import Box
from encoders.ops import (
    Add,
    AddConstant,
    Affine,
    AveragePool2d,
    BatchNorm,
    Concat,
    Conv2d,
    DivideConstant,
    GlobalAveragePool,
    MaxPool2d,
    MultiplyConstant,
    Op,
    Reshape,
    Slice,
    Sub,
    Transpose,
)
from encoders.views.coefficients import BoxMinimum, Coefficients, dot_error, inflated

F64 = torch.float64
# Small integers: every product and sum is exact, so the transposes agree to the last bit.
EXACT = {"rtol": 0.0, "atol": 0.0}
# Averages and quotients round once or twice.
ROUNDED = {"rtol": 1e-13, "atol": 1e-13}


def integers(*shape: int, seed: int) -> Tensor:
    return torch.randint(-8, 9, shape, generator=torch.Generator().manual_seed(seed)).to(F64)


def convolution(
    channels: tuple[int, int],
    kernel: tuple[int, int],
    stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int, int, int] = (0, 0, 0, 0),
    dilation: tuple[int, int] = (1, 1),
    groups: int = 1,
) -> Conv2d:
    weight = integers(channels[1], channels[0] // groups, *kernel, seed=sum(kernel) + sum(padding))
    return Conv2d(weight, integers(channels[1], seed=1), stride, padding, dilation, groups)


SPATIAL: list[tuple[Op, tuple[int, int, int]]] = [
    (convolution((2, 3), (3, 3)), (2, 6, 5)),
    (convolution((2, 3), (3, 3), padding=(1, 1, 1, 1)), (2, 5, 5)),
    (convolution((1, 2), (3, 2), (2, 1), (1, 0, 2, 1)), (1, 7, 4)),
    (convolution((1, 2), (2, 3), (3, 2), (0, 2, 1, 0)), (1, 8, 7)),
    (convolution((2, 2), (3, 2), (1, 2), (2, 1, 0, 3), (2, 3)), (2, 7, 8)),
    (convolution((4, 6), (3, 3), (2, 2), (1, 1, 1, 1), (1, 1), 2), (4, 7, 6)),
    (convolution((3, 3), (2, 2), (1, 1), (1, 0, 0, 1), (2, 1), 3), (3, 5, 5)),
    (convolution((2, 3), (1, 1), (2, 2)), (2, 5, 6)),
    # Positions that see padding only.
    (convolution((1, 2), (1, 1), (1, 1), (1, 2, 2, 1)), (1, 3, 3)),
    (convolution((1, 2), (2, 2), (2, 1), (3, 4, 4, 3)), (1, 3, 2)),
    (convolution((2, 3), (4, 3)), (2, 4, 3)),
    (AveragePool2d((2, 2), (2, 2)), (2, 6, 4)),
    # Rows and columns that no window covers.
    (AveragePool2d((2, 2), (2, 2)), (2, 7, 5)),
    (AveragePool2d((2, 3), (3, 4)), (1, 9, 8)),
    (AveragePool2d((3, 3), (2, 1)), (2, 7, 5)),
    (AveragePool2d((3, 3), (3, 3), (1, 1, 1, 1)), (2, 7, 8)),
    (AveragePool2d((3, 3), (3, 3), (1, 1, 1, 1), count_padding=True), (2, 7, 8)),
    (AveragePool2d((3, 4), (1, 2), (1, 2, 1, 2)), (1, 5, 6)),
    (AveragePool2d((3, 4), (1, 2), (1, 2, 1, 2), count_padding=True), (1, 5, 6)),
]
OTHERS: list[tuple[Op, tuple[tuple[int, ...], ...]]] = [
    (Affine(integers(4, 3, seed=2), integers(4, seed=3)), ((3,),)),
    (Affine(integers(4, 3, seed=4)), ((2, 3),)),
    (Affine(integers(4, 3, seed=4)), ((2, 5, 3),)),
    (GlobalAveragePool(6), ((4, 2, 3),)),
    (GlobalAveragePool(6, keep_axes=False), ((4, 2, 3),)),
    (GlobalAveragePool(3, keep_axes=False), ((4, 3),)),
    (Add(), ((3,), (3,))),
    (Sub(), ((2, 3, 4), (2, 3, 4))),
    (AddConstant(integers(3, 1, seed=5)), ((3, 4),)),
    (MultiplyConstant(integers(4, seed=6)), ((4,),)),
    (DivideConstant(torch.tensor([2.0, -4.0, 0.5], dtype=F64)), ((3,),)),
    (BatchNorm(*integers(4, 3, seed=7).abs(), 1.0), ((3, 2, 2),)),
    (Reshape((3, 4)), ((2, 6),)),
    (Reshape((2, 2, 3)), ((12,),)),
    (Transpose((2, 0, 1)), ((2, 3, 4),)),
    (Transpose((1, 2, 0)), ((2, 3, 4),)),
    (Concat(0), ((2,), (3,))),
    (Concat(1), ((2, 3, 2), (2, 1, 2))),
    (Slice(0, 1, 6, 2), ((7,),)),
    (Slice(2, 0, 3), ((2, 3, 4),)),
]
CASES: list[tuple[Op, tuple[tuple[int, ...], ...]]] = [(op, (shape,)) for op, shape in SPATIAL] + OTHERS
NAMES = [f"{op.kind}-{i}" for i, (op, _) in enumerate(CASES)]


def pulled_back(op: Op, shapes: tuple[tuple[int, ...], ...], part: Coefficients) -> list[Tensor]:
    """Return the full coefficients that the op's envelope gives each input, on boxes of a radius near 1."""
    boxes = [Box(x - 1.0, x + 1.0) for x in (integers(part.rows[0], *s, seed=8) for s in shapes)]
    given, _ = op.envelope(*boxes).below(part)
    return [c.full(shape) for c, shape in zip(given, shapes, strict=True)]


def transposed(op: Op, shapes: tuple[tuple[int, ...], ...], rows: Tensor) -> list[Tensor]:
    """Return the gradients of each row times the op's value."""
    batch, count = rows.shape[:2]
    result = [torch.zeros(batch, count, *shape, dtype=F64) for shape in shapes]
    for j in range(count):
        x = [torch.zeros(batch, *shape, dtype=F64, requires_grad=True) for shape in shapes]
        (rows[:, j] * op.evaluate(*x)).sum().backward()
        for whole, part in zip(result, x, strict=True):
            assert part.grad is not None
            whole[:, j] = part.grad
    return result


def parts_of(rows: Tensor, seed: int) -> list[Coefficients]:
    """Return the rows whole, and parts of them as windows (all of a small map) or units."""
    shape = tuple(rows.shape[2:])
    if len(shape) == 1:
        generator = torch.Generator().manual_seed(seed)
        sets = [torch.randperm(shape[0], generator=generator)[:k].sort().values for k in range(1, shape[0] + 1)]
        return [Coefficients(rows), *(Coefficients(rows[..., units], None, units) for units in sets)]
    if len(shape) != 3:
        return [Coefficients(rows)]
    edges = [[(a, b) for a in range(n) for b in range(a + 1, n + 1)] for n in shape[1:]]
    windows = list(itertools.product(*edges))[:: max(1, math.prod(len(e) for e in edges) // 8)]
    corners = [((y, x), (y + 1, x + 1)) for y in (0, shape[1] - 1) for x in (0, shape[2] - 1)]
    boxes = [((a, c), (b, d)) for (a, b), (c, d) in windows] + corners
    return [Coefficients(rows), *(Coefficients(rows[..., a[0] : b[0], a[1] : b[1]], a) for a, b in boxes)]


@pytest.mark.parametrize(("op", "shapes"), CASES, ids=NAMES)
def test_an_adjoint_is_the_exact_transpose_for_every_part_of_the_output(op, shapes):
    rows = integers(2, 3, *op.output_shape(*shapes), seed=9)
    rounded = isinstance(op, AveragePool2d | GlobalAveragePool | BatchNorm)
    for part in parts_of(rows, seed=10):
        whole = part.full(op.output_shape(*shapes))
        expected = transposed(op, shapes, whole)
        for ours, theirs in zip(pulled_back(op, shapes, part), expected, strict=True):
            torch.testing.assert_close(ours, theirs, **(ROUNDED if rounded else EXACT))


@pytest.mark.parametrize(
    ("op", "shape"),
    [
        (MaxPool2d((2, 2), (2, 2)), (2, 4, 6)),
        (MaxPool2d((3, 2), (1, 2)), (2, 5, 5)),
        (MaxPool2d((3, 3), (2, 2), (1, 1, 1, 1)), (1, 6, 5)),
        (MaxPool2d((2, 2), (1, 1), (1, 0, 0, 1), (2, 1)), (1, 4, 4)),
        (MaxPool2d((2, 3), (3, 4)), (1, 8, 9)),
    ],
)
def test_a_decided_maximum_is_transposed_exactly(op, shape):
    x = torch.randperm(2 * math.prod(shape), generator=torch.Generator().manual_seed(11)).to(F64).reshape(2, *shape)
    rows = integers(2, 3, *op.output_shape(shape), seed=12)
    # Boxes too narrow for another winner: gradients are those at the centre.
    envelope = op.envelope(Box(x - 0.25, x + 0.25))
    for part in parts_of(rows, seed=13):
        whole = part.full(op.output_shape(shape))
        leaf = x.clone().requires_grad_()
        for j in range(3):
            (expected,) = torch.autograd.grad((whole[:, j] * op.evaluate(leaf)).sum(), leaf)
            assert torch.equal(envelope.below(part)[0][0].full(shape)[:, j], expected)


def test_windows_and_units_add_up_like_their_full_rows():
    shape = (2, 5, 6)
    rows = [integers(2, 3, *shape, seed=s) for s in (14, 15)]
    parts = [parts_of(r, seed=16) for r in rows]
    for a, b in itertools.product(parts[0][::5], parts[1][::4]):
        total = a.plus(b, shape)
        assert torch.equal(total.full(shape), a.full(shape) + b.full(shape))
    flat = [parts_of(integers(2, 3, 7, seed=s), seed=s) for s in (17, 18)]
    for a, b in itertools.product(*flat):
        assert torch.equal(a.plus(b, (7,)).full((7,)), a.full((7,)) + b.full((7,)))


def test_a_part_has_the_dot_product_and_the_crop_of_its_full_rows():
    for shape in ((7,), (2, 4, 5), (3, 2)):
        x = integers(2, *shape, seed=19)
        for part in parts_of(integers(2, 3, *shape, seed=20), seed=21):
            expected = (part.full(shape) * x.unsqueeze(1)).flatten(2).sum(dim=2)
            assert torch.equal(part.dot(x), expected)
            assert torch.equal(abs(part).full(shape), part.full(shape).abs())
            assert part.crop(x).shape[1:] == part.values.shape[2:]


def test_only_keeps_the_given_units_and_leaves_parts_alone():
    rows = integers(2, 3, 6, seed=22)
    units = torch.tensor([1, 4])
    part = Coefficients(rows).only(units)
    expected = torch.zeros_like(rows)
    expected[..., units] = rows[..., units]
    assert torch.equal(part.full((6,)), expected)
    assert part.only(torch.tensor([0])) is part


@pytest.mark.parametrize("exponents", [(0.0, 0.0), (0.0, -14.0), (-318.0, -318.0), (300.0, 300.0), (8.0, -8.0)])
def test_the_minimum_over_a_box_is_never_above_the_exact_one(exponents):
    generator = torch.Generator().manual_seed(23)
    centre = torch.randn(3, 40, generator=generator, dtype=F64) * 10.0 ** exponents[0]
    radius = torch.rand(3, 40, generator=generator, dtype=F64) * 10.0 ** exponents[1]
    radius[0] = 0.0
    box = Box(centre - radius, centre + radius)
    rows = torch.randn(3, 6, 40, generator=generator, dtype=F64)
    rows = rows * torch.tensor([1.0, 1e20, 1e-20, 1e-310, 1e150, 0.0], dtype=F64)[:, None]
    bounds = BoxMinimum(box)(Coefficients(rows))
    assert not bool(bounds.isnan().any()) and not bool((bounds == torch.inf).any())
    for i, j in itertools.product(range(3), range(6)):
        if not math.isfinite(float(bounds[i, j])):
            assert exponents[0] == 300.0 and j in (1, 4)
            continue
        ends = zip(rows[i, j].tolist(), box.lower[i].tolist(), box.upper[i].tolist(), strict=True)
        exact = sum(Fraction(c) * Fraction(low if c > 0 else high) for c, low, high in ends)
        assert Fraction(float(bounds[i, j])) <= exact
        if exponents == (0.0, 0.0) and j < 3:
            size = (rows[i, j].abs() * (centre.abs() + radius)[i]).sum()
            assert float(exact - Fraction(float(bounds[i, j]))) <= 1e-13 * float(size) + 1e-290


def test_an_undefined_minimum_is_minus_infinity():
    box = Box(torch.tensor([[-math.inf, 0.0]], dtype=F64), torch.tensor([[math.inf, 1.0]], dtype=F64))
    rows = torch.tensor([[[1.0, 0.0], [0.0, 1.0], [math.nan, 1.0], [math.inf, 1.0]]], dtype=F64)
    bounds = BoxMinimum(box)(Coefficients(rows))
    assert bool((bounds == -math.inf).all())
    finite = Box(torch.ones(1, 2, dtype=F64), torch.full((1, 2), 2.0, dtype=F64))
    assert BoxMinimum(finite)(Coefficients(rows))[0, 2:].tolist() == [-math.inf, -math.inf]


def test_the_error_of_a_dot_product_is_covered_in_any_order():
    # c . x cancels: the float sum is wrong in its first digit, and the bound says so.
    generator = torch.Generator().manual_seed(24)
    for _ in range(50):
        c = torch.randn(1, 1, 30, generator=generator, dtype=F64) * 1e8
        x = torch.randn(1, 30, generator=generator, dtype=F64) * 1e8
        c = torch.cat([c, c, torch.ones(1, 1, 1, dtype=F64)], dim=2)
        x = torch.cat([x, -x, torch.randn(1, 1, generator=generator, dtype=F64)], dim=1)
        order = torch.randperm(61, generator=generator)
        row, vector = Coefficients(c[..., order]), x[:, order]
        exact = sum(
            Fraction(a) * Fraction(b) for a, b in zip(row.values[0, 0].tolist(), vector[0].tolist(), strict=True)
        )
        error = float(abs(row).dot(inflated(dot_error(vector))))
        assert abs(Fraction(float(row.dot(vector))) - exact) <= Fraction(error)
