"""Rows of the table of curves: activation functions.

Places of bends and turns have 19 digits, found as roots of the second and the first derivative.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from encoders.ops.curve_elementary import constant, multiple
from encoders.views.curve import Function, Span

INF = math.inf
# tanh's form of the gelu: x / 2 (1 + tanh(SCALE (x + CUBIC x^3))).
SCALE, CUBIC = math.sqrt(2.0 / math.pi), 0.044715


def _sloped_exponential(alpha: float, rate: float, slope: float) -> Function:
    """Return slope x for x >= 0, alpha (exp(x / rate) - 1) below."""
    if not all(map(math.isfinite, (alpha, rate, slope))) or alpha == 0.0 or rate <= 0.0:
        raise ValueError(f"exponential units need finite numbers, alpha not 0, got {alpha}, {rate}, {slope}")
    left = Span(
        lambda x: alpha * torch.expm1(x / rate),
        lambda x: alpha / rate * torch.exp(x / rate),
        (1 if alpha > 0 else -1,),
        end=0.0,
        # The quotient is rounded before the exponential, which stretches its error by its size.
        size=lambda x, y: y.abs() + (abs(alpha) * torch.exp(x / rate)) * (x / rate).clamp(min=-1e3).abs(),
        slope_floor=alpha / rate if alpha > 0 else -alpha / rate,
    )
    return Function((left, multiple(slope, 0.0, INF)))


def elu(alpha: float) -> Function:
    """Return x, or alpha (exp(x) - 1) below 0."""
    return _sloped_exponential(alpha, 1.0, 1.0)


def celu(alpha: float) -> Function:
    """Return x, or alpha (exp(x / alpha) - 1) below 0; alpha > 0."""
    return _sloped_exponential(alpha, alpha, 1.0)


def selu(alpha: float, gamma: float) -> Function:
    """Return gamma x, or gamma alpha (exp(x) - 1) below 0."""
    return _sloped_exponential(gamma * alpha, 1.0, gamma)


def softplus(beta: float, threshold: float | None = None) -> Function:
    """Return log(1 + exp(beta x)) / beta, beta > 0; x where beta x is above a threshold (torch)."""
    if not (0.0 < beta < INF) or (threshold is not None and math.isnan(threshold)):
        raise ValueError(f"softplus needs a positive beta and a threshold, got {beta} and {threshold}")

    def value(x: Tensor) -> Tensor:
        scaled = beta * x
        return (scaled.clamp(min=0.0) + torch.log1p(torch.exp(-scaled.abs()))) / beta

    def size(x: Tensor, y: Tensor) -> Tensor:
        # beta x is rounded before an exponential.
        return y.abs() + torch.exp(-(beta * x).abs()) * x.abs()

    whole = Span(value, lambda x: torch.sigmoid(beta * x), (1,), limits=(0.0, INF), size=size)
    if threshold is None:
        return Function((whole,), 0.0)
    end = threshold / beta
    near = abs(end) * 2.0**-50 + 2.0**-1000
    below = Span(value, whole.derivative, (1,), end=end + near, limits=(0.0, None), size=size)
    return Function(
        (below, multiple(1.0, end - near, INF)),
        own_value=lambda x: functional.softplus(x, beta, threshold),
    )


def log_sigmoid() -> Function:
    """Return log(1 / (1 + exp(-x)))."""

    def value(x: Tensor) -> Tensor:
        return x.clamp(max=0.0) - torch.log1p(torch.exp(-x.abs()))

    return Function((Span(value, lambda x: torch.sigmoid(-x), (-1,), limits=(-INF, 0.0)),), -INF, 0.0)


def silu() -> Function:
    """Return x / (1 + exp(-x))."""

    def derivative(x: Tensor) -> Tensor:
        inner = x.clamp(-1e3, 1e3)
        return torch.sigmoid(x) * (1.0 + inner * torch.sigmoid(-inner))

    knot, turn = 2.3993572805154676678, -1.2784645427610737951
    span = Span(lambda x: x * torch.sigmoid(x), derivative, (-1, 1, -1), (-knot, knot), (turn,), limits=(0.0, INF))
    return Function((span,), -0.2785)


def _erf_gate(factor: float, scale: float) -> Function:
    """Return factor x (1 + erf(scale x))."""

    def value(x: Tensor) -> Tensor:
        return factor * x * torch.erfc(x * -scale)

    def derivative(x: Tensor) -> Tensor:
        inner = (scale * x).clamp(-1e2, 1e2)
        density = torch.exp(-inner * inner) * (inner * (2.0 / math.sqrt(math.pi)))
        return factor * (torch.erfc(x * -scale) + density)

    def size(x: Tensor, y: Tensor) -> Tensor:
        # The argument is rounded before erfc, which stretches its error by its square.
        return y.abs() * (1.0 + 2.0 * (scale * x).clamp(-1e2, 0.0).square())

    knot, turn = 1.0 / scale, -0.53159688514939322273 / scale
    span = Span(value, derivative, (-1, 1, -1), (-knot, knot), (turn,), limits=(0.0, INF), size=size)
    return Function((span,), -0.2405 * factor / scale)


def gelu() -> Function:
    """Return x / 2 (1 + erf(x / sqrt 2))."""
    return _erf_gate(0.5, math.sqrt(0.5))


def erf_gate() -> Function:
    """Return x (1 + erf(x)): what a gelu is but for units."""
    return _erf_gate(1.0, 1.0)


def gelu_tanh() -> Function:
    """Return x / 2 (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)))."""
    return _tanh_gate(0.5, SCALE, CUBIC)


def is_near_gelu(scale: float, cubic: float) -> bool:
    """Return whether the numbers of a gate of tanh are near enough to a gelu's to have its bends and turns."""
    return abs(scale - SCALE) <= 1e-5 and abs(cubic - CUBIC) <= 1e-5


