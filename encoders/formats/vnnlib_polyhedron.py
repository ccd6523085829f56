"""The polyhedron of a conjunction of rows over outputs, in float64 without losing a point."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

import torch

from encoders.formats.vnnlib_linear import Row
from encoders.formats.vnnlib_tokens import Source
from encoders.property import Halfspaces
from encoders.rounding import float_enclosure

# The coefficients of a row as whole numbers without a common factor, by output: one form for all multiples of a row.
Direction = tuple[tuple[int, int], ...]


def polyhedron(rows: Sequence[Row], outputs: int, source: Source) -> Halfspaces | None:
    """Return the polyhedron where all rows hold; None if two of them contradict each other.

    Each row is scaled to whole numbers, which float64 must hold exactly: no rounded half-space contains the written
    one. Its bound is rounded up. Of rows with one direction the tightest is kept; without rows it is everything.
    """
    tightest: dict[Direction, tuple[Fraction, bool]] = {}
    for row in rows:
        direction, bound = _primitive(row)
        known = tightest.get(direction)
        if known is None or (bound, not row.strict) < (known[0], not known[1]):
            tightest[direction] = (bound, row.strict)
            _check_exact(direction, bound, row, source)
    for direction, (bound, strict) in tightest.items():
        opposite = tightest.get(tuple((output, -coefficient) for output, coefficient in direction))
        # -a y <= b and a y <= c leave a y between -b and c.
        if opposite is not None:
            room = bound + opposite[0]
            if room < 0 or (room == 0 and (strict or opposite[1])):
                return None
    if not tightest:
        return Halfspaces(torch.zeros(1, outputs, dtype=torch.float64), torch.zeros(1, dtype=torch.float64))
    return _halfspaces(tightest, outputs)


def _halfspaces(tightest: dict[Direction, tuple[Fraction, bool]], outputs: int) -> Halfspaces:
    coefficients = torch.zeros(len(tightest), outputs, dtype=torch.float64)
    for number, direction in enumerate(tightest):
        for output, coefficient in direction:
            coefficients[number, output] = float(coefficient)
    written = tuple(bound for bound, _ in tightest.values())
    strict = tuple(strict for _, strict in tightest.values())
    offsets = [float_enclosure(bound)[1] for bound in written]
    exact = all(offset == bound for offset, bound in zip(offsets, written, strict=True))
    return Halfspaces(
        coefficients,
        torch.tensor(offsets, dtype=torch.float64),
        strict if any(strict) else (),
        None if exact else written,
    )


def _primitive(row: Row) -> tuple[Direction, Fraction]:
    """Return a row's direction, and its bound times the same factor, which is positive."""
    common = math.lcm(*(value.denominator for value in row.terms.values()))
    shared = math.gcd(*(value.numerator * (common // value.denominator) for value in row.terms.values()))
    factor = Fraction(common, shared)
    terms = sorted((variable.place, int(value * factor)) for variable, value in row.terms.items())
    return tuple(terms), row.bound * factor


def _check_exact(direction: Direction, bound: Fraction, row: Row, source: Source) -> None:
    try:
        exact = all(int(float(coefficient)) == coefficient for _, coefficient in direction)
        float_enclosure(bound)
    except OverflowError:
        raise source.refusal(row.at, "a row with numbers too far apart for float64; check them") from None
    if not exact:
        raise source.refusal(
            row.at,
            "the coefficients of this row have too many digits: scaled to whole numbers they exceed what float64 holds "
            "exactly; write them with up to 15 digits",
        )
