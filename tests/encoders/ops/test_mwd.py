"""MWD units: values, intervals, scores, both kinds of gradients, and the trainable layer."""

import itertools
import math
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import mpmath
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from encoders.box import Box
from encoders.layers import Mwd as MwdLayer
from encoders.layers.mwd_kernels import weighted_distance
from encoders.layers.mwd_reference import PIECE_ELEMENTS, pieces, scaled_difference_range
from encoders.layers.mwd_unit import AttractorExp, MaxSquare, mwd
from encoders.ops import Mwd

F64 = torch.float64
# Sums of a few hundred float64 terms of size 1, in another order than the reference's.
ROUNDING = 1e-12
# An interval's width beyond the exact range: a few dozen roundings of numbers in [0, 1].
TIGHTNESS = 1e-13
DIGITS = 60
MASKS = {"plain": [False] * 6, "negated": [True] * 6, "mixed": [True, False] * 3}


@pytest.fixture(autouse=True)
def _digits() -> Iterator[None]:
    with mpmath.workdps(DIGITS):
        yield


def layer(units: int, inputs: int, seed: int, share: float = 0.5) -> tuple[Tensor, Tensor, Tensor]:
    """Return (u, w, negated) of random units in the paper's parameter ranges, a share of them negated."""
    g = torch.Generator().manual_seed(seed)
    u = 0.01 + 2.99 * torch.rand(units, inputs, generator=g, dtype=F64)
    w = torch.rand(units, inputs, generator=g, dtype=F64)
    return u, w, torch.rand(units, generator=g) < share


def batch(rows: int, inputs: int, seed: int) -> Tensor:
    return torch.rand(rows, inputs, generator=torch.Generator().manual_seed(seed), dtype=F64)


def exact_square(u: list[float], w: list[float], x: list[float]) -> Fraction:
    terms = (Fraction(a) * (Fraction(c) - Fraction(b)) for a, b, c in zip(u, w, x, strict=True))
    return max(t * t for t in terms)


def exact_output(s: Fraction, negated: bool) -> Any:
    value = mpmath.mpf(s.numerator) / s.denominator
    return -mpmath.expm1(-value) if negated else mpmath.exp(-value)


# ------------------------------------------------------------------------------------------------------ values


def test_values_equal_the_formula_in_exact_arithmetic() -> None:
    u, w, negated = layer(6, 5, seed=1)
    x = batch(20, 5, seed=2)
    y = Mwd(u, w, negated).evaluate(x)
    for row, unit in itertools.product(range(20), range(6)):
        s = exact_square(u[unit].tolist(), w[unit].tolist(), x[row].tolist())
        exact = exact_output(s, bool(negated[unit]))
        assert abs(float(y[row, unit]) - exact) <= ROUNDING * exact


def test_values_by_hand() -> None:
    # t = (2 (0.5 - 0), 1 (0 - 3)) = (1, -3): U = exp(-9). A zero weight ignores its input.
    op = Mwd(torch.tensor([[2.0, 1.0], [2.0, 0.0]]), torch.tensor([[0.0, 3.0]] * 2), torch.tensor([False, True]))
    y = op.evaluate(torch.tensor([[0.5, 0.0]]))
    assert y[0].tolist() == pytest.approx([math.exp(-9.0), 1.0 - math.exp(-1.0)], rel=1e-6)
    assert op.evaluate(torch.tensor([[0.0, 3.0]])).tolist() == [[1.0, 0.0]]


def test_a_value_is_one_only_at_the_attractor() -> None:
    u, w, _ = layer(50, 4, seed=3)
    y = Mwd(u, w, torch.zeros(50, dtype=torch.bool)).evaluate(batch(30, 4, seed=4))
    assert bool(((y > 0) & (y < 1)).all())
    assert Mwd(u[:1], w[:1], torch.tensor([False])).evaluate(w[:1]).item() == 1.0


# --------------------------------------------------------------------------------------------------- intervals


