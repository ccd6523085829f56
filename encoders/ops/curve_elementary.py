"""Rows of the table of curves: straight spans, exponentials, logarithms, powers, and other elementary functions."""

import math
from fractions import Fraction

import torch
from torch import Tensor

from encoders.views.curve import Function, Span
from encoders.views.wave import Wave

INF = math.inf


def multiple(factor: float, start: float, end: float) -> Span:
    """Return factor x."""
    limits = tuple(factor * place if math.isinf(place) and factor else None for place in (start, end))
    return Span(
        lambda x: factor * x, lambda x: torch.full_like(x, factor), (0,), (), (), start, end, (limits[0], limits[1])
    )


def constant(value: float, start: float, end: float) -> Span:
    """Return one value."""
    return Span(lambda x: torch.full_like(x, value), torch.zeros_like, (0,), (), (), start, end, (value, value))


def exponential() -> Function:
    """Return exp(x)."""
    return Function((Span(torch.exp, torch.exp, (1,), limits=(0.0, INF), slope_floor=0.0),), 0.0)


def logarithm() -> Function:
    """Return log(x), x >= 0."""
    return Function((Span(torch.log, torch.reciprocal, (-1,), start=0.0, limits=(-INF, INF), slope_floor=0.0),))


def power(exponent: float) -> Function:
    """Return x^p: of all x for whole p, of x >= 0 for others, with a pole at 0 for p < 0."""
    if exponent in (0.0, 1.0) or not math.isfinite(exponent):
        raise ValueError(f"a power of {exponent} is no curve; supported: finite exponents other than 0 and 1")
    whole, even = exponent == int(exponent), exponent % 2 == 0
    less = exponent - 1.0
    # An exponent that was rounded would err by as many u as the logarithm of x is large.
    exact = Fraction(less) == Fraction(exponent) - 1
    formulas = (
        lambda x: x**exponent,
        lambda x: exponent * x**less if exact else exponent * (x**exponent / x),
    )
    if whole and exponent > 0:
        bends, turns = ((1,), (0.0,)) if even else ((-1, 1), ())
        knots = () if even else (0.0,)
        limits = (INF if even else -INF, INF)
        return Function((Span(*formulas, bends, knots, turns, limits=limits, slope_floor=0.0),), 0.0 if even else -INF)
    at_zero, at_end = (math.nan, 0.0) if exponent < 0 else (0.0, INF)
    bend = -1 if 0 < exponent < 1 else 1
    right = Span(*formulas, (bend,), start=0.0, limits=(at_zero, at_end), slope_floor=0.0)
    if not whole:
        return Function((right,), 0.0)
    left = Span(*formulas, (1 if even else -1,), end=0.0, limits=(0.0, math.nan), slope_floor=0.0)
    return Function((left, right), own_value=formulas[0])


def sign() -> Function:
    """Return -1, 0 or 1."""
    least = 5e-324
    return Function(
        (constant(-1.0, -INF, -least), constant(0.0, 0.0, 0.0), constant(1.0, least, INF)), -1.0, 1.0, torch.sign
    )


def sine() -> Function:
    """Return sin(x)."""
    return Wave((), -1.0, 1.0, torch.sin)


def cosine() -> Function:
    """Return cos(x)."""
    return Wave((), -1.0, 1.0, torch.cos, lambda x: -torch.sin(x), 0.0)


def erf() -> Function:
    """Return the error function."""

    def derivative(x: Tensor) -> Tensor:
        return torch.exp(-x.clamp(-1e2, 1e2).square()) * (2.0 / math.sqrt(math.pi))

    return Function((Span(torch.erf, derivative, (1, -1), (0.0,), limits=(-1.0, 1.0)),), -1.0, 1.0)


def arctangent() -> Function:
    """Return the inverse tangent."""
    bound = math.pi / 2.0 + 1e-15
    span = Span(torch.atan, lambda x: (1.0 + x.square()).reciprocal(), (1, -1), (0.0,), limits=(-bound, bound))
    return Function((span,), -bound, bound)
