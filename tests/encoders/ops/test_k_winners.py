"""k-winners-take-all: exactly k units, ties by index, and views that hold on both sides of every jump."""

import math
from fractions import Fraction

import pytest
import torch

from encoders.box import Box
from encoders.layers import KWinners as Layer
from encoders.ops import KWinners
from encoders.rationals import Rationals
from encoders.views.coefficients import Coefficients
from tests.oracles.class_values import k_winners_value
from tests.oracles.op_values import exact_numbers

F64 = torch.float64
SAMPLES = 100_000


def boxes(batch: int, units: int, seed: int, grain: float = 0.0) -> Box:
    """Return boxes of all widths, with ends on a grid, where many tie, if there is a grain."""
    generator = torch.Generator().manual_seed(seed)
    centre = torch.randn(batch, units, generator=generator, dtype=F64)
    radius = (
        torch.rand(batch, units, generator=generator, dtype=F64) * torch.logspace(-3, 0.5, batch, dtype=F64)[:, None]
    )
    low, high = centre - radius, centre + radius
    if grain:
        low, high = (end / grain for end in (low, high))
        low, high = low.floor() * grain, high.ceil() * grain
    return Box(low, high)


@pytest.mark.parametrize(("shape", "count"), [((7,), 3), ((2, 3, 4), 5), ((5,), 5), ((1,), 1)])
def test_exactly_the_greatest_pass_and_ties_by_the_lowest_index(shape: tuple[int, ...], count: int) -> None:
    generator = torch.Generator().manual_seed(1)
    units = math.prod(shape)
    for grid in (False, True):
        x = torch.randn(200, *shape, generator=generator, dtype=F64)
        # On the grid most of the units tie, zeros of both signs among them; none is zero off it.
        x = (2.0 * x).round() / 2.0 if grid else x
        y = KWinners(count).evaluate(x)
        order = x.flatten(1).argsort(dim=1, descending=True, stable=True)
        expected = torch.zeros(200, units, dtype=F64).scatter(
            1, order[:, :count], x.flatten(1).gather(1, order[:, :count])
        )
        assert torch.equal(y.flatten(1), expected)
        if not grid:
            assert bool(((y != 0).flatten(1).sum(dim=1) == count).all())
    tied = KWinners(2).evaluate(torch.tensor([[-0.0, 1.0, 0.0, 0.5, 1.0, 1.0]]))
    assert tied.tolist() == [[0.0, 1.0, 0.0, 0.0, 1.0, 0.0]]


def test_winners_may_be_negative_and_what_is_no_number_stays_so() -> None:
    op = KWinners(2)
    assert op.evaluate(torch.tensor([[-3.0, -1.0, -2.0]])).tolist() == [[0.0, -1.0, -2.0]]
    shown = op.evaluate(torch.tensor([[math.nan, 1.0, 2.0, 3.0], [-math.inf, 1.0, math.inf, 3.0]]))
    assert shown.isnan().tolist() == [[True, False, False, False], [False] * 4]
    assert shown[1].tolist() == [0.0, 0.0, math.inf, 3.0]


@pytest.mark.parametrize("grain", [0.0, 0.5])
def test_intervals_contain_sampled_points(grain: float) -> None:
    """10^5 points, half of them with units at ends; on the grid most ends tie."""
    op, box = KWinners(3), boxes(20, 8, 2, grain)
    found = op.interval(box)
    generator = torch.Generator().manual_seed(3)
    count = SAMPLES // box.batch
    share = torch.rand(count, box.batch, 8, generator=generator, dtype=F64)
    share[::2] = share[::2].round()
    x = (box.lower + (box.upper - box.lower) * share).clamp(box.lower, box.upper)
    y = op.evaluate(x.flatten(0, 1)).unflatten(0, (count, box.batch))
    assert bool((y >= found.lower).all() and (y <= found.upper).all())


def test_a_sure_winner_passes_its_box_a_sure_loser_is_zero_and_an_open_one_is_either() -> None:
    # k = 2: the first wins always, the second and third compete, the last loses always.
    low, high = [3.0, 1.0, 0.5, -1.0], [4.0, 2.0, 1.5, 0.4]
    box = Box(torch.tensor([low], dtype=F64), torch.tensor([high], dtype=F64))
    found = KWinners(2).interval(box)
    assert found.lower.tolist() == [[3.0, 0.0, 0.0, 0.0]] and found.upper.tolist() == [[4.0, 2.0, 1.5, 0.0]]
    assert KWinners(2).open_units(box).tolist() == [[False, True, True, False]]
    # A tie of ends is decided by the index: of units 0 in [0, 1] and 1 in [1, 2] with k = 1 only the second can win
    # strictly, and at 1 both tie, where the first wins.
    ends = Box(torch.tensor([[0.0, 1.0]], dtype=F64), torch.tensor([[1.0, 2.0]], dtype=F64))
    assert KWinners(1).interval(ends).upper.tolist() == [[1.0, 2.0]]
    turned = Box(ends.lower.flip(1), ends.upper.flip(1))
    assert KWinners(1).interval(turned).upper.tolist() == [[2.0, 0.0]]
    assert KWinners(1).interval(turned).lower.tolist() == [[1.0, 0.0]]


