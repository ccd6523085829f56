"""Ops that are affine functions of their inputs: what follows from the map and its adjoint, once for all of them."""

import dataclasses
import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from encoders.arithmetic import Arithmetic
from encoders.box import Box, Shape
from encoders.ops.base import Op
from encoders.rounding import add_with_error, gamma, tiny, unit_roundoff
from encoders.views.change import Change
from encoders.views.coefficients import Coefficients, dot_error, underflow_slack
from encoders.views.envelope import Envelope, LinearEnvelope, reach_of
from encoders.views.relaxation import Relaxation, Size, linear_relaxation
from encoders.views.restriction import Restriction


class LinearOp(Op):
    """An affine function: its piece is itself, and its rows are equations if `matrix` and value at zero are exact."""

    linear = True

    def restrict(self, *x: Tensor, direction: Tensor | None = None, tolerance: float = 0.0) -> Restriction:
        """Return the op itself, which holds everywhere."""
        return Restriction(self)

    def relax(self, *boxes: Box, around: Box | None = None) -> Relaxation:
        """Return the equations L x - y = -b of the stored weights, exact in float64."""
        constant = self.evaluate(*(torch.zeros_like(box.lower[:1]) for box in boxes))
        matrix = self.matrix(*(box.shape for box in boxes))
        return linear_relaxation(matrix, constant.flatten().to(torch.float64).cpu().numpy())

    def exact(self, *boxes: Box, segments: int = 1) -> Relaxation:
        return self.relax(*boxes)

    def transposed(self, coefficients: Tensor, *shapes: Shape) -> tuple[Tensor, ...]:
        """Return the derivative of c . op(x), which no constant of the op rounds."""
        with torch.enable_grad():
            zeros = [coefficients.new_zeros(len(coefficients), *shape).requires_grad_() for shape in shapes]
            return torch.autograd.grad(self.evaluate(*zeros), zeros, coefficients)


class SignedSum(LinearOp):
    """An op whose outputs are sums of inputs, each with its sign, and a constant: no coefficient is rounded."""

    @abstractmethod
    def adjoint(self, coefficients: Coefficients, shapes: tuple[Shape, ...]) -> tuple[Coefficients, ...]:
        """Return each input's coefficients; shapes: of the inputs. Exact."""

    def transposed(self, coefficients: Tensor, *shapes: Shape) -> tuple[Tensor, ...]:
        found = self.adjoint(Coefficients(coefficients.unsqueeze(0)), shapes)
        return tuple(part.full(shape).squeeze(0) for part, shape in zip(found, shapes, strict=True))

    def bias(self, box: Box) -> Tensor | None:
        """Return the constant, of the shape of the box's ends."""
        return None

    def change(self, other: Op) -> Change[Op] | None:
        """Return the op itself, of d, where it has no constants."""
        return Change(self) if self.is_same(other) and (self.moves or not self.parameters()) else None

    def envelope(self, *boxes: Box, slope: Tensor | None = None) -> Envelope:
        box, shapes = boxes[0], tuple(box.shape for box in boxes)
        bias = self.bias(box)
        slack = torch.zeros(box.batch, 1, dtype=box.dtype, device=box.lower.device)
        if bias is not None:
            slack = slack + underflow_slack(box.shape, box.dtype)
        error = None if bias is None else dot_error(bias)
        return LinearEnvelope(lambda c: self.adjoint(c, shapes), bias, error, slack)


