"""Properties of a formula: the box and the polyhedra of each disjunct, disjuncts with one box together.

Decimal numbers are exact until here. For proofs the box and the polyhedra hold the written ones: ends are rounded
outward to float64, strict comparisons are closed. What a witness is compared with is kept as it was written, but for
inputs that are fixed to a number which no float equals.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import NamedTuple

import torch
from torch import Tensor

from encoders.formats.errors import PropertyFileError
from encoders.formats.vnnlib_formula import Formula, conjunction
from encoders.formats.vnnlib_joint import Subject, joined
from encoders.formats.vnnlib_linear import Row, Variable
from encoders.formats.vnnlib_polyhedron import polyhedron
from encoders.formats.vnnlib_tokens import Source
from encoders.formats.vnnlib_variables import Variables
from encoders.property import Halfspaces, Property
from encoders.rounding import float_enclosure


class Interval(NamedTuple):
    """What one input may be: its ends, None where there is none, and whether each was written strictly."""

    lower: Fraction | None = None
    lower_strict: bool = False
    upper: Fraction | None = None
    upper_strict: bool = False

    def cut(self, coefficient: Fraction, row: Row) -> Interval:
        """Return what of it satisfies a row with this one variable."""
        end = row.bound if coefficient == 1 else row.bound / coefficient
        if coefficient > 0:
            if self.upper is None or (end, not row.strict) < (self.upper, not self.upper_strict):
                return Interval(self.lower, self.lower_strict, end, row.strict)
        elif self.lower is None or (end, row.strict) > (self.lower, self.lower_strict):
            return Interval(end, row.strict, self.upper, self.upper_strict)
        return self

    @property
    def empty(self) -> bool:
        """Whether no real number lies in it."""
        if self.lower is None or self.upper is None:
            return False
        return self.lower > self.upper or (self.lower == self.upper and (self.lower_strict or self.upper_strict))


# Disjuncts by what their boxes have in place of the common intervals; each is its rows over outputs.
Groups = dict[tuple[tuple[int, Interval], ...], list[list[Row]]]
# (lower, upper, inner), as `Property` has them.
Bounds = tuple[Tensor, Tensor, tuple[Tensor, Tensor] | None]


@dataclass
class _Region:
    """A conjunction: bounded inputs, and rows over outputs. contradiction: a row that shows that no point is in it."""

    inputs: dict[int, Interval] = field(default_factory=dict)
    outputs: list[Row] = field(default_factory=list)
    contradiction: Row | None = None


def properties_of(asserted: Sequence[Formula], variables: Variables, source: Source) -> tuple[Property, ...]:
    """Return one property for each input box of the formulas' conjunction, in order of first appearance.

    A conjunction that contradicts itself has no counterexample and is left out; where all do, one property without
    unsafe sets says so. Raises PropertyFileError, or LimitError for what expands to too much.
    """
    formulas, subject = joined(asserted, variables)
    common = _Region()
    for formula in formulas:
        if len(formula.disjuncts) == 1:
            _add(common, formula.disjuncts[0], {})
    alternatives = [formula for formula in formulas if len(formula.disjuncts) > 1]
    disjuncts = conjunction(alternatives, source).disjuncts if alternatives else ((),)
    source.limits.check("formula_rows", len(disjuncts) * (1 + len(common.outputs)), "the formula")
    groups: Groups = {}
    contradiction = common.contradiction
    for disjunct in disjuncts if contradiction is None else ():
        region = _Region(outputs=list(common.outputs))
        _add(region, disjunct, common.inputs)
        if region.contradiction is None:
            changed = {i: interval for i, interval in region.inputs.items() if interval != common.inputs.get(i)}
            groups.setdefault(tuple(sorted(changed.items(), key=lambda item: item[0])), []).append(region.outputs)
        else:
            contradiction = contradiction or region.contradiction
    return _Builder(subject, common.inputs, variables, source).build(groups, contradiction)


def _add(region: _Region, rows: Iterable[Row], outer: dict[int, Interval]) -> None:
    """Add rows to a region whose inputs are already within `outer`."""
    for row in rows:
        if not row.terms:
            if row.bound < 0 or (row.bound == 0 and row.strict):
                region.contradiction = region.contradiction or row
            continue
        if not any(variable.is_input for variable in row.terms):
            region.outputs.append(row)
            continue
        ((variable, coefficient),) = row.terms.items()
        interval = region.inputs.get(variable.place) or outer.get(variable.place) or Interval()
        region.inputs[variable.place] = interval.cut(coefficient, row)
        if region.inputs[variable.place].empty:
            region.contradiction = region.contradiction or row


@dataclass(frozen=True)
class _Builder:
    """Makes properties of regions. common: the inputs' intervals that all regions share."""

    subject: Subject
    common: dict[int, Interval]
    variables: Variables
    source: Source

    def build(self, groups: Groups, contradiction: Row | None) -> tuple[Property, ...]:
        """Return a property for each box with the output rows of its disjuncts."""
        rows = sum(len(disjunct) or 1 for disjuncts in groups.values() for disjunct in disjuncts)
        limits = self.source.limits
        limits.check("coefficients", rows * self.subject.outputs, "the unsafe set")
        limits.check("coefficients", len(groups) * math.prod(self.subject.shape), "the list of boxes")
        base = torch.full((math.prod(self.subject.shape), 4), math.nan, dtype=torch.float64)
        self._fill(base, self.common)
        name = self.source.path.name.removesuffix(".gz").removesuffix(".vnnlib")
        properties = []
        for number, (changed, disjuncts) in enumerate(groups.items(), start=1):
            found = [polyhedron(disjunct, self.subject.outputs, self.source) for disjunct in disjuncts]
            unsafe = tuple(halfspaces for halfspaces in found if halfspaces is not None)
            label = name if len(groups) == 1 else f"{name} ({number} of {len(groups)})"
            note = "" if unsafe else "its constraints on the outputs contradict one another, so that it holds"
            properties.append(self._property(self._box(base, dict(changed)), unsafe, label, note))
        if properties:
            return tuple(properties)
        assert contradiction is not None, "a formula without disjuncts contradicts itself"
        line = self.source.line(contradiction.at)
        note = f"its constraints contradict one another (line {line}), so that it holds"
        origin = torch.zeros(self.subject.shape, dtype=torch.float64)
        return (self._property((origin, origin, None), (), name, note),)

    def _property(self, bounds: Bounds, unsafe: tuple[Halfspaces, ...], name: str, note: str) -> Property:
        lower, upper, inner = bounds
        notes = "; ".join(part for part in (note, self.variables.note) if part)
        return Property(lower, upper, unsafe, name, str(self.source.path), inner, notes, self.subject.joint)

    def _box(self, base: Tensor, changed: dict[int, Interval]) -> Bounds:
        """Return (lower, upper, inner), as `Property` has them. base: ends of the common intervals, NaN for none."""
        table = base.clone()
        self._fill(table, changed)
        unbounded = table.isnan().nonzero()
        if len(unbounded):
            place, column = unbounded[0].tolist()
            side = "lower" if column < 2 else "upper"
            raise PropertyFileError(
                f"{self.source.path}: input {self._name(place)} has no {side} bound; supported: boxes, every input "
                "between two numbers"
            )
        lower, least, greatest, upper = table.reshape(*self.subject.shape, 4).movedim(-1, 0).contiguous()
        exact = bool((lower == least).all() & (upper == greatest).all())
        return lower, upper, None if exact else (least, greatest)

    def _fill(self, table: Tensor, intervals: dict[int, Interval]) -> None:
        """Write the ends of intervals into their rows (lower, least, greatest, upper) of a table."""
        ends = []
        for place, interval in intervals.items():
            try:
                ends.append(_ends(interval))
            except OverflowError:
                message = f"{self.source.path}: input {self._name(place)} has a bound beyond the largest float64"
                raise PropertyFileError(message) from None
        if ends:
            table[list(intervals)] = torch.tensor(ends, dtype=torch.float64)

    def _name(self, place: int) -> str:
        return self.variables.name(Variable(True, self.subject.declared[place]))


def _ends(interval: Interval) -> tuple[float, float, float, float]:
    """Return (lower, least, greatest, upper): the ends rounded outward, and the outermost floats within.

    NaN where there is no end. An input fixed to one number is, for witnesses, the float64 nearest to it: no network
    runs at 8.2, and writers of 8.2 mean the float. The outer ends hold both.
    """
    lower, least = (math.nan, math.nan) if interval.lower is None else float_enclosure(interval.lower)
    greatest, upper = (math.nan, math.nan) if interval.upper is None else float_enclosure(interval.upper)
    if interval.lower is not None and interval.lower == interval.upper:
        least = greatest = float(interval.lower)
    if interval.lower_strict and least == lower:
        least = math.nextafter(least, math.inf)
    if interval.upper_strict and greatest == upper:
        greatest = math.nextafter(greatest, -math.inf)
    return lower, least, greatest, upper