@pytest.mark.parametrize("grain", [0.0, 0.5])
def test_functions_below_hold_at_both_sides_of_the_jumps(grain: float) -> None:
    """At points where units stand just at, above and below one another, in exact arithmetic."""
    op, box = KWinners(2), boxes(6, 5, 4, grain)
    rows = torch.cat([torch.eye(5, dtype=F64), -torch.eye(5, dtype=F64), torch.randn(4, 5, dtype=F64)])
    (coefficients,), constant = op.envelope(box).below(Coefficients(rows.expand(6, -1, -1)))
    generator = torch.Generator().manual_seed(5)
    checked = 0
    for row in range(6):
        low, high = box.lower[row], box.upper[row]
        for _ in range(60):
            x = low + (high - low) * torch.rand(5, generator=generator, dtype=F64).mul(1.4).sub(0.2).clamp(0, 1)
            pair = torch.randperm(5, generator=generator)[:2].tolist()
            x[pair[0]] = x[pair[1]] + (torch.randint(-1, 2, (1,), generator=generator) * 1e-12)
            point = exact_numbers(x.clamp(low, high), Fraction)
            y = k_winners_value(point, 2, Fraction)
            for c, a, b in zip(rows, coefficients.full((5,))[row], constant[row], strict=True):
                assert exact_numbers(c, Fraction) @ y >= exact_numbers(a, Fraction) @ point + Fraction(float(b))
                checked += 1
    assert checked == 6 * 60 * 14


def test_the_lines_are_those_of_a_relu_where_competition_says_no_more() -> None:
    # k = 1 of two in [-1, 3]: pieces x and 0 on the whole box. Above the chord from (-1, 0) to (3, 3), below the line
    # from (-1, -1) to (3, 0), both 1/4 and 3/4 steep.
    box = Box(torch.full((1, 2), -1.0, dtype=F64), torch.full((1, 2), 3.0, dtype=F64))
    envelope = KWinners(1).envelope(box)
    expected = [
        (envelope.lower_slope, 0.25),
        (envelope.lower_offset, -0.75),
        (envelope.upper_slope, 0.75),
        (envelope.upper_offset, 0.75),
    ]
    for found, value in expected:
        assert torch.allclose(found, torch.full((1, 2), value, dtype=F64), rtol=0, atol=1e-12)


def test_rational_ties_go_to_the_lowest_index() -> None:
    x = Rationals.of(torch.tensor([[[0.1, 0.3], [0.3, 0.3]]], dtype=F64))
    found = KWinners(2).rational(x, afford=lambda _: None)
    assert found.shape == (1, 2, 2) and found.values() == [0, Fraction(0.3), Fraction(0.3), 0]


def test_gradients_are_those_of_the_winners_and_pseudogradients_those_of_a_soft_gate() -> None:
    """The threshold is .5, the deviation of (.2, .9, -.4, .5) is the root of .225: shares sigmoid((x - .5) / .4743)."""
    x = torch.tensor([[0.2, 0.9, -0.4, 0.5]], dtype=torch.float64, requires_grad=True)
    weight = torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64)
    op = KWinners(2)
    gate = [1.0 / (1.0 + math.exp(-(v - 0.5) / math.sqrt(0.225))) for v in (0.2, 0.9, -0.4, 0.5)]
    soft = [w * share for w, share in zip((1.0, 2.0, 3.0, 4.0), gate, strict=True)]
    for value, expected in ((op.evaluate(x), [0.0, 2.0, 0.0, 4.0]), (op.evaluate_pseudo(x), soft)):
        (gradient,) = torch.autograd.grad((value * weight).sum(), x)
        assert gradient[0].tolist() == pytest.approx(expected, abs=1e-12)
    assert torch.equal(op.evaluate(x), op.evaluate_pseudo(x))
    tied = torch.ones(1, 3, requires_grad=True)
    (gradient,) = torch.autograd.grad(op.evaluate_pseudo(tied).sum(), tied)
    assert gradient.tolist() == [[0.5, 0.5, 0.5]]


def test_the_layer_is_the_op_and_rounds_its_share_down() -> None:
    x = torch.randn(4, 3, 5, generator=torch.Generator().manual_seed(6))
    for share, count in ((0.1, 1), (0.3, 4), (0.01, 1), (1.0, 15)):
        assert torch.equal(Layer(share)(x), KWinners(count).evaluate(x))
    for share in (0.0, 1.1, math.nan):
        with pytest.raises(ValueError, match="share"):
            Layer(share)


def test_settings_without_a_meaning_are_refused() -> None:
    for count in (0, -1, 1.5, True, "3"):
        with pytest.raises(ValueError, match="k-winners keeps"):
            KWinners(count)
    with pytest.raises(ValueError, match="keeps 4 units, got 3"):
        KWinners(4).output_shape((3,))
