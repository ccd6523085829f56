"""Ops that only move values: reshape, transpose, concatenate, slice. Exact in every view."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import scipy
import torch
from torch import Tensor

from encoders.arithmetic import Arithmetic
from encoders.box import Box, Shape
from encoders.ops.linear import SignedSum
from encoders.rationals import Afford, Rationals, join
from encoders.views.coefficients import Coefficients
from encoders.views.restriction import selection_matrix


class _Rearrangement(SignedSum):
    """An op whose outputs are copies of inputs: the interval view applies it to both ends."""

    one_to_one = True
    stores_matrix = True

    @property
    def moves(self) -> bool:
        return True

    def interval(self, *boxes: Box) -> Box:
        return Box.unchecked(self.evaluate(*(box.lower for box in boxes)), self.evaluate(*(box.upper for box in boxes)))

    def execution_error(self, boxes: Sequence[Box], errors: Sequence[Tensor], arithmetic: Arithmetic) -> Tensor:
        return self.evaluate(*errors)

    def matrix(self, *shapes: Shape) -> scipy.sparse.csr_array:
        """Return the rows of the identity that the op selects."""
        sizes = [math.prod(shape) for shape in shapes]
        starts = [sum(sizes[:i]) for i in range(len(sizes))]
        places = [torch.arange(a, a + n).reshape(1, *s) for a, n, s in zip(starts, sizes, shapes, strict=True)]
        return selection_matrix(self.evaluate(*places).flatten().numpy(), sum(sizes))

    def rational(self, *x: Rationals, afford: Afford) -> Rationals:
        """Return the values moved; which goes where is read off the places' own numbers."""
        (value,) = x
        places = self.evaluate(torch.arange(math.prod(value.shape[1:])).reshape(1, *value.shape[1:]))[0].numpy()
        return value.map(lambda n: n.reshape(n.shape[0], -1)[:, places])


@dataclass(frozen=True, eq=False)
class Reshape(_Rearrangement):
    """The same values in C order under another shape (without the batch); flatten is reshape to one axis."""

    kind = "reshape"
    keeps_values = True
    keeps_order = True

    shape: Shape

    def output_shape(self, *shapes: Shape) -> Shape:
        if math.prod(shapes[0]) != math.prod(self.shape) or min(self.shape, default=1) < 1:
            raise ValueError(f"reshape: {shapes[0]} does not have the element count of {self.shape}")
        return self.shape

    def evaluate(self, *x: Tensor) -> Tensor:
        return x[0].reshape(x[0].shape[0], *self.shape)

    def adjoint(self, coefficients: Coefficients, shapes: tuple[Shape, ...]) -> tuple[Coefficients, ...]:
        values = coefficients.full(self.shape)
        return (Coefficients(values.reshape(*values.shape[:2], *shapes[0])),)


@dataclass(frozen=True, eq=False)
class Transpose(_Rearrangement):
    """Permuted axes: output axis i is input axis `permutation[i]`, the batch not counted."""

    kind = "transpose"

    permutation: tuple[int, ...]

    def output_shape(self, *shapes: Shape) -> Shape:
        if sorted(self.permutation) != list(range(len(shapes[0]))):
            raise ValueError(f"transpose: {self.permutation} does not permute the axes of {shapes[0]}")
        return tuple(shapes[0][axis] for axis in self.permutation)

    def evaluate(self, *x: Tensor) -> Tensor:
        return x[0].permute(0, *(axis + 1 for axis in self.permutation))

    def adjoint(self, coefficients: Coefficients, shapes: tuple[Shape, ...]) -> tuple[Coefficients, ...]:
        values = coefficients.full(self.output_shape(*shapes))
        back = [self.permutation.index(axis) for axis in range(len(self.permutation))]
        return (Coefficients(values.permute(0, 1, *(axis + 2 for axis in back))),)


@dataclass(frozen=True, eq=False)
class Concat(_Rearrangement):
    """Two nodes joined along an axis, the batch not counted. Readers chain it for more than two."""

    kind = "concat"
    arity = 2

    axis: int

    def output_shape(self, *shapes: Shape) -> Shape:
        first, second = shapes
        rest = [tuple(n for i, n in enumerate(shape) if i != self.axis) for shape in shapes]
        if not 0 <= self.axis < len(first) or len(first) != len(second) or rest[0] != rest[1]:
            raise ValueError(f"concat: {first} and {second} do not join along axis {self.axis}")
        return tuple(n + second[i] if i == self.axis else n for i, n in enumerate(first))

    def evaluate(self, *x: Tensor) -> Tensor:
        return torch.cat(x, dim=self.axis + 1)

    def rational(self, *x: Rationals, afford: Afford) -> Rationals:
        return join(x[0], x[1], self.axis + 1)

    def adjoint(self, coefficients: Coefficients, shapes: tuple[Shape, ...]) -> tuple[Coefficients, ...]:
        values = coefficients.full(self.output_shape(*shapes))
        first = shapes[0][self.axis]
        rest = shapes[1][self.axis]
        axis = self.axis + 2
        return Coefficients(values.narrow(axis, 0, first)), Coefficients(values.narrow(axis, first, rest))


@dataclass(frozen=True, eq=False)
class Slice(_Rearrangement):
    """Every `step`-th value from `start` to before `stop` along an axis, the batch not counted; step >= 1."""

    kind = "slice"

    axis: int
    start: int
    stop: int
    step: int = 1

    def output_shape(self, *shapes: Shape) -> Shape:
        (shape,) = shapes
        if not 0 <= self.axis < len(shape) or self.step < 1 or not 0 <= self.start < self.stop <= shape[self.axis]:
            raise ValueError(f"slice {self.start}:{self.stop}:{self.step} along axis {self.axis} does not fit {shape}")
        length = len(range(self.start, self.stop, self.step))
        return tuple(length if i == self.axis else n for i, n in enumerate(shape))

    def evaluate(self, *x: Tensor) -> Tensor:
        index: list[slice] = [slice(None)] * (self.axis + 1)
        return x[0][(*index, slice(self.start, self.stop, self.step))]

    def adjoint(self, coefficients: Coefficients, shapes: tuple[Shape, ...]) -> tuple[Coefficients, ...]:
        values = coefficients.full(self.output_shape(*shapes))
        full = torch.zeros(*values.shape[:2], *shapes[0], dtype=values.dtype, device=values.device)
        places = torch.arange(self.start, self.stop, self.step, device=values.device)
        return (Coefficients(full.index_copy(self.axis + 2, places, values)),)
