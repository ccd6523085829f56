"""The exponential, the logarithm and the square root, between integers.

Values are integers in units of 2^-bits, rounded outward: series of whole numbers whose remainder is stated, so that
there is no library function to trust.
"""

from __future__ import annotations

import functools
import math

# Ends of values, and of distances; the greatest distance None is infinite.
Range = tuple[int, int]


GUARD = 32


def exp_minus(x: int, bits: int) -> Range:
    """Return integers around exp(-x / 2^bits) 2^bits, x >= 0.

    exp(-x) = exp(-x / 2^k)^(2^k) with x / 2^k <= 1/2, where the terms of the series fall and alternate, so that a sum
    that ends with a term taken off is too small, and one that ends with a term added too large.
    """
    if x >= bits << bits:
        # exp(-bits) < 2^-bits.
        return 0, 1
    halvings = max(0, x.bit_length() - bits + 1)
    fine = bits + halvings + GUARD
    # x / 2^(bits + halvings) in units of 2^-fine, exactly.
    small, one = x << GUARD, 1 << fine
    low, high, least, greatest, k = one, one, one, one, 0
    while greatest > 1:
        # Between these lies small^k / k!.
        k += 1
        least, greatest = (least * small >> fine) // k, -((-greatest * small >> fine) // k)
        if k % 2:
            low, high = low - greatest, high - least
        else:
            low, high = low + least, high + greatest
    # What is left out is at most the next term, and that at most 1.
    low, high = max(low - 1, 0), high + 1
    for _ in range(halvings):
        low, high = low * low >> fine, -(-high * high >> fine)
    return low >> (fine - bits), min(-(-high >> (fine - bits)), 1 << bits)


def minus_log(y: int, bits: int) -> Range:
    """Return integers around -ln(y / 2^bits) 2^bits, 0 < y <= 2^bits.

    With y = m 2^e, 1 <= m < 2, it is -e ln 2 - ln m, and ln m = 2 artanh((m - 1) / (m + 1)).
    """
    fine = bits + GUARD + bits.bit_length()
    shift = bits - y.bit_length() + 1
    top = (y << shift) - (1 << bits)
    two, log = _log_two(fine), _twice_artanh(top, (1 << bits) + (y << shift), fine)
    low, high = shift * two[0] - log[1], shift * two[1] - log[0]
    return max(low, 0) >> (fine - bits), -(-high >> (fine - bits))


@functools.cache
def _log_two(fine: int) -> Range:
    return _twice_artanh(1, 3, fine)


def _twice_artanh(top: int, bottom: int, fine: int) -> Range:
    """Return integers around 2 artanh(top / bottom) 2^fine, 0 <= top / bottom <= 1/3.

    It is 2 sum t^(2 k + 1) / (2 k + 1); what is left out after a term is at most an eighth of it, as t^2 <= 1/9.
    """
    least, greatest = (top << fine) // bottom, -((-top << fine) // bottom)
    square = -(-greatest * greatest >> fine)
    low = high = k = 0
    below, above = least, greatest
    while True:
        low, high = low + below // (2 * k + 1), high - (-above // (2 * k + 1))
        if above <= 1:
            return 2 * low, 2 * (high + 1)
        below, above, k = below * (least * least >> fine) >> fine, -(-above * square >> fine), k + 1


def root(low: int, high: int, bits: int) -> Range:
    """Return integers around the square roots of what lies between 2^-bits times low and high, times 2^bits."""
    greatest = high << bits
    up = math.isqrt(greatest)
    return math.isqrt(max(low, 0) << bits), up + (up * up < greatest)
