"""The laws of every row of the table of curves, against 60-digit arithmetic, on boxes of all sizes in its domain.

A row claims how far value and derivative err, where it is convex and where it turns; ranges and lines rest on that.
"""

import math
from collections.abc import Iterator
from typing import Any

import mpmath
import pytest
import torch
from torch import Tensor

from encoders.box import Box
from encoders.ops.curve_functions import FUNCTIONS, curve_of
from encoders.rounding import ELEMENTARY_FUNCTION_ULPS
from encoders.views.curve import DERIVATIVE_ROUNDINGS, UNDERFLOWS, Function, Span
from tests.oracles.curve_values import VALUES, curve_range, curve_value

F64 = torch.float64
INF = math.inf
MAX = torch.finfo(F64).max
TINY = torch.finfo(F64).tiny
UNIT = 2.0**-53
DIGITS = 60
POINTS = 40
# Boxes of each size.
UNITS = 9
# Wider than the exact range by this share of its size, and by what underflow may move.
TIGHTNESS, UNDERFLOW = 1e-12, 1e-300
# How far the lines may lie from the nearest ones in the middle of a box, as a share of the range.
SUBOPTIMAL = 0.08

ROWS: list[tuple[str, tuple[float, ...]]] = [
    ("sin", ()), ("cos", ()),
    ("arctangent", ()), ("celu", (0.5,)), ("celu", (3.0,)), ("elu", (1.0,)), ("elu", (-0.7,)), ("erf", ()),
    ("erf-gate", ()), ("exp", ()), ("gelu", ()), ("gelu-tanh", ()), ("hard-swish", ()), ("log", ()),
    ("log-sigmoid", ()), ("mish", ()), ("power", (2.0,)), ("power", (3.0,)), ("power", (0.5,)), ("power", (-0.5,)),
    ("power", (-1.0,)), ("power", (-2.0,)), ("power", (-3.0,)), ("power", (2.5,)), ("power", (-1.7,)),
    ("power", (0.1,)), ("selu", (1.6732632, 1.0507009)), ("sign", ()), ("silu", ()), ("softplus", (1.0,)),
    ("softplus", (0.3, 20.0)), ("softplus", (2.0, 1.0)), ("softsign", ()), ("tanhshrink", ()),
    ("tanh-gate", (0.7978845834732056, 0.044714998453855515)),
]  # fmt: skip
CASES = [pytest.param(*row, id="-".join([row[0], *map(str, row[1])])) for row in ROWS]


@pytest.fixture(autouse=True)
def _digits() -> Iterator[None]:
    with mpmath.workdps(DIGITS):
        yield


def domain(curve: Function) -> tuple[float, float]:
    return (curve.spans[0].start, curve.spans[-1].end) if curve.spans else (-INF, INF)


def boxes_of(curve: Function) -> Box:
    """Return boxes `(1, units)` in the domain: of all sizes, points, one float wide, around marks, at the very ends."""
    generator = torch.Generator().manual_seed(5)

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(UNITS, generator=generator, dtype=F64)

    marks = [m for s in curve.spans for m in (*s.knots, *s.turns, s.start, s.end, 0.0) if math.isfinite(m)]
    marks = marks or [k * math.pi / 2.0 for k in range(-3, 4)]
    centres = [3.0 * torch.randn(UNITS, generator=generator, dtype=F64), uniform(-40.0, 40.0)]
    centres += [torch.randn(UNITS, generator=generator, dtype=F64).sign() * 10.0 ** uniform(-320.0, 300.0)]
    centres += [torch.tensor(marks, dtype=F64).repeat(UNITS)[:UNITS]]
    radii = [
        uniform(0.0, 4.0),
        10.0 ** uniform(-2.0, 1.7),
        10.0 ** uniform(-17.0, -8.0),
        10.0 ** uniform(-320.0, 300.0),
    ]
    pairs = [(c - r, c + r) for c in centres for r in radii]
    pairs += [(c, torch.nextafter(c, torch.full_like(c, INF))) for c in centres]
    special = [
        (0.0, 0.0),
        (-0.0, 5e-324),
        (-5e-324, 5e-324),
        (-MAX, MAX),
        (-1e-300, 1.0),
        (700.0, 720.0),
        (-760.0, -700.0),
    ]
    special += [(-INF, INF), (-INF, 1.0), (0.5, INF), (-MAX, -1e308), (1e-5, 1e-4), (1e-3, 1e3), (MAX, MAX)]
    pairs.append((torch.tensor([a for a, _ in special], dtype=F64), torch.tensor([b for _, b in special], dtype=F64)))
    low, high = (torch.cat([pair[side] for pair in pairs]).clamp(*domain(curve)) for side in (0, 1))
    return Box(low[None], high[None])


