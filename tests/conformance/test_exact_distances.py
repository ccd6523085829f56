"""The enclosures of the exact checker hold exp, ln, the root and the mirror, however few bits it takes."""

import random

import mpmath
import pytest

from verifier_check.distances import mirrored
from verifier_check.exponential import exp_minus, minus_log, root


@pytest.mark.parametrize("bits", [8, 64, 128, 512])
def test_enclosures_hold_the_values_and_are_two_units_wide(bits):
    draw, one = random.Random(bits), 1 << bits
    with mpmath.workprec(4 * bits + 200):
        for number in range(150):
            x = int(one * mpmath.mpf(2) ** draw.uniform(-0.9 * bits, 12) * draw.random())
            x = (0, 1, 2, one - 1, one, one + 1, bits << bits, (bits << bits) - 1)[number] if number < 8 else x
            low, high = exp_minus(x, bits)
            assert low <= mpmath.exp(-mpmath.mpf(x) / one) * one <= high <= low + 2
            y = max(1, min(one, draw.choice([x % one, one - x % one, draw.randrange(1, one + 1)])))
            low, high = minus_log(y, bits)
            assert 0 <= low <= -mpmath.log(mpmath.mpf(y) / one) * one <= high <= low + 2
            low, high = root(x, x + 1, bits)
            assert low * low <= x << bits and high * high >= (x + 1) << bits and high - low < 2 ** (bits / 2 + 1)


@pytest.mark.parametrize("bits", [16, 128])
def test_the_mirror_of_a_range_holds_those_of_its_points(bits):
    draw, one = random.Random(bits), 1 << bits
    with mpmath.workprec(8 * bits + 200):
        for _ in range(100):
            ends = sorted(int(one * 2 ** draw.uniform(-6, 2)) for _ in range(2))
            low, high = mirrored(*ends, bits)
            for z in (*ends, sum(ends) // 2):
                value = mpmath.sqrt(-mpmath.log(1 - mpmath.exp(-((mpmath.mpf(z) / one) ** 2)))) * one
                assert low <= value and (high is None or value <= high)
        assert mirrored(0, one, bits)[1] is None and mirrored(0, None, bits)[0] == 0