class WeightedSum(LinearOp):
    """An op y = L x + b with a linear map L. One interval rule serves them all.

    Centre and radius form with an outward error bound (Rump 1999; DESIGN of this project): with u the unit
    roundoff, n the fan-in, c a float near the centre and t >= (h - l)/2 + gamma_(n+8) |c|,

        y = fl(L c + b),   rho = (1 + 2(n+12)u) (|L| t + gamma_(n+8) |b| + (2n+16) tiny),

    every exact L x + b lies in [fl(y - rho), fl(y + rho)]: |L| (h-l)/2 covers the box; gamma_(n+8) (|L||c| + |b|)
    covers the n + 1 roundings of y in any order of summation, with or without fused multiply-add, the rounding
    of c, and those of the two ends; the leading factor covers the roundings made in computing rho.
    """

    bias: Tensor | None
    # Roundings beyond the n products and n additions of L c + b (an average's division, say).
    extra_roundings: ClassVar[int] = 0

    @abstractmethod
    def fan_in(self) -> int:
        """Return an upper bound of the number of products summed for one output."""

    @abstractmethod
    def fan_out(self) -> int:
        """Return an upper bound of the number of outputs that one input feeds."""

    @abstractmethod
    def apply(self, x: Tensor) -> Tensor:
        """Return L x, without the bias."""

    @abstractmethod
    def adjoint(self, coefficients: Coefficients, shape: Shape) -> Coefficients:
        """Return the coefficients c L of the input, of the given shape, in floating point."""

    def transposed(self, coefficients: Tensor, *shapes: Shape) -> tuple[Tensor, ...]:
        (shape,) = shapes
        return (self.adjoint(Coefficients(coefficients.unsqueeze(0)), shape).full(shape).squeeze(0),)

    @abstractmethod
    def error_radius(self, t: Tensor) -> Tensor:
        """Return an upper bound of rho above, in the float arithmetic at hand, for t of at least 2 tiny."""

    def inflation(self, dtype: torch.dtype) -> float:
        """Return the leading factor 1 + 2(n+12)u of the error radius."""
        return 1.0 + 2.0 * (self.fan_in() + self.extra_roundings + 12) * unit_roundoff(dtype)

    def relative_error(self, dtype: torch.dtype) -> float:
        """Return gamma_(n+8)."""
        return gamma(self.fan_in() + self.extra_roundings + 8, dtype)

    def absolute_error(self, dtype: torch.dtype) -> float:
        """Return the slack (2n+16) tiny against underflow."""
        return (2.0 * self.fan_in() + 16.0) * tiny(dtype)

    def inflated_bias(self, bias: Tensor | None, dtype: torch.dtype, device: torch.device) -> Tensor:
        """Return (gamma |b| + slack) times the leading factor: the part of rho that does not depend on the box."""
        slack = torch.tensor(self.absolute_error(dtype), dtype=dtype, device=device)
        size = slack if bias is None else bias.abs() * self.relative_error(dtype) + slack
        return size * self.inflation(dtype)

    def interval(self, *boxes: Box) -> Box:
        """Return the exact range of each output, widened by the error bound of the class docstring."""
        (box,) = boxes
        centre = (box.lower + box.upper) * 0.5
        t = (centre.abs() * self.relative_error(box.dtype) + 2.0 * tiny(box.dtype)).add(
            box.upper - box.lower, alpha=0.5
        )
        value = self.evaluate(centre)
        radius = self.error_radius(t)
        return ends_around(value, radius)

    def execution_error(self, boxes: Sequence[Box], errors: Sequence[Tensor], arithmetic: Arithmetic) -> Tensor:
        """Return |L| e + gamma (|L| (|x| + e) + |b|) for errors e of the inputs x, gamma of the n products and sums."""
        (box,), (error,) = boxes, errors
        reach, least = reach_of(box) + error, 2.0 * tiny(box.dtype)
        relative = arithmetic.relative(self.fan_in() + 1 + self.extra_roundings)
        size = self.error_radius(reach + least)
        rounded = self.error_radius(error + relative * reach + least)
        if self.bias is not None:
            bias = self.evaluate(torch.zeros_like(box.lower[:1])).abs()
            size, rounded = size + bias, rounded + relative * bias
        return arithmetic.bounded(rounded + arithmetic.absolute(self.fan_in()), size)

    def change(self, other: Op) -> Change[Op] | None:
        """Return L' d + (L' - L) x + (b' - b), the difference of weights as two floats that hold it exactly.

        None for ops without a weight, and where float64 does not hold the difference.
        """
        own, others = (op.parameters() for op in (self, other))
        if "weight" not in own or own.keys() != others.keys() or own.keys() - {"weight", "bias"}:
            return None
        if self.settings() != other.settings() or own["weight"].shape != others["weight"].shape:
            return None
        halves: dict[str, tuple[Tensor, Tensor]] = {}
        for name, value in own.items():
            halves[name] = add_with_error(others[name].to(torch.float64), -value.to(torch.float64))
            if not bool(torch.stack(halves[name]).isfinite().all()):
                return None
        parts = [{name: pair[k] for name, pair in halves.items()} for k in (0, 1)]
        changed = [part for part in parts if any(bool(value.any()) for value in part.values())]
        map_alone: Any = {"bias": None} if "bias" in others else {}
        return Change(
            dataclasses.replace(other, **map_alone), tuple(dataclasses.replace(other, **part) for part in changed)
        )

    def envelope(self, *boxes: Box, slope: Tensor | None = None) -> Envelope:
        """Return the op itself. An entry of c L errs by gamma_(fan-out + 8) |c| |L|, whatever the order of its sum."""
        (box,) = boxes
        shape, reach = box.shape, reach_of(box)
        outputs = self.fan_out() + self.extra_roundings
        error = self.error_radius(reach * gamma(outputs + 8, box.dtype) + 2.0 * tiny(box.dtype))
        total = reach.unsqueeze(-1).flatten(1).sum(dim=1, keepdim=True)
        slack = (4.0 * outputs + 16.0) * tiny(box.dtype) * (total + 1.0)
        bias = None
        if self.bias is not None:
            bias = self.evaluate(torch.zeros_like(box.lower[:1])).expand_as(error)
            error = error + dot_error(bias)
        return LinearEnvelope(lambda c: (self.adjoint(c, shape),), bias, error, slack)

    def program_size(self, view: str, outputs: int, segments: int) -> Size:
        return Size(outputs, outputs * (self.fan_in() + 1))


def ends_around(value: Tensor, radius: Tensor) -> Box:
    """Return [value - radius, value + radius]; where one of the two is not finite (overflow), everything."""
    lower, upper = value - radius, value + radius
    # Two reductions decide; finite tensors whose sum overflows only take the slower branch. The radius counts too:
    # a width that overflows, times a zero weight, is NaN.
    if not math.isfinite(float(value.detach().sum() + radius.detach().sum())):
        broken = ~(value.isfinite() & radius.isfinite())
        lower = torch.where(broken, torch.full_like(lower, -torch.inf), lower)
        upper = torch.where(broken, torch.full_like(upper, torch.inf), upper)
    return Box.unchecked(lower, upper)
