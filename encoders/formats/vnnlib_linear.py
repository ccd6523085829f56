"""Linear expressions over the inputs and outputs of a network, and the rows that comparisons of them make."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

from encoders.formats.vnnlib_tokens import Source, Token

# Bits of a numerator or denominator beyond which constants are no longer multiplied.
MOST_BITS = 8_192

ZERO, ONE = Fraction(0), Fraction(1)


class Variable(NamedTuple):
    """A coordinate of the network's input or output, flattened in C order."""

    is_input: bool
    place: int


class Linear(NamedTuple):
    """The sum of coefficient times variable over `terms`, plus `constant`."""

    terms: dict[Variable, Fraction]
    constant: Fraction


class Row(NamedTuple):
    """The constraint that the sum of coefficient times variable is at most `bound`, or less where `strict`.

    No coefficient is zero; without terms it is a constraint between numbers. at: the comparison, for messages.
    """

    terms: dict[Variable, Fraction]
    bound: Fraction
    strict: bool
    at: Token


def total(summands: Sequence[Linear]) -> Linear:
    """Return the sum."""
    terms: dict[Variable, Fraction] = dict(summands[0].terms)
    constant = summands[0].constant
    for summand in summands[1:]:
        constant += summand.constant
        for variable, coefficient in summand.terms.items():
            terms[variable] = terms[variable] + coefficient if variable in terms else coefficient
    return Linear(terms, constant)


def scaled(expression: Linear, factor: Fraction) -> Linear:
    """Return the expression times a number."""
    terms = {variable: coefficient * factor for variable, coefficient in expression.terms.items()}
    return Linear(terms, expression.constant * factor)


def difference(arguments: Sequence[Linear]) -> Linear:
    """Return the first less all others; of a single one the negative."""
    if len(arguments) == 1:
        return scaled(arguments[0], -ONE)
    return total([arguments[0], *(scaled(argument, -ONE) for argument in arguments[1:])])


def product(factors: Sequence[Linear], source: Source, at: Token) -> Linear:
    """Return the product; refuse one of two expressions with variables, which is not linear."""
    result = factors[0]
    for factor in factors[1:]:
        if result.terms and factor.terms:
            raise source.refusal(
                at, "a product of two expressions with variables is not linear; supported: products with constants"
            )
        result = scaled(factor, result.constant) if factor.terms else scaled(result, factor.constant)
        for value in (result.constant, *result.terms.values()):
            if max(value.numerator.bit_length(), value.denominator.bit_length()) > MOST_BITS:
                raise source.refusal(at, f"a product of constants with more than {MOST_BITS:,} bits")
    return result


def at_most(smaller: Linear, larger: Linear, strict: bool, at: Token) -> Row:
    """Return the row of smaller <= larger, or of smaller < larger."""
    both = difference([smaller, larger]) if larger.terms else smaller
    bound = -both.constant if larger.terms else larger.constant - smaller.constant
    return Row({variable: value for variable, value in both.terms.items() if value}, bound, strict, at)
