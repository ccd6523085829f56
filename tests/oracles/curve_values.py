"""Values and ranges of the functions of the table of curves, from their definitions, in mpmath's current precision.

Where a function is another one but for less than any float, that one is its value: mpmath takes minutes there.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import mpmath

# exp(-FAR) is below any float.
FAR = 10**4


def exp(x: Any) -> Any:
    """Return exp(x); beyond any float a number that is beyond any float, on the right side."""
    return mpmath.exp(min(max(x, -FAR), FAR))


def erfc(x: Any) -> Any:
    return mpmath.erfc(min(max(x, mpmath.mpf(-200)), mpmath.mpf(200)))


def log1p_exp(x: Any) -> Any:
    """Return log(1 + exp(x))."""
    return max(x, 0) + mpmath.log1p(exp(-abs(x)))


def softplus(x: Any, beta: float, threshold: float | None = None) -> Any:
    b = mpmath.mpf(beta)
    return x if threshold is not None and b * x > threshold else log1p_exp(b * x) / b


def tanh_gate(x: Any, scale: Any, cubic: Any) -> Any:
    """Return x (1 + tanh(scale (x + cubic x^3)))."""
    return 2 * x / (1 + exp(-2 * mpmath.mpf(scale) * (x + mpmath.mpf(cubic) * x**3)))


def power(x: Any, exponent: float) -> Any:
    return x ** (int(exponent) if exponent == int(exponent) else mpmath.mpf(exponent))


def below_zero(alpha: float, x: Any, rate: float = 1.0) -> Any:
    return mpmath.mpf(alpha) * mpmath.expm1(max(x / mpmath.mpf(rate), -FAR))


VALUES: dict[str, Callable[..., Any]] = {
    "arctangent": mpmath.atan,
    "celu": lambda x, alpha: x if x >= 0 else below_zero(alpha, x, alpha),
    "cos": mpmath.cos,
    "elu": lambda x, alpha: x if x >= 0 else below_zero(alpha, x),
    "erf": lambda x: 1 - erfc(x) if x > 1 else erfc(-x) - 1 if x < -1 else mpmath.erf(x),
    "erf-gate": lambda x: x * erfc(-x),
    "exp": exp,
    "gelu": lambda x: x * erfc(-x / mpmath.sqrt(2)) / 2,
    "gelu-tanh": lambda x: tanh_gate(x, mpmath.sqrt(2 / mpmath.pi), mpmath.mpf("0.044715")) / 2,
    "hard-swish": lambda x: x * min(max(x + 3, mpmath.mpf(0)), mpmath.mpf(6)) / 6,
    "log": mpmath.log,
    "log-sigmoid": lambda x: -log1p_exp(-x),
    "mish": lambda x: x * mpmath.tanh(log1p_exp(x)),
    "power": power,
    "selu": lambda x, alpha, gamma: mpmath.mpf(gamma) * (x if x >= 0 else below_zero(alpha, x)),
    "sign": mpmath.sign,
    "silu": lambda x: x / (1 + exp(-x)),
    "sin": mpmath.sin,
    "softplus": softplus,
    "softsign": lambda x: x / (1 + abs(x)),
    "tanh-gate": tanh_gate,
    "tanhshrink": lambda x: x - mpmath.tanh(x),
}

# Brackets of the places where functions turn, beside their bends.
TURNS: dict[str, tuple[float, float]] = {
    "erf-gate": (-0.6, -0.5),
    "gelu": (-0.8, -0.7),
    "gelu-tanh": (-0.8, -0.7),
    "hard-swish": (-1.6, -1.4),
    "mish": (-1.3, -1.1),
    "silu": (-1.4, -1.2),
    "tanh-gate": (-0.8, -0.7),
}


def curve_value(function: str, arguments: tuple[float, ...], x: Any) -> Any:
    """Return f(x)."""
    return VALUES[function](mpmath.mpf(x), *arguments)


@cache
def turn_of(function: str, arguments: tuple[float, ...], precision: int) -> Any:
    """Return where the function is least, so near that its value has all digits."""
    low, high = (mpmath.mpf(end) for end in TURNS[function])
    with mpmath.workprec(min(precision, 600)):
        slope = lambda x: mpmath.diff(lambda v: VALUES[function](v, *arguments), x)  # noqa: E731
        return mpmath.findroot(slope, (low, high), solver="anderson", tol=1e-60)


def curve_range(function: str, arguments: tuple[float, ...], low: Any, high: Any) -> tuple[Any, Any]:
    """Return the least and the greatest value on [low, high], on which the function is continuous."""
    places = [low, high]
    if function in TURNS:
        places.append(min(max(turn_of(function, arguments, mpmath.mp.prec), low), high))
    if low < 0 < high:
        places.append(mpmath.mpf(0))
    values = [curve_value(function, arguments, place) for place in places]
    return min(values), max(values)
