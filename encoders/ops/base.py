"""The narrow waist: what every method may ask of an op.

An op is a read-only function of one or more tensors with static shapes. Its *views* answer the questions of the
methods (`evaluate` and `interval` here; `envelope`, `relax`, `restrict`, `exact` are reserved names that raise
`UnsupportedView` until an op provides them). The law that every view obeys: it contains `evaluate(x)`, taken in
real arithmetic on the stored weights, for every x in the box.
"""

from __future__ import annotations

import dataclasses
import math
from abc import ABC, abstractmethod
from typing import Any, ClassVar, Self

import torch
from scipy.sparse import csr_array
from torch import Tensor

from encoders.box import Box
from encoders.rounding import gamma, tiny, unit_roundoff
from encoders.views.coefficients import Coefficients, dot_error
from encoders.views.envelope import Envelope, LinearEnvelope, reach_of
from encoders.views.relaxation import Relaxation, linear_relaxation
from encoders.views.restriction import Restriction

Shape = tuple[int, ...]

# The views in the order of the README's table; each is a method of `Op`.
VIEWS = ("evaluate", "interval", "envelope", "relax", "restrict", "exact")


class UnsupportedView(TypeError):
    """An op was asked for a view that it does not have."""

    def __init__(self, op: Op, view: str) -> None:
        supported = ", ".join(op.views())
        super().__init__(f"op {op.kind!r} has no view {view!r}; it has: {supported}")


@dataclasses.dataclass(frozen=True, eq=False)
class Op(ABC):
    """A read-only function of one or more tensors of shape `(batch, *shape)`.

    Subclasses are frozen dataclasses. Their tensor fields are weights, kept in the dtype of the file; `cast`
    makes a copy for another dtype or device.
    """

    kind: ClassVar[str]
    arity: ClassVar[int] = 1
    # Whether the op is an affine function of its inputs: its envelope is then exact.
    linear: ClassVar[bool] = False
    # Whether each output depends on one input unit only (of each node), so that intervals through it stay exact.
    one_to_one: ClassVar[bool] = False

    @property
    def hinge_slope(self) -> float | None:
        """The slope left of zero of a function of single units that is x on the right; None: the op is none."""
        return None

    @abstractmethod
    def output_shape(self, *shapes: Shape) -> Shape:
        """Return the shape of the output without the batch; raise ValueError if the inputs do not fit."""

    @abstractmethod
    def evaluate(self, *x: Tensor) -> Tensor:
        """Return the value at x, differentiable, in the dtype and on the device of the weights."""

    @abstractmethod
    def interval(self, *boxes: Box) -> Box:
        """Return a box around the range over the boxes. Outer, rounded outward in float64.

        In float32 the same formulas run, but reduced-precision products (TF32, Winograd) may break the law:
        float32 boxes guide search, they prove nothing.
        """

    def envelope(self, *boxes: Box, slope: Tensor | None = None) -> Envelope:
        """Return linear functions below and above the op on the boxes. Outer, rounded outward in float64.

        slope: of the lower function where the op lets one choose it (`slope_range`), `(batch, *shape)` or
        `(batch, rows, *shape)`; None is the op's own choice. Other ops ignore it.
        """
        raise UnsupportedView(self, "envelope")

    def slope_range(self, box: Box) -> tuple[Tensor, Tensor, Tensor] | None:
        """Return (least, greatest, chosen) lower slopes `(batch, *shape)`, any of which is sound; None: no choice."""
        return None

    def open_units(self, box: Box) -> Tensor:
        """Return a mask `(batch, *shape)`: for which inputs a tighter box would make the envelope tighter."""
        return torch.zeros_like(box.lower, dtype=torch.bool)

    def relax(self, *boxes: Box, around: Box | None = None) -> Relaxation:
        """Return convex rows between inputs and output that hold on one box each (batch 1). Outer, rounded outward.

        around: a box that holds the (one) input's and whose open units decide which rows exist, so that the rows of
        nested boxes have one sparsity pattern; None: the box itself.
        """
        raise UnsupportedView(self, "relax")

    def restrict(self, *x: Tensor, direction: Tensor | None = None, tolerance: float = 0.0) -> Restriction:
        """Return the linear piece that is active at x `(batch, *shape)`, and the conditions that keep it.

        direction: in which x moves where it ties; tolerance: how near to a border counts as a tie.
        """
        raise UnsupportedView(self, "restrict")

    def matrix(self, *shapes: Shape) -> csr_array:
        """Return, for linear ops, the matrix from the flattened inputs side by side to the flattened output.

        float64; the constant part is the value at zero.
        """
        raise TypeError(f"op {self.kind!r} is not linear and has no matrix")

    def exact(self, *boxes: Box, segments: int = 1) -> Relaxation:
        """Return rows with binaries whose solutions on one box each (batch 1) are exactly y = op(x).

        An op that rows cannot hold exactly returns outer rows with a declared gap (`Relaxation.gap`). segments: into
        how many parts such an op may cut the range of one unit, 1 or more; other ops ignore it.
        """
        raise UnsupportedView(self, "exact")

    @classmethod
    def views(cls) -> tuple[str, ...]:
        """Return the names of the views that this op has."""
        return tuple(v for v in VIEWS if v in ("evaluate", "interval") or getattr(cls, v) is not getattr(Op, v))

    def parameters(self) -> dict[str, Tensor]:
        """Return the tensor fields by name."""
        fields = ((f.name, getattr(self, f.name)) for f in dataclasses.fields(self))
        return {name: value for name, value in fields if isinstance(value, Tensor)}

    def settings(self) -> dict[str, Any]:
        """Return the other fields by name: plain JSON values."""
        fields = ((f.name, getattr(self, f.name)) for f in dataclasses.fields(self))
        return {name: value for name, value in fields if value is not None and not isinstance(value, Tensor)}

    def cast(self, dtype: torch.dtype, device: torch.device) -> Self:
        """Return the same op with floating-point weights in `dtype` on `device`."""
        changed = {
            name: value.to(device=device, dtype=dtype if value.is_floating_point() else None)
            for name, value in self.parameters().items()
        }
        return dataclasses.replace(self, **changed) if changed else self