def places_in(curve: Function, low: float, high: float) -> list[float]:
    """Return places of a box, those of the row's marks among them."""
    low, high = max(low, -MAX), min(high, MAX)
    marks = [m for s in curve.spans for m in (*s.knots, *s.turns, s.start, s.end, 0.0, -3.0, 3.0, 1e-3, -20.0, 20.0)]
    shares = [low + (high / 8 - low / 8) * k for k in range(1, 8)]
    return sorted({min(max(x, low), high) for x in [low, high, *marks, *shares, (low * 0.5 + high * 0.5)]})


def has_value(name: str, x: float) -> bool:
    return not (x == 0 and name in ("log", "power"))


def test_every_row_has_cases_and_an_oracle() -> None:
    assert set(FUNCTIONS) == set(VALUES) == {name for name, _ in ROWS}


@pytest.mark.parametrize(("name", "arguments"), CASES)
def test_value_and_derivative_keep_half_of_what_is_trusted(name: str, arguments: tuple[float, ...]) -> None:
    generator = torch.Generator().manual_seed(3)
    for span in curve_of(name, arguments).spans:
        if span.start == span.end:
            continue
        size = 10.0 ** (torch.rand(POINTS, generator=generator, dtype=F64) * 300.0 - 295.0)
        x = torch.cat([size, -size, 3.0 * torch.randn(POINTS, generator=generator, dtype=F64)])
        x = torch.cat([x, torch.linspace(-40.0, 40.0, 97, dtype=F64)])
        x = x[(x > span.start) & (x < span.end) & (x != 0)]
        value, slope = span.value(x), span.derivative(x)
        claimed = span.size(x, value)
        for at, y, dy, error in zip(*(t.tolist() for t in (x, value, slope, claimed)), strict=True):
            exact = exact_on(span, name, arguments, at)
            if math.isfinite(y) and abs(exact) < MAX:
                assert abs(y - exact) <= ELEMENTARY_FUNCTION_ULPS * UNIT * error + UNDERFLOWS / 2 * TINY, at
            if math.isfinite(dy) and 1e-15 < abs(at) < 1e100:
                exact = derivative_on(span, name, arguments, mpmath.mpf(at))
                allowed = (
                    DERIVATIVE_ROUNDINGS / 2 * UNIT * (abs(exact) + span.slope_floor) + DERIVATIVE_ROUNDINGS * TINY
                )
                assert abs(dy - exact) <= allowed + abs(exact) * 1e-17, at


def exact_on(span: Span, name: str, arguments: tuple[float, ...], x: Any) -> Any:
    """Return the value of the formula of a span, which may go on where another span takes over."""
    if name == "softplus":
        return mpmath.mpf(x) if span.bends == (0,) else curve_value(name, arguments[:1], x)
    return curve_value(name, arguments, x)


def derivative_on(span: Span, name: str, arguments: tuple[float, ...], x: Any, order: int = 1) -> Any:
    """Return a derivative of the formula of a span, by differences so small that a dozen digits and more remain."""
    step = abs(x) * mpmath.mpf(10) ** -18 if order == 1 else mpmath.mpf(10) ** -15
    return mpmath.diff(lambda v: exact_on(span, name, arguments, v), x, order, h=step)


@pytest.mark.parametrize(("name", "arguments"), CASES)
def test_bends_and_turns_are_where_the_row_says(name: str, arguments: tuple[float, ...]) -> None:
    nothing, beside = mpmath.mpf(10) ** -20, mpmath.mpf(10) ** -14
    for span in curve_of(name, arguments).spans:
        ends = max(span.start, -12.0), min(span.end, 12.0)
        if ends[0] >= ends[1]:
            continue
        for k in range(1, 150):
            x = mpmath.mpf(ends[0]) + (mpmath.mpf(ends[1]) - ends[0]) * k / 150 + mpmath.mpf("1e-7")
            bend = span.bends[sum(knot < x for knot in span.knots)]
            second = derivative_on(span, name, arguments, x, 2)
            assert second * bend >= -nothing if bend else abs(second) < nothing, x
        for turn in map(mpmath.mpf, span.turns):
            assert derivative_on(span, name, arguments, turn - beside) < 0
            assert derivative_on(span, name, arguments, turn + beside) > 0
        for knot in map(mpmath.mpf, span.knots):
            around = [derivative_on(span, name, arguments, knot + step, 2) for step in (-beside, beside)]
            assert around[0] * around[1] < 0


