"""The law of executions: whatever the order of summation, float32 lies within the stated error of the real value."""

import mpmath
import pytest
import torch

from encoders.arithmetic import ARITHMETICS
from encoders.box import Box
from encoders.ops import Affine, BatchNorm, Op, Relu
from tests.conformance.op_cases import ROWS, Case
from tests.oracles.op_values import PRECISION, exact_numbers, exact_value, number_for

F32, F64 = torch.float32, torch.float64
FLOAT32 = ARITHMETICS["float32"]
POINTS = 4
# A bound is as good as it may be within the roundings that merged nodes are allowed.
LOOSE = 400.0

UNKNOWN = {"curve", "softmax", "log-softmax", "arg-max", "product", "matrix-product", "relu-difference", "k-winners"}


def test_every_op_knows_its_execution_or_is_named():
    assert {case.values[0].op.kind for case in ROWS if not case.values[0].op.bounds_execution} == UNKNOWN


def held(op: Op) -> Op:
    """Return the op with weights that float32 holds, in float64."""
    return op.cast(F32, torch.device("cpu")).cast(F64, torch.device("cpu"))


def orders(op: Op, x: tuple[torch.Tensor, ...]) -> list[torch.Tensor]:
    """Return executions in float32: as torch sums, from the last term to the first, and one by one."""
    plain = op.cast(F32, torch.device("cpu"))
    found = [plain.evaluate(*x)]
    if isinstance(op, Affine):
        flipped = Affine(plain.weight.flip(1), plain.bias)
        found.append(flipped.evaluate(x[0].flip(-1)))
        total = torch.zeros_like(found[0]) if plain.bias is None else plain.bias.expand_as(found[0]).clone()
        for column in range(plain.weight.shape[1]):
            total = total + x[0][..., column, None] * plain.weight[:, column]
        found.append(total)
    if isinstance(op, BatchNorm):
        # As runtimes fold it: k x + (shift - k mean) with stored numbers.
        axes = (-1, *[1] * (x[0].dim() - 2))
        factor = plain.scale / torch.sqrt(plain.variance + plain.epsilon)
        found.append(x[0] * factor.reshape(axes) + (plain.shift - factor * plain.mean).reshape(axes))
    return found


@pytest.mark.parametrize("case", [row for row in ROWS if row.values[0].op.kind not in UNKNOWN])
@pytest.mark.parametrize("magnitude", [1e-20, 1.0])
@pytest.mark.parametrize("moved", [0.0, 1e-3])
def test_executions_lie_within_the_error(case: Case, magnitude: float, moved: float):
    op = held(case.op)
    generator = torch.Generator().manual_seed(17)
    executed = tuple(torch.randn(POINTS, *shape, generator=generator) * magnitude for shape in case.shapes)
    errors = tuple(torch.full_like(x, moved * magnitude, dtype=F64) for x in executed)
    shifts = (torch.rand(e.shape, generator=generator, dtype=F64) * 2 - 1 for e in errors)
    real = tuple(x.double() + e * s for x, e, s in zip(executed, errors, shifts, strict=True))
    boxes = [Box.point(x) for x in real]
    bound = op.execution_error(boxes, errors, FLOAT32)
    assert bound.dtype == F64 and bool((bound >= 0).all())
    runs = orders(op, executed)
    shape = runs[0].shape
    bound = bound.expand(shape)
    with mpmath.workprec(PRECISION):
        number = number_for(op)
        for row in range(POINTS):
            exact = exact_value(op, tuple(exact_numbers(x[row], number) for x in real), number)
            for run in runs:
                pairs = zip(run[row].flatten().tolist(), exact.reshape(-1).tolist(), strict=True)
                limits = bound[row].flatten().tolist()
                assert all(abs(number(a) - b) <= number(e) for (a, b), e in zip(pairs, limits, strict=True))


@pytest.mark.parametrize("case", [row for row in ROWS if row.values[0].op.kind in ("affine", "conv2d", "mwd")])
def test_the_error_is_a_few_roundings_of_what_is_summed(case: Case):
    op = held(case.op)
    x = torch.randn(POINTS, *case.shapes[0], generator=torch.Generator().manual_seed(3), dtype=F64)
    bound = op.execution_error([Box.point(x)], [torch.zeros_like(x)], FLOAT32)
    weights = sum(t.abs().sum() for t in op.parameters().values() if t.is_floating_point())
    size = 1.0 + float(weights) * (1.0 + float(x.abs().max()))
    assert float(bound.max()) <= LOOSE * FLOAT32.roundoff * size


def test_an_error_of_an_input_passes_on_as_a_change_does():
    op, none = Affine(torch.tensor([[2.0, -3.0]], dtype=F64)), [torch.zeros(1, 2, dtype=F64)]
    box = [Box.point(torch.zeros(1, 2, dtype=F64))]
    moved = op.execution_error(box, [torch.tensor([[0.5, 0.25]], dtype=F64)], FLOAT32)
    assert 1.75 <= float(moved) <= 1.75 * (1 + 1e-5)
    assert float(op.execution_error(box, none, FLOAT32)) < 1e-30


def test_what_may_overflow_has_no_bound():
    x = torch.full((1, 2), 2e38, dtype=F64)
    op = Affine(torch.tensor([[1.0, -1.0], [1e-3, 0.0]], dtype=F64))
    found = op.execution_error([Box.point(x)], [torch.zeros_like(x)], FLOAT32)
    assert found[0, 0] == torch.inf and torch.isfinite(found[0, 1])


def test_cancellation_is_counted():
    """(2^25 + x) - 2^25 forgets x in float32 though it is x in real arithmetic."""
    weight = torch.tensor([[2.0**25, 1.0, -(2.0**25)]], dtype=F64)
    x = torch.tensor([[1.0, 1.0, 1.0]], dtype=F64)
    bound = float(Affine(weight).execution_error([Box.point(x)], [torch.zeros_like(x)], FLOAT32))
    summed = (torch.tensor(2.0**25) + torch.tensor(1.0)) - torch.tensor(2.0**25)
    assert abs(float(summed) - 1.0) == 1.0 <= bound


def test_what_a_relu_surely_cuts_off_has_no_error():
    box = Box(torch.tensor([[-9.0, -9.0, 1.0]], dtype=F64), torch.tensor([[-2.0, -0.5, 2.0]], dtype=F64))
    found = Relu().execution_error([box], [torch.ones(1, 3, dtype=F64)], FLOAT32)
    assert found.tolist() == [[0.0, 1.0, 1.0]]
