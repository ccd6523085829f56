"""A question about a network: does an input of this box have an output in this set?

The unsafe set is a disjunction of polyhedra C y <= d over the outputs, flattened in C order. A counterexample is an x
in the box whose outputs f(x) lie in any of them; without a counterexample the property holds. Unsafe sets are closed,
so that a tie, an output on the edge of a polyhedron, is a counterexample, unless its row is marked strict.

What is stored for proofs holds all that was written: bounds of the box and offsets of rows are rounded outward, strict
comparisons are closed. Membership, which is what makes a witness, is decided on what was written, without tolerance.
Inputs and outputs are those of one network, or of several copies of networks on one input (`encoders.joint`): then
outputs show inputs too, so that rows may constrain them together. The box may be cut by a ball of the 2- or 1-norm.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property

import torch
from torch import Tensor

from encoders.box import Shape
from encoders.joint import Joint
from encoders.norm_ball import NormBall

Number = float | Fraction


@dataclass(frozen=True, eq=False)
class Halfspaces:
    """The polyhedron {y : C y <= d}: a conjunction of rows.

    coefficients: C, `(rows, outputs)`, float64, finite, at least one row.
    offsets: d, `(rows,)`, float64, finite; at least what was written, so that a proof covers it.
    strict: for each row whether it was written as C y < d; empty where none was. For proofs all rows are closed.
    written: d as it was written, where float64 cannot hold it; None if `offsets` are exact.

    Raises ValueError on other shapes and dtypes, on NaN or infinity, and on written offsets above `offsets`.
    """

    coefficients: Tensor
    offsets: Tensor
    strict: tuple[bool, ...] = ()
    written: tuple[Fraction, ...] | None = None

    def __post_init__(self) -> None:
        _check_values(self.coefficients, "the coefficients of a polyhedron")
        _check_values(self.offsets, "the offsets of a polyhedron")
        if self.coefficients.dim() != 2 or 0 in self.coefficients.shape:
            shape = tuple(self.coefficients.shape)
            raise ValueError(f"coefficients of shape {shape}; supported: (rows, outputs), at least one of each")
        rows = (self.coefficients.shape[0],)
        if self.offsets.shape != rows:
            raise ValueError(f"offsets of shape {tuple(self.offsets.shape)} for {rows[0]} rows")
        if len(self.strict) not in (0, rows[0]):
            raise ValueError(f"{len(self.strict)} marks of strictness for {rows[0]} rows")
        if self.written is not None and len(self.written) != rows[0]:
            raise ValueError(f"{len(self.written)} written offsets for {rows[0]} rows")
        stored = [Fraction(offset) for offset in self.offsets.tolist()]
        if any(exact > outer for exact, outer in zip(self.written or stored, stored, strict=True)):
            raise ValueError("a written offset lies above the stored one, so that a proof would not cover it")

    @property
    def outputs(self) -> int:
        """The number of outputs."""
        return int(self.coefficients.shape[1])

    def contains(self, y: Tensor | Sequence[Number]) -> bool:
        """Return whether outputs satisfy every row as it was written: in rational numbers, without tolerance.

        y: floats of any dtype and shape, flattened in C order, or fractions. NaN and infinity lie in no polyhedron.
        """
        point = _rational(y)
        if point is None:
            return False
        if len(point) != self.outputs:
            raise ValueError(f"{len(point)} outputs for a polyhedron over {self.outputs}")
        strict = self.strict or (False,) * len(self._rows)
        return all(
            total < offset or (total == offset and not open_edge)
            for (terms, offset), open_edge in zip(self._rows, strict, strict=True)
            for total in [sum((factor * point[j] for j, factor in terms), Fraction(0))]
        )

    def row(self, number: int) -> Halfspaces:
        """Return one of the rows alone."""
        return Halfspaces(
            self.coefficients[number : number + 1], self.offsets[number : number + 1], self.strict[number : number + 1],
            None if self.written is None else (self.written[number],),
        )  # fmt: skip

    @cached_property
    def _rows(self) -> list[tuple[list[tuple[int, Fraction]], Fraction]]:
        """The rows as (output, coefficient) where that is not zero, and the written offset."""
        written = self.written or [Fraction(offset) for offset in self.offsets.tolist()]
        terms: list[list[tuple[int, Fraction]]] = [[] for _ in written]
        for row, output in self.coefficients.nonzero().tolist():
            terms[row].append((output, Fraction(float(self.coefficients[row, output]))))
        return list(zip(terms, written, strict=True))


@dataclass(frozen=True, eq=False)
class Property:
    """No input of the box [lower, upper], or of the part of it in `ball`, has outputs in any polyhedron of `unsafe`.

    lower, upper: bounds of each coordinate, in the shape of the network's input without its batch, float64, finite,
        lower <= upper, in the units of its raw input; they hold the box that was written.
    unsafe: the polyhedra, all over the same outputs; without any the property holds, whatever the network.
    name: what to call it in tables.
    source: the file, or empty.
    inner: the least and the greatest float64 that each coordinate may have in the box as it was written, strictly
        inside where that was strict; None if these are `lower` and `upper`. A coordinate may have none.
    note: what a reader should know, such as why `unsafe` is empty.
    ball: what the box is cut by; its centre lies in the box. None: nothing.
    joint: the copies of networks that the box and the outputs belong to; None for one network alone.

    Raises ValueError on other shapes and dtypes, bounds that are not finite or in the wrong order (an unbounded or an
    empty box), inner bounds that leave the box, or polyhedra over different numbers of outputs.
    """

    lower: Tensor
    upper: Tensor
    unsafe: tuple[Halfspaces, ...]
    name: str = ""
    source: str = ""
    inner: tuple[Tensor, Tensor] | None = None
    note: str = ""
    joint: Joint | None = None
    ball: NormBall | None = None

    def __post_init__(self) -> None:
        _check_values(self.lower, "the lower bounds of the box")
        _check_values(self.upper, "the upper bounds of the box")
        if self.lower.shape != self.upper.shape or not self.lower.numel():
            shapes = f"{tuple(self.lower.shape)} and {tuple(self.upper.shape)}"
            raise ValueError(f"bounds of shapes {shapes}; supported: one shape, at least one coordinate")
        if not bool((self.lower <= self.upper).all()):
            first = int((self.lower > self.upper).flatten().nonzero()[0])
            least, greatest = float(self.lower.flatten()[first]), float(self.upper.flatten()[first])
            raise ValueError(f"an empty box: input {first} lies between {least!r} and {greatest!r}")
        counts = sorted({halfspaces.outputs for halfspaces in self.unsafe})
        if len(counts) > 1:
            raise ValueError(f"polyhedra over {counts[0]} and over {counts[-1]} outputs in one property")
        if self.joint is not None and (self.lower.numel(), self.outputs or self.joint.outputs) != (
            self.joint.inputs, self.joint.outputs,
        ):  # fmt: skip
            raise ValueError(
                f"{self.lower.numel()} inputs and {self.outputs} outputs for copies of networks with "
                f"{self.joint.inputs} and {self.joint.outputs}"
            )
        if self.ball is not None:
            centre = self.ball.centre
            if centre.shape != self.lower.shape or not bool(((self.lower <= centre) & (centre <= self.upper)).all()):
                raise ValueError("the centre of the ball has another shape than the box, or lies outside it")
        if self.inner is not None:
            least_inner, greatest_inner = self.inner
            if least_inner.shape != self.lower.shape or greatest_inner.shape != self.lower.shape:
                raise ValueError("inner bounds of another shape than the box")
            if not bool(((least_inner >= self.lower) & (greatest_inner <= self.upper)).all()):
                raise ValueError("inner bounds outside the box")

    @property
    def outputs(self) -> int | None:
        """The number of outputs; None where nothing is unsafe."""
        return self.unsafe[0].outputs if self.unsafe else None

    @property
    def strict(self) -> bool:
        """Whether an unsafe set was written with a strict comparison, which a proof reads as a closed one."""
        return any(any(halfspaces.strict) for halfspaces in self.unsafe)

    @property
    def witness_box(self) -> tuple[Tensor, Tensor]:
        """The bounds that a witness keeps: floats lie in the box as it was written exactly if they lie in these.

        The first may be above the second, where no float64 lies in the written box.
        """
        return self.inner or (self.lower, self.upper)

    def contains(self, x: Tensor, y: Tensor | Sequence[Number]) -> bool:
        """Return whether input x with outputs y is a counterexample, as the property was written, without tolerance.

        x: of the box's number of coordinates, of any floating dtype. y: as in `Halfspaces.contains`.
        That y are the outputs at x is for the caller to see to.
        """
        lower, upper = self.witness_box
        point = x.detach().to(device=lower.device, dtype=torch.float64).reshape(lower.shape)
        inside = bool(((lower <= point) & (point <= upper)).all())
        inside = inside and (self.ball is None or self.ball.contains(point))
        return inside and any(halfspaces.contains(y) for halfspaces in self.unsafe)

    def shaped(self, input_shape: Shape, outputs: int) -> Property:
        """Return the property with its box in the shape of a network's input.

        Raises ValueError if the network has another number of inputs or outputs.
        """
        asked = self.outputs
        if self.lower.numel() != math.prod(input_shape) or asked not in (None, outputs):
            raise ValueError(
                f"{self.source or self.name or 'the property'} is about {self.lower.numel()} inputs and "
                f"{'any number of' if asked is None else asked} outputs, the network has {math.prod(input_shape)} and "
                f"{outputs}"
            )
        inner = self.inner and (self.inner[0].reshape(input_shape), self.inner[1].reshape(input_shape))
        ball = self.ball and self.ball.shaped(input_shape)
        lower, upper = (end.reshape(input_shape) for end in (self.lower, self.upper))
        return replace(self, lower=lower, upper=upper, inner=inner, ball=ball)

    @property
    def compares_outputs(self) -> bool:
        """Whether the unsafe sets say no more than which outputs are above which: every row is c (y_i - y_j) <= 0."""
        return all(
            halfspaces.written is None
            and not bool(halfspaces.offsets.any())
            and bool(((halfspaces.coefficients != 0).sum(dim=1) == 2).all())
            and bool((halfspaces.coefficients.amax(dim=1) == -halfspaces.coefficients.amin(dim=1)).all())
            for halfspaces in self.unsafe
        )

    @property
    def reference_class(self) -> int | None:
        """The class that has to win, if that is the question: unsafe where another output is as large, and only there.

        None for every other unsafe set, and for a single output.
        """
        if len(self.unsafe) != (self.outputs or 0) - 1:
            return None
        winners, rivals = set(), set()
        for halfspaces in self.unsafe:
            row = halfspaces.coefficients[0]
            exact = len(halfspaces.coefficients) == 1 and not any(halfspaces.strict) and halfspaces.written is None
            if not exact or float(halfspaces.offsets[0]) != 0 or int((row != 0).sum()) != 2:
                return None
            if float(row.max()) != -float(row.min()):
                return None
            winners.add(int(row.argmax()))
            rivals.add(int(row.argmin()))
        return winners.pop() if len(winners) == 1 and len(rivals) == len(self.unsafe) else None


def _check_values(values: Tensor, what: str) -> None:
    if values.dtype != torch.float64:
        raise ValueError(f"{what} are {values.dtype}; a property is stored in float64")
    if not bool(values.isfinite().all()):
        raise ValueError(f"{what} hold NaN or infinity; every input and every row needs finite numbers")


def _rational(y: Tensor | Sequence[Number]) -> list[Fraction] | None:
    """Return values as fractions, flat; None if one is not finite."""
    values = y.detach().flatten().tolist() if isinstance(y, Tensor) else y
    if not all(isinstance(value, Fraction) or math.isfinite(value) for value in values):
        return None
    return [Fraction(value) for value in values]