def unit_range(u: list[float], w: list[float], low: list[float], high: list[float]) -> tuple[Fraction, Fraction]:
    """Return the exact least and greatest s over a box, by trying every choice of an end or the attractor.

    (u (x - w))^2 is convex with its least value at w, so a maximum of such terms has both extremes there.
    """
    options = [{a, b, min(max(c, a), b)} for a, b, c in zip(low, high, w, strict=True)]
    squares = [exact_square(u, w, list(choice)) for choice in itertools.product(*options)]
    return min(squares), max(squares)


def random_unit(index: int) -> tuple[Tensor, Tensor, Box]:
    """Return (u, w, box) of one unit with 2 to 5 inputs, the box an epsilon ball cut to [0, 1]."""
    g = torch.Generator().manual_seed(1000 + index)
    inputs, epsilon = 2 + index % 4, 0.3 * float(torch.rand((), generator=g))
    u, w, _ = layer(1, inputs, seed=2000 + index)
    x = torch.rand(1, inputs, generator=g, dtype=F64)
    return u, w, Box((x - epsilon).clamp(0, 1), (x + epsilon).clamp(0, 1))


@pytest.mark.parametrize("negated", [False, True])
def test_the_interval_of_a_unit_is_its_exact_range(negated: bool) -> None:
    for index in range(300):
        u, w, box = random_unit(index)
        result = Mwd(u, w, torch.tensor([negated])).interval(box)
        near, far = unit_range(u[0].tolist(), w[0].tolist(), box.lower[0].tolist(), box.upper[0].tolist())
        low, high = sorted([exact_output(near, negated), exact_output(far, negated)])
        assert float(result.lower) <= low and high <= float(result.upper)
        assert low - float(result.lower) <= TIGHTNESS and float(result.upper) - high <= TIGHTNESS


def test_the_interval_that_the_paper_prints_misses_reachable_values() -> None:
    # Agrawal et al. (2019), section 4, print max over i of the one-input ranges; U is the min over i of its factors.
    unsound = loose = 0
    for index in range(300):
        u, w, box = random_unit(index)
        factors = [torch.exp(-((u * (end - w)) ** 2))[0] for end in (box.lower, box.upper)]
        inside = ((box.lower <= w) & (w <= box.upper))[0]
        printed_low = float(torch.minimum(*factors).max())
        printed_high = float(torch.where(inside, 1.0, torch.maximum(*factors)).max())
        # A reachable value: the corner that is farthest in every input.
        farthest = torch.where((u * (box.lower - w)).abs() > (u * (box.upper - w)).abs(), box.lower, box.upper)
        op = Mwd(u, w, torch.tensor([False]))
        reached = float(op.evaluate(farthest))
        unsound += printed_low > reached + 1e-6
        loose += printed_high > float(op.interval(box).upper) + 1e-6
        assert float(op.interval(box).lower) <= reached
    assert unsound > 150
    assert loose > 100


def test_distance_ranges_contain_every_exact_distance() -> None:
    u, w, negated = layer(5, 4, seed=5)
    op = Mwd(u, w, negated)
    x = batch(10, 4, seed=6)
    box = Box(x - 0.1, x + 0.1)
    near, far = op.distance_range(box)
    for row, unit in itertools.product(range(10), range(5)):
        low, high = unit_range(u[unit].tolist(), w[unit].tolist(), box.lower[row].tolist(), box.upper[row].tolist())
        assert Fraction(float(near[row, unit])) ** 2 <= low <= high <= Fraction(float(far[row, unit])) ** 2


@pytest.mark.parametrize("scale", [1e-323, 1e-318, 1e-310, 1e-160])
@pytest.mark.parametrize("kind", ["plain", "negated", "mixed"])
def test_underflow_in_distances_and_squares_is_covered(kind: str, scale: float) -> None:
    u, w, _ = layer(6, 2, seed=14)
    op = Mwd(u, torch.zeros_like(w), torch.tensor(MASKS[kind]))
    x = batch(20, 2, seed=15) * scale
    box = Box.point(x)
    (near, far), result, score = op.distance_range(box), op.interval(box), op.score_box(box)
    for row, unit in itertools.product(range(20), range(6)):
        negated = MASKS[kind][unit]
        s = exact_square(u[unit].tolist(), [0.0, 0.0], x[row].tolist())
        assert Fraction(float(near[row, unit])) ** 2 <= s <= Fraction(float(far[row, unit])) ** 2
        assert float(result.lower[row, unit]) <= exact_output(s, negated) <= float(result.upper[row, unit])
        assert float(score.lower[row, unit]) <= exact_score(s, kind, negated) <= float(score.upper[row, unit])