def tanh_gate(scale: float, cubic: float) -> Function:
    """Return x (1 + tanh(scale (x + cubic x^3))), the numbers next to those of a gelu."""
    return _tanh_gate(1.0, scale, cubic)


def _tanh_gate(factor: float, scale: float, cubic: float) -> Function:
    if not is_near_gelu(scale, cubic):
        raise ValueError(f"a gate of tanh takes the numbers of a gelu, {SCALE:.7f}, {CUBIC}, got {scale}, {cubic}")

    def inner(x: Tensor) -> Tensor:
        return 2.0 * scale * (x + cubic * x * x * x)

    def derivative(x: Tensor) -> Tensor:
        z = x.clamp(-1e2, 1e2)
        share, rest = torch.sigmoid(inner(z)), torch.sigmoid(-inner(z))
        return 2.0 * factor * (share + share * rest * z * (2.0 * scale * (1.0 + 3.0 * cubic * z * z)))

    def size(x: Tensor, y: Tensor) -> Tensor:
        return y.abs() * (1.0 + inner(x.clamp(-1e2, 0.0)).abs())

    def bend(x: float) -> float:
        # The second derivative over the positive 1 - tanh^2.
        slope = scale * (1.0 + 3.0 * cubic * x * x)
        return 2.0 * slope + x * (6.0 * scale * cubic * x - 2.0 * math.tanh(scale * (x + cubic * x**3)) * slope * slope)

    def slope_of(x: float) -> float:
        steep = math.tanh(scale * (x + cubic * x**3))
        return 1.0 + steep + x * (1.0 - steep) * (1.0 + steep) * scale * (1.0 + 3.0 * cubic * x * x)

    knot, turn = _root(bend, 2.0, 1.0), _root(slope_of, -1.0, -0.5)
    span = Span(
        lambda x: x * (2.0 * factor * torch.sigmoid(inner(x))), derivative, (-1, 1, -1), (-knot, knot), (turn,),
        limits=(0.0, INF), size=size,
    )  # fmt: skip
    return Function((span,), -0.3402 * factor)


def _root(function: Callable[[float], float], below: float, above: float) -> float:
    """Return where a function changes its sign, between places where it is negative and positive."""
    for _ in range(60):
        middle = 0.5 * (below + above)
        below, above = (middle, above) if function(middle) < 0.0 else (below, middle)
    return below


def mish() -> Function:
    """Return x tanh(log(1 + exp(x)))."""

    def factor(x: Tensor) -> Tensor:
        return torch.tanh(functional.softplus(x))

    def derivative(x: Tensor) -> Tensor:
        z, share = x.clamp(-1e3, 1e3), factor(x)
        return share + z * (1.0 - share) * (1.0 + share) * torch.sigmoid(z)

    knots, turn = (-2.25637639636079312, 1.4905711794854284593), -1.1924312145154952121
    span = Span(lambda x: x * factor(x), derivative, (-1, 1, -1), knots, (turn,), limits=(0.0, INF))
    return Function((span,), -0.3089)


def hard_swish() -> Function:
    """Return 0 below -3, x above 3, x (x + 3) / 6 between."""
    inner = Span(lambda x: x * (x + 3.0) / 6.0, lambda x: x / 3.0 + 0.5, (1,), (), (-1.5,), -3.0, 3.0, (0.0, 3.0))
    return Function((constant(0.0, -INF, -3.0), inner, multiple(1.0, 3.0, INF)), -0.375)


def softsign() -> Function:
    """Return x / (1 + |x|)."""
    span = Span(
        lambda x: x / (1.0 + x.abs()),
        lambda x: (1.0 + x.abs()).reciprocal().square(),
        (1, -1),
        (0.0,),
        limits=(-1.0, 1.0),
    )
    return Function((span,), -1.0, 1.0)


def tanhshrink() -> Function:
    """Return x - tanh(x)."""
    span = Span(
        lambda x: x - torch.tanh(x),
        lambda x: torch.tanh(x).square(),
        (-1, 1),
        (0.0,),
        limits=(-INF, INF),
        # The difference cancels near 0.
        size=lambda x, y: y.abs() + torch.tanh(x).abs(),
    )
    return Function((span,))
