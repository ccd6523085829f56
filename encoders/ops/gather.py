"""Any rearrangement of one node's values, with constants in between: flips, tiles, pads, masks, permuted pixels.

y_i = x[index_i], or constant_i where index_i is -1. Nothing is rounded but the sums that the backward pass makes where
an input is read more than once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import scipy
import torch
from torch import Tensor

from encoders.arithmetic import Arithmetic
from encoders.box import Box, Shape
from encoders.ops.linear import LinearOp
from encoders.rationals import Afford, Rationals
from encoders.rounding import gamma
from encoders.views.coefficients import Coefficients, dot_error, underflow_slack
from encoders.views.envelope import Envelope, LinearEnvelope, reach_of
from encoders.views.restriction import selection_matrix


@dataclass(frozen=True, eq=False)
class Gather(LinearOp):
    """y = x[index] on the flattened input, in the shape of the index; -1 stands for a constant.

    index: int64, places from -1 on. constant: None where no index is -1; else one value, or one for each output.
    """

    kind = "gather"
    one_to_one = True
    whole_numbers = ("index",)

    index: Tensor
    constant: Tensor | None = None

    def __post_init__(self) -> None:
        if self.index.dtype != torch.int64 or not self.index.numel() or int(self.index.min()) < -1:
            raise ValueError("gather: the index must be whole numbers from -1 on (int64), at least one")
        if self.constant is None and int(self.index.min()) < 0:
            raise ValueError("gather: the index -1 stands for a constant, but there is none")
        if self.constant is not None and self.constant.dim() and self.constant.shape != self.index.shape:
            raise ValueError(
                f"gather: a constant of shape {tuple(self.constant.shape)} does not fit {tuple(self.index.shape)}"
            )

    @property
    def moves(self) -> bool:
        """Whether no output is a constant."""
        return self.constant is None

    @cached_property
    def _greatest(self) -> int:
        return int(self.index.max())

    @cached_property
    def _present(self) -> Tensor:
        return self.index >= 0

    @cached_property
    def _places(self) -> Tensor:
        """The index, flat, with some place of the input where a constant stands."""
        return self.index.flatten().clamp(min=0)

    @cached_property
    def _fan_out(self) -> int:
        """How many outputs read one input at most."""
        read = self.index[self._present]
        return int(read.unique(return_counts=True)[1].max()) if read.numel() else 0

    def output_shape(self, *shapes: Shape) -> Shape:
        (shape,) = shapes
        if self._greatest >= math.prod(shape):
            raise ValueError(f"gather: place {self._greatest} does not exist among the values of {shape}")
        return tuple(self.index.shape)

    def evaluate(self, *x: Tensor) -> Tensor:
        (value,) = x
        return self._taken(value) if self.constant is None else self._taken(value).where(self._present, self.constant)

    def _taken(self, x: Tensor) -> Tensor:
        """Return the values at the places; some value where a constant stands."""
        return x.unsqueeze(-1).flatten(1).index_select(1, self._places).reshape(x.shape[0], *self.index.shape)

    def interval(self, *boxes: Box) -> Box:
        (box,) = boxes
        return Box.unchecked(self.evaluate(box.lower), self.evaluate(box.upper))

    def execution_error(self, boxes: Sequence[Box], errors: Sequence[Tensor], arithmetic: Arithmetic) -> Tensor:
        """Return the errors as they are moved; none of the constants."""
        return self._taken(errors[0]).where(self._present, 0.0)

    def adjoint(self, coefficients: Coefficients, shape: Shape) -> Coefficients:
        """Return what each input collects; the sums are rounded where several outputs read one input."""
        values = coefficients.full(tuple(self.index.shape))
        values = values.reshape(*values.shape[:2], -1)
        if self.constant is not None:
            values = values.where(self._present.flatten(), 0.0)
        collected = torch.zeros(*values.shape[:2], math.prod(shape), dtype=values.dtype, device=values.device)
        return Coefficients(collected.index_add(2, self._places, values).reshape(*values.shape[:2], *shape))

    def envelope(self, *boxes: Box, slope: Tensor | None = None) -> Envelope:
        """Return the op itself. An entry of c L errs by gamma_(fan-out + 8) |c| |L|, whatever the order of its sum."""
        (box,) = boxes
        shape, bias, error = box.shape, None, None
        slack = torch.zeros(box.batch, 1, dtype=box.dtype, device=box.lower.device)
        if self._fan_out > 1:
            error = self._taken(reach_of(box)).where(self._present, 0.0) * gamma(self._fan_out + 8, box.dtype)
        if self.constant is not None:
            bias = self.evaluate(torch.zeros_like(box.lower))
            error = dot_error(bias) if error is None else error + dot_error(bias)
        if error is not None:
            slack = slack + underflow_slack(tuple(self.index.shape), box.dtype)
        return LinearEnvelope(lambda c: (self.adjoint(c, shape),), bias, error, slack)

    def matrix(self, *shapes: Shape) -> scipy.sparse.csr_array:
        """Return the rows of the identity that the op selects, and rows of zeros for its constants."""
        present = self._present.flatten().double().cpu().numpy()
        return selection_matrix(self._places.cpu().numpy(), math.prod(shapes[0]), present)

    def rational(self, *x: Rationals, afford: Afford) -> Rationals:
        (value,) = x
        index, present = self.index.cpu().numpy(), self._present.cpu().numpy()
        taken = value.map(lambda n: n.reshape(n.shape[0], -1)[:, index] * present)
        if self.constant is None:
            return taken
        return taken + Rationals.of(torch.where(self._present, 0.0, self.constant.cpu().double())[None])