def test_squares_that_overflow_give_no_nan() -> None:
    # z = 1e200: z^2 overflows, U is 0 and 1 - U is 1 up to rounding.
    op = Mwd(torch.ones(2, 1, dtype=F64), torch.zeros(2, 1, dtype=F64), torch.tensor([False, True]))
    box = op.interval(Box(torch.tensor([[1e200]], dtype=F64), torch.tensor([[2e200]], dtype=F64)))
    assert box.lower[0].tolist() == pytest.approx([0.0, 1.0], abs=1e-13)
    assert box.upper[0].tolist() == pytest.approx([0.0, 1.0], abs=1e-13)
    score = op.score_box(Box(torch.tensor([[1e200]], dtype=F64), torch.tensor([[2e200]], dtype=F64)))
    assert bool((score.lower <= score.upper).all())


def test_a_difference_that_overflows_before_a_tiny_weight_claims_nothing() -> None:
    # 1e-310 * (1.7e308 - (-1.7e308)) = 0.034, though the difference is infinite in floats.
    op = Mwd(torch.full((1, 1), 1e-310, dtype=F64), torch.full((1, 1), -1.7e308, dtype=F64), torch.tensor([False]))
    near, far = op.distance_range(Box.point(torch.full((1, 1), 1.7e308, dtype=F64)))
    assert float(near) <= 0.034 <= float(far)


# ------------------------------------------------------------------------------------------------------ scores


def exact_score(s: Fraction, kind: str, negated: bool) -> Any:
    value = mpmath.mpf(s.numerator) / s.denominator
    if kind != "mixed":
        return value if negated else -value
    logit = mpmath.log(mpmath.expm1(value)) if value else mpmath.mpf("-inf")
    return logit if negated else -logit


@pytest.mark.parametrize("kind", MASKS)
@pytest.mark.parametrize("scale", [1e-6, 0.1, 1.0, 30.0])
def test_scores_order_units_as_their_exact_outputs_do(kind: str, scale: float) -> None:
    u, w, _ = layer(6, 3, seed=7)
    u = u * scale
    op = Mwd(u, w, torch.tensor(MASKS[kind]))
    x = batch(25, 3, seed=8)
    scores = op.scores(x)
    compared = 0
    with mpmath.workdps(2000):
        for row in range(25):
            exact = [
                exact_output(exact_square(u[i].tolist(), w[i].tolist(), x[row].tolist()), MASKS[kind][i])
                for i in range(6)
            ]
            for i, j in itertools.combinations(range(6), 2):
                a, b = float(scores[row, i]), float(scores[row, j])
                if abs(a - b) > ROUNDING * max(abs(a), abs(b), 1.0 if kind == "mixed" else 0.0):
                    assert (a > b) == (exact[i] > exact[j])
                    compared += 1
    assert compared > 25 * 15 * 0.95


def test_outputs_tie_in_float32_where_scores_do_not() -> None:
    # z = 11, 12, 13: exp(-121) is below every float32, and 1 - exp(-121) rounds to 1.
    u, w = torch.ones(6, 1), -torch.tensor([11.0, 12.0, 13.0] * 2)[:, None]
    x = torch.zeros(1, 1)
    for mask in ([False] * 6, [True] * 6, [True] * 3 + [False] * 3):
        op = Mwd(u, w, torch.tensor(mask))
        for part, negated in ((slice(0, 3), mask[0]), (slice(3, 6), mask[3])):
            assert len(set(op.evaluate(x)[0, part].tolist())) == 1
            nearest, middle, farthest = op.scores(x)[0, part].tolist()
            # The nearest has the greatest output, or the least if negated.
            assert (nearest < middle < farthest) if negated else (nearest > middle > farthest)
        if True in mask and False in mask:
            assert bool(op.scores(x)[0, :3].min() > op.scores(x)[0, 3:].max())


