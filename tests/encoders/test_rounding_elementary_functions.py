"""The errors that `ELEMENTARY_FUNCTION_ULPS` trusts torch's functions to keep, against 60-digit arithmetic.

The constant is twice the error that is claimed, so half of it must hold here. Vectorised and scalar code differ in
torch: tensors of many elements take the first (MKL's or Sleef's), single ones and the rest of a vector the second.
"""

import math
from collections.abc import Callable, Iterator

import mpmath
import pytest
import torch
from torch import Tensor

from encoders.rounding import ELEMENTARY_FUNCTION_ULPS

DIGITS = 60
POINTS = 1500

# The function, its exact counterpart, and the range of arguments as (sign, least and greatest exponent of ten).
Argument = tuple[int, float, float]
FUNCTIONS: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[object], object], list[Argument]]] = {
    # The ops take exp and expm1 of non-positive numbers; a positive one is expm1's for scores.
    "exp": (torch.exp, mpmath.exp, [(-1, -320.0, 2.87), (1, -20.0, 1.9)]),
    "expm1": (torch.expm1, mpmath.expm1, [(-1, -320.0, 2.87), (1, -320.0, 0.0)]),
    "log": (torch.log, mpmath.log, [(1, -320.0, 308.0), (1, -0.01, 0.01)]),
    "log1p": (torch.log1p, mpmath.log1p, [(-1, -320.0, -0.0001), (-1, -3.0, -0.3)]),
    "sigmoid": (torch.sigmoid, lambda v: 1 / (1 + mpmath.exp(-v)), [(-1, -320.0, 2.84), (1, -320.0, 4.0)]),
    "tanh": (torch.tanh, mpmath.tanh, [(-1, -320.0, 3.0), (1, -320.0, 3.0), (1, -2.0, 1.0)]),
    "sin": (torch.sin, mpmath.sin, [(-1, -320.0, 6.0), (1, -320.0, 6.0), (1, -1.0, 2.0)]),
    "cos": (torch.cos, mpmath.cos, [(-1, -320.0, 6.0), (1, -320.0, 6.0), (1, -1.0, 2.0)]),
    "sqrt": (torch.sqrt, mpmath.sqrt, [(1, -320.0, 308.0)]),
}


@pytest.fixture(autouse=True)
def _digits() -> Iterator[None]:
    with mpmath.workdps(DIGITS):
        yield


def arguments(name: str, dtype: torch.dtype) -> Tensor:
    """Return random arguments whose logarithms are uniform, and uniform ones between -20 and 0 (positive: 20)."""
    generator = torch.Generator().manual_seed(len(name))
    limit = 308.0 if dtype == torch.float64 else 38.0
    lowest = -320.0 if dtype == torch.float64 else -44.0
    parts = []
    for sign, low, high in FUNCTIONS[name][2]:
        low, high = max(low, lowest), min(high, limit)
        exponents = torch.rand(POINTS, generator=generator, dtype=torch.float64) * (high - low) + low
        parts.append(sign * 10.0**exponents)
    plain = torch.rand(POINTS, generator=generator, dtype=torch.float64) * 20.0
    parts.append(plain if name in ("log", "sqrt") else -plain / 20.0 if name == "log1p" else -plain)
    return torch.cat(parts).to(dtype)


def greatest_error(name: str, x: Tensor, y: Tensor) -> float:
    """Return the greatest error in units of 2u |exact|; results below twice the smallest normal number are left out.

    `widen` covers those by its absolute slack, which is checked here in their place.
    """
    exact_function = FUNCTIONS[name][1]
    unit, smallest = torch.finfo(x.dtype).eps, torch.finfo(x.dtype).tiny
    worst = 0.0
    for argument, value in zip(x.tolist(), y.tolist(), strict=True):
        exact = exact_function(mpmath.mpf(argument))
        if abs(exact) < 2 * smallest:
            assert abs(value - exact) <= smallest
        else:
            assert math.isfinite(value)
            worst = max(worst, float(abs((value - exact) / (exact * unit))))
    return worst


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_vectorised_functions_keep_half_the_trusted_error(name: str, dtype: torch.dtype) -> None:
    x = arguments(name, dtype)
    assert greatest_error(name, x, FUNCTIONS[name][0](x)) <= ELEMENTARY_FUNCTION_ULPS / 2


@pytest.mark.parametrize("name", FUNCTIONS)
def test_strided_tensors_keep_half_the_trusted_error(name: str) -> None:
    x = arguments(name, torch.float64)
    strided = torch.stack([x, x], dim=1)[:, 0]
    assert not strided.is_contiguous()
    assert greatest_error(name, x, FUNCTIONS[name][0](strided)) <= ELEMENTARY_FUNCTION_ULPS / 2


@pytest.mark.parametrize("name", FUNCTIONS)
def test_single_elements_keep_half_the_trusted_error(name: str) -> None:
    function = FUNCTIONS[name][0]
    x = arguments(name, torch.float64)[::3]
    single = torch.stack([function(value.reshape(1)) for value in x]).reshape(-1)
    assert greatest_error(name, x, single) <= ELEMENTARY_FUNCTION_ULPS / 2


def test_limits_are_exact() -> None:
    infinite = torch.tensor([math.inf], dtype=torch.float64)
    assert torch.exp(-infinite).item() == 0.0 and torch.expm1(-infinite).item() == -1.0
    assert torch.sigmoid(-infinite).item() == 0.0 and torch.sigmoid(infinite).item() == 1.0
    assert torch.tanh(-infinite).item() == -1.0 and torch.tanh(infinite).item() == 1.0
    zero = torch.zeros(1, dtype=torch.float64)
    assert torch.exp(zero).item() == 1.0 and torch.expm1(zero).item() == 0.0 and torch.log(zero).item() == -math.inf
