"""Formulas of and, or and linear comparisons, as disjunctions of conjunctions of rows."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

from encoders.formats.vnnlib_linear import Linear, Row, at_most
from encoders.formats.vnnlib_tokens import Source, Token

# What each operator between a and b asks: (is b the smaller one, is it strict).
_ORDERS = {"<=": (False, False), "<": (False, True), ">=": (True, False), ">": (True, True)}
EQUALITIES = ("=", "==")
COMPARISONS = (*_ORDERS, *EQUALITIES, "!=")


class Formula(NamedTuple):
    """True where all rows of any disjunct hold; without disjuncts nowhere, with an empty disjunct everywhere."""

    disjuncts: tuple[tuple[Row, ...], ...]


def comparison(arguments: Sequence[Linear], source: Source, at: Token) -> Formula:
    """Return what an operator says of two expressions, or of each and the next; an equality is two rows."""
    operator = at.text
    if len(arguments) < 2 or (operator == "!=" and len(arguments) != 2):
        wanted = "two arguments" if operator == "!=" else "two arguments or more"
        raise source.refusal(at, f"{operator} takes {wanted}, got {len(arguments)}")
    pairs = list(itertools.pairwise(arguments))
    if operator == "!=":
        return Formula(tuple((at_most(*pair, True, at),) for pair in (pairs[0], pairs[0][::-1])))
    if operator in EQUALITIES:
        return Formula((tuple(at_most(*pair, False, at) for a, b in pairs for pair in ((a, b), (b, a))),))
    turned, strict = _ORDERS[operator]
    return Formula((tuple(at_most(b, a, strict, at) if turned else at_most(a, b, strict, at) for a, b in pairs),))


def conjunction(parts: Sequence[Formula], source: Source) -> Formula:
    """Return where all formulas hold. Raises LimitError, before expanding, for too many disjuncts or rows in them."""
    if len(parts) == 1:
        return parts[0]
    common = [row for part in parts if len(part.disjuncts) == 1 for row in part.disjuncts[0]]
    choices = [part.disjuncts for part in parts if len(part.disjuncts) != 1]
    count = 1
    for choice in choices:
        count *= len(choice)
        source.limits.check("disjuncts", count, "the formula")
    rows = len(common) * count + sum(count // len(choice) * _rows(choice) for choice in choices)
    source.limits.check("formula_rows", rows, "the formula")
    return Formula(tuple(tuple(itertools.chain(common, *chosen)) for chosen in itertools.product(*choices)))


def disjunction(parts: Sequence[Formula], source: Source) -> Formula:
    """Return where any formula holds. Raises LimitError as `conjunction`."""
    if len(parts) == 1:
        return parts[0]
    disjuncts = tuple(itertools.chain.from_iterable(part.disjuncts for part in parts))
    source.limits.check("disjuncts", len(disjuncts), "the formula")
    source.limits.check("formula_rows", _rows(disjuncts), "the formula")
    return Formula(disjuncts)


def _rows(disjuncts: Sequence[Sequence[Row]]) -> int:
    return sum(len(disjunct) for disjunct in disjuncts)