@pytest.mark.parametrize(("name", "arguments"), CASES)
def test_ranges_contain_the_exact_ones_and_are_tight(name: str, arguments: tuple[float, ...]) -> None:
    curve = curve_of(name, arguments)
    box = boxes_of(curve)
    found = curve.interval(box)
    assert bool((found.lower <= found.upper).all())
    broken = (len(arguments) > 1 and name != "tanh-gate") or name in ("sign", "sin", "cos")
    ends = [end[0].tolist() for end in (box.lower, box.upper, found.lower, found.upper)]
    for low, high, least, greatest in zip(*ends, strict=True):
        exact = [curve_value(name, arguments, x) for x in places_in(curve, low, high) if has_value(name, x)]
        assert all(least <= y <= greatest for y in exact), (low, high)
        if low > -INF and high < INF and not (low <= 0 <= high and name in ("log", "power")) and not broken:
            bottom, top = curve_range(name, arguments, mpmath.mpf(low), mpmath.mpf(high))
            size = max(abs(bottom), abs(top))
            if size < MAX / 4:
                # Tails of a gelu err by the square of x; the difference x - tanh(x) by a share of x.
                tail = min(max(low, -50.0), 0.0) ** 2 if name.startswith(("gelu", "erf-", "tanh-")) else 0.0
                size = size * (1.0 + tail)
                size += 0.01 * min(max(abs(low), abs(high)), 1.0) if name == "tanhshrink" else 0.0
                slack = size * TIGHTNESS + UNDERFLOW
                assert bottom - least <= slack and greatest - top <= slack, (low, high)


@pytest.mark.parametrize("thin", [False, True], ids=["middle", "thin"])
@pytest.mark.parametrize(("name", "arguments"), CASES)
def test_lines_hold_at_their_worst_points(name: str, arguments: tuple[float, ...], thin: bool) -> None:
    curve = curve_of(name, arguments)
    box = boxes_of(curve)
    lines = curve.envelope(box, thin)
    claimed = 0
    for side in (-1, 1):
        slopes, offsets = (
            (lines.lower_slope, lines.lower_offset) if side < 0 else (lines.upper_slope, lines.upper_offset)
        )
        assert bool(slopes.isfinite().all())
        worst = worst_places(curve, box, slopes, side)
        for unit, (slope, offset) in enumerate(zip(slopes[0].tolist(), offsets[0].tolist(), strict=True)):
            if not math.isfinite(offset):
                continue
            claimed += 1
            low, high = float(box.lower[0, unit]), float(box.upper[0, unit])
            for x in {low, high, *worst[:, unit].tolist()}:
                if math.isfinite(x) and has_value(name, x):
                    line = mpmath.mpf(slope) * mpmath.mpf(x) + mpmath.mpf(offset)
                    assert side * (line - curve_value(name, arguments, x)) >= 0, (side, low, high, x)
    assert claimed > box.lower.numel() / 2


def worst_places(curve: Function, box: Box, slopes: Tensor, side: int) -> Tensor:
    """Return places `(n, units)` where floats find the lines nearest to the curve."""
    low, high = box.lower[0].clamp(-MAX, MAX), box.upper[0].clamp(-MAX, MAX)
    places = []
    near = [low.clamp(-9.0, 9.0), high.clamp(-9.0, 9.0)]
    left, right = low, high
    for _ in range(3):
        shares = torch.linspace(0.0, 1.0, 41, dtype=F64)[:, None]
        x = torch.cat([left + (right - left) * shares, near[0] + (near[1] - near[0]) * shares])
        x = x.nan_to_num(0.0, 0.0, 0.0).clamp(low, high).sort(dim=0).values
        gap = (side * (slopes[0] * x - curve.value(x))).nan_to_num(INF, INF, INF)
        best = gap.argmin(dim=0)
        places.append(x.gather(0, best[None])[0])
        left, right = (x.gather(0, (best + step).clamp(0, len(x) - 1)[None])[0] for step in (-1, 1))
    return torch.stack([*places, left, right])