def test_scores_of_a_mixed_layer_are_logits() -> None:
    u, w, _ = layer(6, 3, seed=9)
    op = Mwd(u, w, torch.tensor(MASKS["mixed"]))
    x = batch(20, 3, seed=10)
    torch.testing.assert_close(op.scores(x), torch.logit(op.evaluate(x)), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", MASKS)
def test_scores_and_their_gradients_are_finite_everywhere(kind: str) -> None:
    op = Mwd(torch.ones(6, 1), torch.zeros(6, 1), torch.tensor(MASKS[kind]))
    x = torch.tensor([[0.0], [1e-30], [1e-3], [1.0], [12.0], [1e9]], requires_grad=True)
    scores = op.scores(x)
    scores.sum().backward()
    assert bool(scores.isfinite().all()) and x.grad is not None and bool(x.grad.isfinite().all())


@pytest.mark.parametrize("kind", MASKS)
@pytest.mark.parametrize("scale", [1e-7, 1.0, 30.0])
def test_score_boxes_contain_the_exact_scores_and_are_tight(kind: str, scale: float) -> None:
    u, w, _ = layer(6, 3, seed=11)
    u = u * scale
    op = Mwd(u, w, torch.tensor(MASKS[kind]))
    x = batch(15, 3, seed=12)
    radius = 0.2 * batch(15, 3, seed=13)
    radius[0] = 0.0
    box = Box(x - radius, x + radius)
    result = op.score_box(box)
    for row, unit in itertools.product(range(15), range(6)):
        negated = MASKS[kind][unit]
        squares = unit_range(u[unit].tolist(), w[unit].tolist(), box.lower[row].tolist(), box.upper[row].tolist())
        low, high = sorted(exact_score(s, kind, negated) for s in squares)
        lower, upper = float(result.lower[row, unit]), float(result.upper[row, unit])
        assert lower <= low and high <= upper
        if mpmath.isinf(low) or mpmath.isinf(high):
            continue
        assert low - lower <= ROUNDING * max(1, abs(low)) and upper - high <= ROUNDING * max(1, abs(high))


def test_score_boxes_decide_where_output_boxes_tie() -> None:
    # All outputs underflow to 0 or round to 1; the two units of each type are still told apart.
    u, w = torch.ones(4, 1, dtype=F64), torch.tensor([[30.0], [31.0], [30.0], [31.0]], dtype=F64)
    for mask in ([False] * 4, [True] * 4, [False, False, True, True]):
        op = Mwd(u, w, torch.tensor(mask))
        point = Box.point(torch.zeros(1, 1, dtype=F64))
        score, output = op.score_box(point), op.interval(point)
        for pair in (slice(0, 2), slice(2, 4)):
            (first, second), (high_first, high_second) = score.lower[0, pair], score.upper[0, pair]
            assert bool(first > high_second) or bool(second > high_first)
            assert not bool((output.lower[0, pair] > output.upper[0, pair].flip(0)).any())


# --------------------------------------------------------------------------------------------------- gradients


def reference_true(x: Tensor, u: Tensor, w: Tensor, negated: Tensor) -> Tensor:
    """Return the outputs by plain autograd on the whole tensor; amax shares feedback evenly among ties."""
    s = ((u * (x[:, None] - w)) ** 2).amax(dim=-1)
    return torch.where(negated, 1.0 - torch.exp(-s), torch.exp(-s))


def reference_pseudo(
    x: Tensor, u: Tensor, w: Tensor, negated: Tensor, feedback: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the pseudogradients as the paper writes them: -1/sqrt(1 + s) for exp, exp(t_i^2 - s) for max."""
    t = u * (x[:, None] - w)
    s = (t**2).amax(dim=-1)
    towards_s = feedback * torch.where(negated, 1.0, -1.0) / torch.sqrt(1.0 + s)
    towards_t = towards_s[:, :, None] * torch.exp(t**2 - s[:, :, None]) * 2.0 * t
    return (towards_t * u).sum(dim=1), (towards_t * (x[:, None] - w)).sum(dim=0), (-towards_t * u).sum(dim=0)


def gradients(
    x: Tensor, u: Tensor, w: Tensor, negated: Tensor, feedback: Tensor, share: float | None
) -> tuple[Tensor, ...]:
    leaves = [t.clone().requires_grad_() for t in (x, u, w)]
    y = reference_true(*leaves, negated) if share is None else mwd(*leaves, negated, share)
    return torch.autograd.grad(y, leaves, feedback)


def problem(seed: int, units: int = 7, inputs: int = 5, rows: int = 6) -> tuple[Tensor, ...]:
    u, w, negated = layer(units, inputs, seed)
    feedback = torch.randn(rows, units, generator=torch.Generator().manual_seed(seed + 1), dtype=F64)
    return batch(rows, inputs, seed + 2), u, w, negated, feedback


@pytest.mark.parametrize("seed", [20, 30, 40])
def test_the_true_gradient_equals_naive_autograd_and_finite_differences(seed: int) -> None:
    arguments = problem(seed)
    for ours, naive in zip(gradients(*arguments, 0.0), gradients(*arguments, None), strict=True):
        torch.testing.assert_close(ours, naive, rtol=ROUNDING, atol=ROUNDING)
    x, u, w, negated, _ = arguments
    leaves = [t.clone().requires_grad_() for t in (x, u, w)]
    # Random points are no ties, so a step of 1e-6 changes no maximum.
    assert torch.autograd.gradcheck(lambda *a: mwd(*a, negated, 0.0), leaves, eps=1e-6, atol=1e-6)


def test_the_true_gradient_shares_feedback_evenly_among_ties() -> None:
    # t = (1, -1, 0.5): s = 1 in two inputs; ds/dx = 2 t / 2 = (1, -1, 0), and U' = -exp(-1).
    x = torch.tensor([[1.0, -1.0, 0.5]], dtype=F64, requires_grad=True)
    mwd(x, torch.ones(1, 3, dtype=F64), torch.zeros(1, 3, dtype=F64), torch.tensor([False]), 0.0).backward()
    assert x.grad is not None
    torch.testing.assert_close(x.grad, -math.exp(-1.0) * torch.tensor([[1.0, -1.0, 0.0]], dtype=F64))


@pytest.mark.parametrize("seed", [21, 31, 41])
def test_the_pseudogradient_equals_its_formula(seed: int) -> None:
    arguments = problem(seed)
    for ours, formula in zip(gradients(*arguments, 1.0), reference_pseudo(*arguments), strict=True):
        torch.testing.assert_close(ours, formula, rtol=ROUNDING, atol=ROUNDING)


@pytest.mark.parametrize("seed", [22, 32])
def test_sharp_pseudogradients_follow_the_formula_and_leave_the_value(seed: int) -> None:
    x, u, w, negated, feedback = problem(seed)
    leaves = [t.clone().requires_grad_() for t in (x, u, w)]
    y = mwd(*leaves, negated, 1.0, 4.0)
    assert torch.equal(y, mwd(x, u, w, negated))
    t = u * (x[:, None] - w)
    s = (t**2).amax(dim=-1)
    towards_s = feedback * torch.where(negated, 1.0, -1.0) / torch.sqrt(1.0 + s)
    towards_t = towards_s[:, :, None] * torch.exp(4.0 * (t**2 - s[:, :, None])) * 2.0 * t
    expected = (towards_t * u).sum(dim=1), (towards_t * (x[:, None] - w)).sum(dim=0), (-towards_t * u).sum(dim=0)
    for ours, formula in zip(torch.autograd.grad(y, leaves, feedback), expected, strict=True):
        torch.testing.assert_close(ours, formula, rtol=ROUNDING, atol=ROUNDING)


def test_pseudo_derivatives_by_hand() -> None:
    # s = 3: forward exp(-3), backward -1 / sqrt(4) = -1/2; negated 1 - exp(-3) and 1/2.
    s = torch.tensor([[3.0, 3.0]], dtype=F64, requires_grad=True)
    y = AttractorExp.apply(s, torch.tensor([False, True]))
    y.sum().backward()
    assert y[0].tolist() == pytest.approx([math.exp(-3.0), 1.0 - math.exp(-3.0)]) and s.grad is not None
    assert s.grad[0].tolist() == pytest.approx([-0.5, 0.5], rel=1e-15)
    # t = (1, 2): s = 4; shares exp(1 - 4), 1; ds/dx = 2 t share = (2 exp(-3), 4): shares do not sum to one.
    x = torch.tensor([[1.0, 2.0]], dtype=F64, requires_grad=True)
    MaxSquare.apply(x, torch.ones(1, 2, dtype=F64), torch.zeros(1, 2, dtype=F64), True).sum().backward()
    assert x.grad is not None and x.grad[0].tolist() == pytest.approx([2.0 * math.exp(-3.0), 4.0])


def test_the_blend_is_linear_and_its_ends_are_the_two_gradients() -> None:
    arguments = problem(22)
    x, u, w, negated, feedback = arguments
    leaves = [t.clone().requires_grad_() for t in (x, u, w)]
    s = MaxSquare.apply(*leaves, False)
    plain = torch.autograd.grad(torch.where(negated, -torch.expm1(-s), torch.exp(-s)), leaves, feedback)
    true, pseudo = gradients(*arguments, 0.0), gradients(*arguments, 1.0)
    assert all(torch.equal(a, b) for a, b in zip(true, plain, strict=True)), "rho = 0 is the true gradient bit for bit"
    for share in (0.01, 0.25, 0.5, 0.9):
        for blend, p, t in zip(gradients(*arguments, share), pseudo, true, strict=True):
            torch.testing.assert_close(blend, share * p + (1.0 - share) * t, rtol=ROUNDING, atol=ROUNDING)


@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_the_value_does_not_depend_on_the_blend(dtype: torch.dtype) -> None:
    x, u, w, negated, _ = problem(23, units=50, rows=50)
    x, u, w = x.to(dtype), u.to(dtype), w.to(dtype)
    # Distances from 1e-12 to 30, where 1 - exp(-s) cancels and where exp(-s) underflows.
    u = u * torch.logspace(-12, 1, 50, dtype=dtype)[:, None]
    values = [mwd(x, u, w, negated, share) for share in (0.0, 0.3, 0.7, 0.99, 1.0)]
    assert all(torch.equal(values[0], value) for value in values[1:])


@pytest.mark.parametrize("share", [-0.1, 1.1, math.nan])
def test_shares_outside_the_unit_interval_are_refused(share: float) -> None:
    x, u, w, negated, _ = problem(24)
    with pytest.raises(ValueError, match="pseudo_share must lie in"):
        mwd(x, u, w, negated, share)


def test_the_op_differentiates_with_the_true_gradient() -> None:
    x, u, w, negated, feedback = problem(25)
    leaf = x.clone().requires_grad_()
    (ours,) = torch.autograd.grad(Mwd(u, w, negated).evaluate(leaf), [leaf], feedback)
    assert torch.equal(ours, gradients(x, u, w, negated, feedback, 0.0)[0])


# ------------------------------------------------------------------------------------------------------ memory


@pytest.mark.parametrize("shape", [(1, 1, 1), (100, 512, 784), (7, 33, 5), (3, 1, 10**6), (10**5, 10, 2), (1, 100, 0)])
def test_pieces_cover_every_pair_once_within_the_bound(shape: tuple[int, int, int]) -> None:
    rows, units, inputs = shape
    covered = torch.zeros(rows, units, dtype=torch.int8)
    for row, unit in pieces(rows, units, inputs):
        block = covered[row, unit]
        block += 1
        assert block.numel() * inputs <= PIECE_ELEMENTS or block.numel() == 1
    assert bool((covered == 1).all())


class LargestTensor(TorchDispatchMode):
    """Record the element count of the largest tensor that any operation returns."""

    largest = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for value in result if isinstance(result, tuple | list) else [result]:
            if isinstance(value, Tensor):
                self.largest = max(self.largest, value.numel())
        return result


def test_no_pass_makes_the_tensor_of_batch_units_and_inputs() -> None:
    rows, units, inputs = 150, 90, 120
    assert rows * units * inputs > 4 * PIECE_ELEMENTS
    u, w, negated = layer(units, inputs, seed=26)
    x = batch(rows, inputs, seed=27)
    with LargestTensor() as seen:
        leaves = [t.clone().requires_grad_() for t in (x, u, w)]
        for share in (0.0, 0.5, 1.0):
            mwd(*leaves, negated, share).sum().backward()
        Mwd(u, w, negated).interval(Box(x - 0.1, x + 0.1))
        Mwd(u, w, negated).scores(x)
    assert 0 < seen.largest <= PIECE_ELEMENTS


def test_values_and_gradients_do_not_depend_on_the_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = problem(28, units=40, inputs=30, rows=20)
    x, u, w, *_ = arguments
    before = weighted_distance(x, u, w), *scaled_difference_range(x, u, w)
    whole = [gradients(*arguments, share) for share in (0.0, 1.0)]
    monkeypatch.setattr("encoders.layers.mwd_reference.PIECE_ELEMENTS", 100)
    assert len(list(pieces(20, 40, 30))) > 100
    after = weighted_distance(x, u, w), *scaled_difference_range(x, u, w)
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    for share, reference in zip((0.0, 1.0), whole, strict=True):
        for a, b in zip(gradients(*arguments, share), reference, strict=True):
            torch.testing.assert_close(a, b, rtol=ROUNDING, atol=ROUNDING)


# ------------------------------------------------------------------------------------------------ layer module


def test_parameters_start_and_stay_in_their_ranges_after_every_clamped_step() -> None:
    module = MwdLayer(4, 6, "mixed", generator=torch.Generator().manual_seed(29))
    assert bool(((module.u >= 0.2) & (module.u <= 0.7)).all()) and bool(((module.w >= 0) & (module.w <= 1)).all())
    optimiser = torch.optim.SGD(module.parameters(), lr=50.0)
    x = batch(10, 4, seed=30).float()
    left = 0
    for _ in range(5):
        optimiser.zero_grad()
        module(x).sum().backward()
        optimiser.step()
        left += bool(((module.u < 0.01) | (module.u > 3.0)).any())
        module.clamp_parameters()
        assert bool(((module.u >= 0.01) & (module.u <= 3.0)).all())
        assert bool(((module.w >= 0.0) & (module.w <= 1.0)).all())
    assert left, "the steps would leave the ranges without the clamp"


def test_the_mask_of_a_mixed_layer_is_saved_with_the_model() -> None:
    saved = MwdLayer(4, 40, "mixed", generator=torch.Generator().manual_seed(31))
    other = MwdLayer(4, 40, "mixed", generator=torch.Generator().manual_seed(32))
    assert set(saved.state_dict()) == {"u", "w", "negated"}
    assert 0 < int(saved.negated.sum()) < 40 and not torch.equal(saved.negated, other.negated)
    other.load_state_dict(saved.state_dict())
    x = batch(5, 4, seed=33).float()
    assert torch.equal(other.negated, saved.negated) and torch.equal(other(x), saved(x))


def test_the_three_types_of_layers_have_their_masks_and_others_are_refused() -> None:
    assert not bool(MwdLayer(2, 9, "plain").negated.any()) and bool(MwdLayer(2, 9, "negated").negated.all())
    with pytest.raises(ValueError, match="unknown unit types 'neg'; supported: plain, negated, mixed"):
        MwdLayer(2, 9, "neg")  # type: ignore[arg-type]


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_the_layer_computes_what_the_op_of_the_same_weights_does(share: float) -> None:
    module = MwdLayer(5, 8, "mixed", share, torch.Generator().manual_seed(34)).double()
    op = Mwd(module.u.detach(), module.w.detach(), module.negated)
    x = batch(12, 5, seed=35)
    assert torch.equal(module(x), op.evaluate(x))


def test_ends_with_a_gradient_have_the_interval_of_their_values():
    """Found by the fuzzer: slopes in front of an MWD layer put a gradient on its box, which the kernels do not take."""
    generator = torch.Generator().manual_seed(0)
    op = Mwd(*(torch.rand(3, 4, generator=generator, dtype=torch.float64) for _ in range(2)), torch.tensor([True] * 3))
    lower = torch.rand(2, 4, generator=generator, dtype=torch.float64)
    plain = op.interval(Box(lower, lower + 0.1))
    with_gradient = op.interval(Box.unchecked(lower.clone().requires_grad_(), lower + 0.1))
    assert torch.equal(plain.lower, with_gradient.lower) and torch.equal(plain.upper, with_gradient.upper)
