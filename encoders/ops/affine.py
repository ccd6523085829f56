"""The fully connected layer y = W x + b on the last axis."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy
import torch
from torch import Tensor
from torch.nn import functional

from encoders.box import Box, Shape
from encoders.ops.linear import WeightedSum
from encoders.rationals import Afford, Rationals, product
from encoders.rounding import add_down, add_up
from encoders.views.coefficients import Coefficients
from encoders.views.comparison import Comparison


@dataclass(frozen=True, eq=False)
class Affine(WeightedSum):
    """y = W x + b on the last axis: `(batch, ..., inputs)` to `(batch, ..., outputs)`.

    weight: `(outputs, inputs)`; bias: `(outputs,)` or None.
    """

    kind = "affine"
    stores_matrix = True
    # 1: the entries of W may be differences of stored weights, each rounded once (`class_differences`).
    extra_roundings = 1

    weight: Tensor
    bias: Tensor | None = None

    def __post_init__(self) -> None:
        if self.weight.dim() != 2:
            raise ValueError(f"affine weight must be a matrix, got shape {tuple(self.weight.shape)}")
        if self.bias is not None and tuple(self.bias.shape) != (self.weight.shape[0],):
            raise ValueError(f"affine bias {tuple(self.bias.shape)} does not fit {self.weight.shape[0]} outputs")

    def output_shape(self, *shapes: Shape) -> Shape:
        (shape,) = shapes
        if not shape or shape[-1] != self.weight.shape[1]:
            raise ValueError(f"affine takes {self.weight.shape[1]} values on the last axis, got shape {shape}")
        return (*shape[:-1], int(self.weight.shape[0]))

    def fan_in(self) -> int:
        return int(self.weight.shape[1])

    def evaluate(self, *x: Tensor) -> Tensor:
        return functional.linear(x[0], self.weight, self.bias)

    def fan_out(self) -> int:
        return int(self.weight.shape[0])

    def apply(self, x: Tensor) -> Tensor:
        return functional.linear(x, self.weight)

    def adjoint(self, coefficients: Coefficients, shape: Shape) -> Coefficients:
        if coefficients.units is not None:
            return Coefficients(coefficients.values @ self.weight.index_select(0, coefficients.units))
        return Coefficients(coefficients.full((*shape[:-1], int(self.weight.shape[0]))) @ self.weight)

    @cached_property
    def _absolute_weight(self) -> Tensor:
        return self.weight.abs()

    @cached_property
    def _error_bias(self) -> Tensor:
        error = self.inflated_bias(self.bias, self.weight.dtype, self.weight.device)
        return error.expand(self.weight.shape[0]).contiguous()

    def error_radius(self, t: Tensor) -> Tensor:
        # Inflating t rather than the weights: a subnormal weight would not grow.
        return functional.linear(t * self.inflation(t.dtype), self._absolute_weight, self._error_bias)

    def matrix(self, *shapes: Shape) -> scipy.sparse.csr_array:
        weight = _sparse(self.weight.to(torch.float64).cpu().numpy())
        copies = math.prod(shapes[0][:-1])
        return (
            weight if copies == 1 else scipy.sparse.csr_array(scipy.sparse.kron(scipy.sparse.eye_array(copies), weight))
        )

    def class_differences(self, reference: int) -> Affine:
        """Return the map to y_reference - y_k for every output k (row `reference` is zero).

        Rounding a difference of weights once is covered by the error bound (`extra_roundings`) of intervals in the
        same dtype: cast to float64 first, as differences rounded in float32 prove nothing after a cast.
        """
        weight = self.weight[reference] - self.weight
        bias = None if self.bias is None else self.bias[reference] - self.bias
        return Affine(weight, bias)

    def raised(self, added: Tensor) -> Affine:
        bias = torch.zeros_like(added) if self.bias is None else self.bias.to(torch.float64).cpu()
        return dataclasses.replace(self, bias=torch.where(added > 0, add_up(bias, added), add_down(bias, added)))

    def compare(self, *boxes: Box, classes: Tensor) -> Comparison:
        """Return what the boxes of y_c - y_k prove, never looser than those of y: one difference matrix a class."""
        (box,) = boxes
        wins = torch.empty(box.batch, self.weight.shape[0], dtype=torch.bool, device=classes.device)
        loses = torch.empty_like(wins)
        for reference in classes.unique().tolist():
            rows = classes == reference
            margins = self.class_differences(reference).interval(box[rows])
            wins[rows], loses[rows] = margins.lower > 0, margins.upper <= 0
        return Comparison.of(wins, loses, classes)

    def unit_rows(self, units: Tensor) -> tuple[Tensor, Tensor | None]:
        return self.weight[units], None if self.bias is None else self.bias[units]

    def rational(self, *x: Rationals, afford: Afford) -> Rationals:
        result = product(x[0], self.weight, afford)
        return result if self.bias is None else result + Rationals.of(self.bias)


def _sparse(weight: np.ndarray) -> scipy.sparse.csr_array:
    """Return the entries that are not zero, row by row as they lie in memory: scipy's own way sorts them first."""
    present = weight != 0
    starts = np.concatenate([[0], np.cumsum(present.sum(axis=1))])
    columns = np.broadcast_to(np.arange(weight.shape[1], dtype=np.int32), weight.shape)
    return scipy.sparse.csr_array((weight[present], columns[present], starts), shape=weight.shape)