class ElementwiseOp(Op):
    """A function of single units of one node."""

    def output_shape(self, *shapes: Shape) -> Shape:
        return shapes[0]


class LinearOp(Op):
    """An op y = L x + b with a linear map L. One interval rule serves them all.

    Centre and radius form with an outward error bound (Rump 1999; DESIGN of this project): with u the unit
    roundoff, n the fan-in, c a float near the centre and t >= (h - l)/2 + gamma_(n+8) |c|,

        y = fl(L c + b),   rho = (1 + 2(n+12)u) (|L| t + gamma_(n+8) |b| + (2n+16) tiny),

    every exact L x + b lies in [fl(y - rho), fl(y + rho)]: |L| (h-l)/2 covers the box; gamma_(n+8) (|L||c| + |b|)
    covers the n + 1 roundings of y in any order of summation, with or without fused multiply-add, the rounding
    of c, and those of the two ends; the leading factor covers the roundings made in computing rho.
    """

    bias: Tensor | None
    linear = True
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

    @abstractmethod
    def error_radius(self, t: Tensor) -> Tensor:
        """Return an upper bound of rho above, in the float arithmetic at hand, for t of at least 2 tiny."""

    def restrict(self, *x: Tensor, direction: Tensor | None = None, tolerance: float = 0.0) -> Restriction:
        """Return the op itself, which holds everywhere."""
        return Restriction(self)

    def relax(self, *boxes: Box, around: Box | None = None) -> Relaxation:
        """Return the equations L x - y = -b of the stored weights, exact in float64."""
        return relaxed_by_matrix(self, *boxes)

    def exact(self, *boxes: Box, segments: int = 1) -> Relaxation:
        return self.relax(*boxes)

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


def relaxed_by_matrix(op: Op, *boxes: Box) -> Relaxation:
    """Return the equations of an op whose matrix and value at zero are exact in float64."""
    shapes = tuple(box.shape for box in boxes)
    constant = op.evaluate(*(torch.zeros_like(box.lower[:1]) for box in boxes))
    return linear_relaxation(op.matrix(*shapes), constant.flatten().to(torch.float64).cpu().numpy())


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
