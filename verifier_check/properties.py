"""What is unsafe: that another class wins, or the rows of a property, of VNN-LIB text or JSON."""

from __future__ import annotations

import json
import math
import re
from fractions import Fraction
from typing import Any

from verifier_check.network import Network
from verifier_check.refusals import Refused, Undecided

# Rows (coefficients, offset) of which all of a group must be at most their offsets for a point to be unsafe; integers,
# each row times some power of two.
Group = list[tuple[dict[int, int], int]]


def class_count(network: Network, winner: int) -> int:
    """Return how many classes there are; Refused unless there are two or more, of which the winner is one.

    A single number has no rivals, so that anything would prove that it wins: its classes are those of `scores`.
    """
    shape = network.shapes[network.nodes[-1].name]
    if len(shape) != 1 or shape[0] < 2 or not 0 <= winner < shape[0]:
        raise Refused(f"class {winner} is none of two or more, the output is of shape {shape}")
    return shape[0]


def class_groups(network: Network, winner: int) -> list[Group]:
    """Return one row for each rival: that the winner is not above it."""
    return [[({winner: 1, rival: -1}, 0)] for rival in range(class_count(network, winner)) if rival != winner]


def read_property(content: bytes) -> tuple[dict[int, list[Fraction]] | None, list[Group]]:
    """Return (the box of the inputs, None where it is not said; the rows of the polyhedra, which are unsafe).

    content: VNN-LIB text over X_i and Y_i whose comparisons are of two variables, or of one and a number; or JSON
    {"unsafe": [{"coefficients": [[...]], "offsets": [...]}]}.
    """
    if content.lstrip()[:1] != b"{":
        return _vnnlib(content.decode("utf-8"))
    fields = json.loads(content)
    polyhedra = fields["unsafe"]
    if fields.keys() != {"unsafe"} or any(each.keys() != {"coefficients", "offsets"} for each in polyhedra):
        raise Refused("a property in JSON says what is unsafe, by coefficients and offsets, and nothing else")
    rows = [list(zip(each["coefficients"], each["offsets"], strict=True)) for each in polyhedra]
    return None, [[_whole_row(dict(enumerate(map(Fraction, c))), Fraction(d)) for c, d in each] for each in rows]


def _whole_row(row: dict[int, Fraction], offset: Fraction) -> tuple[dict[int, int], int]:
    """Return a row of rationals times a whole number that makes all of them whole."""
    common = math.lcm(offset.denominator, *(value.denominator for value in row.values()))
    return {j: int(value * common) for j, value in row.items() if value}, int(offset * common)


def _vnnlib(text: str) -> tuple[dict[int, list[Fraction]], list[Group]]:
    """Return the one box of VNN-LIB text, and its polyhedra; strict comparisons are closed."""
    stack: list[list[Any]] = [[]]
    for token in re.findall(r"[()]|[^\s()]+", re.sub(r";.*", "", text)):
        if token == "(":
            stack.append([])
        elif token == ")":
            last = stack.pop()
            stack[-1].append(last)
        else:
            stack[-1].append(token)
    (statements,) = stack
    cases: list[list[Any]] = [[]]
    for statement in statements:
        if statement[0] == "assert":
            cases = [one + other for one in cases for other in _cases(statement[1])]
        elif statement[0] != "declare-const":
            raise Undecided(f"VNN-LIB: {statement[0]!r} is not supported")
    boxes, groups = list[dict[int, list[Fraction]]](), list[Group]()
    for case in cases:
        box: dict[int, list[Any]] = {}
        group: Group = []
        for relation, a, b in case:
            (row, constant), (other, taken) = _side(a), _side(b)
            inputs = [name for name in (*row, *other) if name[0] == "X"]
            if relation in (">=", ">"):
                (row, constant), (other, taken) = (other, taken), (row, constant)
            elif relation not in ("<=", "<"):
                raise Undecided(f"VNN-LIB: {relation!r} is not supported")
            if not inputs:
                names = {int(name[2:]): Fraction(0) for name in (*row, *other)}
                for name, sign in (*((n, 1) for n in row), *((n, -1) for n in other)):
                    names[int(name[2:])] += sign
                group.append(_whole_row(names, taken - constant))
            elif len(row) + len(other) > 1:
                raise Undecided("VNN-LIB: a comparison of an input with something that is no number is not supported")
            else:
                ends = box.setdefault(int(inputs[0][2:]), [None, None])
                end, value = (1, taken) if row else (0, constant)
                ends[end] = value if ends[end] is None else (min if end else max)(ends[end], value)
        boxes.append(box)
        groups.append(group)
    if any(box != boxes[0] for box in boxes) or any(None in ends for ends in boxes[0].values()):
        raise Undecided("VNN-LIB: several boxes, or one without an end, are not supported")
    return boxes[0], groups


def _cases(formula: Any) -> list[list[Any]]:
    """Return a formula as cases, in each of which several comparisons hold together."""
    if formula[0] == "or":
        return [case for part in formula[1:] for case in _cases(part)]
    if formula[0] == "and":
        made: list[list[Any]] = [[]]
        for part in formula[1:]:
            made = [one + other for one in made for other in _cases(part)]
        return made
    if len(formula) != 3:
        raise Undecided(f"VNN-LIB: {formula[0]!r} is not supported")
    return [[formula]]


def _side(term: Any) -> tuple[tuple[str, ...], Fraction]:
    """Return (the variable, or nothing; the number) of a side of a comparison."""
    if not isinstance(term, str):
        raise Undecided(f"VNN-LIB: {term!r:.60} is not supported")
    return ((term,), Fraction(0)) if re.fullmatch(r"[XY]_\d+", term) else ((), Fraction(term))