@pytest.mark.parametrize(("name", "arguments"), CASES)
def test_lines_are_near_the_best_ones_in_the_middle(name: str, arguments: tuple[float, ...]) -> None:
    curve = curve_of(name, arguments)
    if not curve.spans:
        return  # waves have lines of their own
    generator = torch.Generator().manual_seed(9)
    low = 3.0 * torch.randn(1, 60, generator=generator, dtype=F64)
    if domain(curve)[0] == 0.0 or (arguments and arguments[0] < 0 and name == "power"):
        low = low.abs() + 0.05
    box = Box(low, low + 10.0 ** (torch.rand(1, 60, generator=generator, dtype=F64) * 3.0 - 2.0))
    lines = curve.envelope(box)
    x = box.lower + (box.upper - box.lower) * torch.linspace(0.0, 1.0, 201, dtype=F64)[:, None]
    y, middle = curve.value(x), x[100]
    left, right = (x[:100, None], y[:100, None]), (x[None, 101:], y[None, 101:])
    chords = left[1] + (right[1] - left[1]) * ((middle - left[0]) / (right[0] - left[0]))
    chords = chords.flatten(0, 1)
    best = torch.minimum(chords.amin(dim=0), y[100]), torch.maximum(chords.amax(dim=0), y[100])
    spread = y.amax(dim=0) - y.amin(dim=0)
    below = lines.lower_slope[0] * middle + lines.lower_offset[0]
    above = lines.upper_slope[0] * middle + lines.upper_offset[0]
    slack = SUBOPTIMAL * spread + 1e-12
    assert bool((best[0] - below <= slack).all()) and bool((above - best[1] <= slack).all())


@pytest.mark.parametrize(
    ("name", "arguments", "low", "high"),
    [
        ("log", (), -1.0, 1.0), ("log", (), -5e-324, 1.0), ("power", (0.5,), -1e-300, 4.0),
        ("power", (2.5,), -1.0, 1.0),
        ("power", (-1.0,), -1.0, 2.0), ("power", (-1.0,), 0.0, 2.0), ("power", (-1.0,), -2.0, 0.0),
        ("power", (-2.0,), -1.0, 1.0), ("power", (-0.5,), 0.0, 1.0), ("power", (-1.0,), 0.0, 0.0),
    ],
)  # fmt: skip
def test_nothing_is_said_beyond_the_domain_and_at_poles(
    name: str, arguments: tuple[float, ...], low: float, high: float
) -> None:
    curve = curve_of(name, arguments)
    box = Box(torch.tensor([[low]], dtype=F64), torch.tensor([[high]], dtype=F64))
    found, lines = curve.interval(box), curve.envelope(box)
    pole = name == "power" and arguments[0] < 0
    assert float(found.upper) == INF and (float(found.lower) == -INF or pole)
    assert float(lines.upper_offset) == INF


@pytest.mark.parametrize(("name", "arguments"), CASES)
def test_float32_values_are_close(name: str, arguments: tuple[float, ...]) -> None:
    curve = curve_of(name, arguments)
    x = torch.linspace(-8.0, 8.0, 200, dtype=torch.float32)
    x = x[(x > domain(curve)[0]) & (x.abs() > 0.01)]
    torch.testing.assert_close(curve.value(x).double(), curve.value(x.double()), rtol=2e-6, atol=2e-6)
    found = curve.interval(Box.point(x[None]))
    assert bool(found.contains(curve.value(x)[None]).all())


@pytest.mark.parametrize("name", ["sin", "cos"])
def test_ranges_and_lines_of_waves_are_near_the_curve(name: str) -> None:
    curve = curve_of(name)
    generator = torch.Generator().manual_seed(11)
    low = 20.0 * torch.randn(1, 80, generator=generator, dtype=F64)
    box = Box(low, low + 10.0 ** (torch.rand(1, 80, generator=generator, dtype=F64) * 4.0 - 3.0))
    x = box.lower + (box.upper - box.lower) * torch.linspace(0.0, 1.0, 4001, dtype=F64)[:, None]
    y, found, lines = curve.value(x), curve.interval(box), curve.envelope(box)
    # Between two of the places a wave rises by an eighth of the square of their distance.
    missed = ((box.upper - box.lower) / 4000.0).square() / 8.0 + 1e-14
    assert bool((y.amin(dim=0) - found.lower <= missed).all()) and bool((found.upper - y.amax(dim=0) <= missed).all())
    gap = (lines.upper_slope - lines.lower_slope) * x[2000] + lines.upper_offset - lines.lower_offset
    width = box.upper - box.lower
    assert bool((gap <= torch.minimum(width.square() * 0.251, found.upper - found.lower) + 1e-13).all())
