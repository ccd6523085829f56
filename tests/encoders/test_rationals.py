"""Rational tensors: what floats are, and what sums and products of them are, against Python's fractions."""

from fractions import Fraction

import numpy as np
import pytest
import torch

from encoders.rationals import MOST_BITS, NotEvaluated, Rationals, join, product

F64 = torch.float64


def spread_numbers(*shape: int, seed: int, exponents: float = 40.0) -> torch.Tensor:
    """Return floats of very different sizes and both signs, some of them zero."""
    generator = torch.Generator().manual_seed(seed)
    value = torch.randn(*shape, generator=generator, dtype=F64)
    sizes = exponents * (2 * torch.rand(*shape, generator=generator, dtype=F64) - 1)
    return value * 2.0 ** sizes.round() * (torch.rand(*shape, generator=generator) < 0.8)


def fractions(x: torch.Tensor) -> list[Fraction]:
    return [Fraction(value) for value in x.flatten().tolist()]


def free(_: int) -> None:
    """Nothing is too dear."""


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, F64])
def test_a_float_is_the_fraction_that_it_is(dtype):
    x = spread_numbers(5, 7, seed=1, exponents=5.0).to(dtype)
    assert Rationals.of(x).values() == fractions(x.to(F64))


def test_the_ends_of_the_range_of_floats_are_exact():
    x = torch.tensor([5e-324, -(2.0**-1074), 1.7976931348623157e308, 0.0, -0.0, 1.0, 2.0**60], dtype=F64)
    assert Rationals.of(x).values() == fractions(x)
    with pytest.raises(ValueError, match="finite"):
        Rationals.of(torch.tensor([float("nan")]))


def test_common_powers_of_two_are_taken_out():
    found = Rationals.of(torch.tensor([6.0, -20.0]) / 64)
    assert (found.numerators.tolist(), found.denominator) == ([3, -10], 32)
    assert Rationals.of(torch.zeros(2)).values() == [0, 0]


@pytest.mark.parametrize("seed", range(6))
def test_products_of_matrices_are_exact(seed):
    count = (1, 3, 40)[seed % 3]
    x, weight = spread_numbers(4, count, seed=seed), spread_numbers(3, count, seed=seed + 50)
    expected = [
        sum(Fraction(a) * Fraction(b) for a, b in zip(left, right, strict=True))
        for left in x.tolist()
        for right in weight.tolist()
    ]
    assert product(Rationals.of(x), weight, free).values() == expected


def test_a_product_of_long_numbers_is_exact():
    # Thousands of bits, as after many layers, and so many limbs that sums are emptied on the way.
    generator = np.random.default_rng(0)
    whole = np.array([int.from_bytes(generator.bytes(2000)) - 2**15999 for _ in range(4)], dtype=object)
    x = Rationals(whole.reshape(2, 2), 3)
    weight = torch.tensor([[2.0**500, 2.0**-500], [1e300 * 3, -1e-300]], dtype=F64)
    expected = [
        sum(Fraction(int(a), 3) * Fraction(b) for a, b in zip(left, right, strict=True))
        for left in whole.reshape(2, 2).tolist()
        for right in weight.tolist()
    ]
    assert product(x, weight, free).values() == expected


def test_what_a_product_costs_is_said_before():
    asked = []
    product(Rationals.of(torch.ones(2, 5)), torch.ones(3, 5), asked.append)
    assert asked == [2 * 3 * 5]
    with pytest.raises(NotEvaluated, match="no money"):
        product(Rationals.of(torch.ones(2, 5)), torch.ones(3, 5), lambda _: refuse("no money"))


def refuse(message: str) -> None:
    raise NotEvaluated(message)


@pytest.mark.parametrize("seed", range(3))
def test_sums_differences_products_and_quotients_of_elements_are_exact(seed):
    a, b = spread_numbers(2, 3, seed=seed), spread_numbers(2, 3, seed=seed + 9)
    b = torch.where(b == 0, torch.tensor(0.75, dtype=F64), b)
    left, right = Rationals.of(a), Rationals.of(b)
    pairs = list(zip(fractions(a), fractions(b), strict=True))
    assert (left + right).values() == [x + y for x, y in pairs]
    assert (left - right).values() == [x - y for x, y in pairs]
    assert (left * right).values() == [x * y for x, y in pairs]
    assert (left / right).values() == [x / y for x, y in pairs]
    assert join(left / right, right, 1).values()[:3] == [x / y for x, y in pairs[:3]]


def test_a_denominator_does_not_grow_without_end():
    divisor = 1.0 + torch.rand(1000, generator=torch.Generator().manual_seed(0), dtype=F64)
    with pytest.raises(NotEvaluated, match=f"more than {MOST_BITS} bits"):
        Rationals.of(torch.ones(1, 1000)) / Rationals.of(divisor)
