"""Formulas about several networks, or that couple inputs, as formulas about copies of networks on one joint input.

Inputs that the file asserts to be equal become one coordinate. A constraint that couples inputs, with one another or
with outputs, becomes a row over outputs: the inputs in it are shown behind those (`encoders.joint`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

from encoders.box import Shape
from encoders.formats.vnnlib_formula import Formula
from encoders.formats.vnnlib_linear import Row, Variable
from encoders.formats.vnnlib_variables import Variables
from encoders.joint import Copy, Joint


@dataclass(frozen=True)
class Subject:
    """What formulas are about.

    shape: of the input. outputs: how many. joint: None for one network whose inputs are bounded one by one.
    declared: of each coordinate of the input the first declared one that it is.
    """

    shape: Shape
    outputs: int
    joint: Joint | None
    declared: Sequence[int]


def joined(asserted: Sequence[Formula], variables: Variables) -> tuple[Sequence[Formula], Subject]:
    """Return the formulas over a joint input and its outputs, and what these are; unchanged for one plain network."""
    networks = variables.networks()
    counts = [(math.prod(network.shape), network.outputs) for network in networks]
    inputs, outputs = (sum(pair[k] for pair in counts) for k in (0, 1))
    if len(networks) == 1 and not any(_couples(row) for row in _rows(asserted)):
        return asserted, Subject(networks[0].shape, outputs, None, range(inputs))
    declared, coordinate = _coordinates(inputs, _equalities(asserted))
    # Inputs that are one coordinate may cancel, or leave a bound of a single one.
    formulas = [
        Formula(tuple(tuple(_renamed(row, coordinate) for row in rows) for rows in formula.disjuncts))
        for formula in asserted
    ]
    coupled = (row for row in _rows(formulas) if _couples(row))
    shown = sorted({variable.place for row in coupled for variable in row.terms if variable.is_input})
    place_of = {place: outputs + number for number, place in enumerate(shown)}
    copies, start = [], 0
    for network, (count, own) in zip(networks, counts, strict=True):
        places = tuple(coordinate[start : start + count])
        copies.append(Copy(network.model, network.shape, places, own))
        start += count
    joint = Joint(len(declared), tuple(copies), tuple(shown))
    formulas = [
        Formula(tuple(tuple(_over_outputs(row, place_of) for row in rows) for rows in formula.disjuncts))
        for formula in formulas
    ]
    return formulas, Subject((len(declared),), joint.outputs, joint, declared)


def _rows(formulas: Sequence[Formula]) -> Iterator[Row]:
    return (row for formula in formulas for disjunct in formula.disjuncts for row in disjunct)


def _couples(row: Row) -> bool:
    """Return whether a row is about an input and anything else."""
    return len(row.terms) > 1 and any(variable.is_input for variable in row.terms)


def _equalities(asserted: Sequence[Formula]) -> list[tuple[int, int]]:
    """Return pairs of inputs that every counterexample has equal: both a <= b and b <= a are asserted."""
    below: set[tuple[int, int]] = set()
    for formula in asserted:
        for row in formula.disjuncts[0] if len(formula.disjuncts) == 1 else ():
            if len(row.terms) == 2 and not row.bound and all(variable.is_input for variable in row.terms):
                (first, one), (second, other) = row.terms.items()
                if one == -other:
                    below.add((first.place, second.place) if one > 0 else (second.place, first.place))
    return sorted(pair for pair in below if pair[0] < pair[1] and pair[::-1] in below)


def _coordinates(inputs: int, equal: Sequence[tuple[int, int]]) -> tuple[list[int], list[int]]:
    """Return (the first declared input of each joint coordinate, the joint coordinate of each declared input)."""
    leader = list(range(inputs))

    def first(place: int) -> int:
        while leader[place] != place:
            leader[place] = leader[leader[place]]
            place = leader[place]
        return place

    for one, other in equal:
        low, high = sorted((first(one), first(other)))
        leader[high] = low
    leaders = [first(place) for place in range(inputs)]
    declared = sorted(set(leaders))
    number = {place: coordinate for coordinate, place in enumerate(declared)}
    return declared, [number[place] for place in leaders]


def _renamed(row: Row, coordinate: Sequence[int]) -> Row:
    """Return a row with inputs by their joint coordinates."""
    terms: dict[Variable, Fraction] = {}
    for variable, value in row.terms.items():
        place = coordinate[variable.place] if variable.is_input else variable.place
        new = Variable(variable.is_input, place)
        terms[new] = terms.get(new, Fraction(0)) + value
    return row._replace(terms={variable: value for variable, value in terms.items() if value})


def _over_outputs(row: Row, place_of: dict[int, int]) -> Row:
    """Return a row with the inputs that are coupled in it as the outputs that show them."""
    if not _couples(row):
        return row
    terms = {
        Variable(False, place_of[variable.place]) if variable.is_input else variable: value
        for variable, value in row.terms.items()
    }
    return row._replace(terms=terms)
