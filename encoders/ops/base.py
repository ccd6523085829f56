"""The narrow waist: what every method may ask of an op.

An op is a read-only function of one or more tensors with static shapes. Its *views* answer the questions of the
methods (`evaluate` and `interval` here; `envelope`, `relax`, `restrict`, `exact` are reserved names that raise
`UnsupportedView` until an op provides them). The law that every view obeys: it contains `evaluate(x)`, taken in real
arithmetic on the stored weights, for every x in the box. What else methods ask has a default that is right for any op.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from typing import ClassVar

import numpy as np
import scipy
import torch
from numpy.typing import NDArray
from torch import Tensor

from encoders.box import Box, Shape
from encoders.ops.draws import Draws
from encoders.ops.stored_fields import StoredFields
from encoders.rationals import Afford, NotEvaluated, Rationals
from encoders.views.change import Change
from encoders.views.comparison import Comparison
from encoders.views.distances import DistanceLayer
from encoders.views.envelope import Envelope
from encoders.views.execution import Executed
from encoders.views.relaxation import Relaxation, Size
from encoders.views.restriction import Restriction

# The views in the order of the README's table; each is a method of `Op`.
VIEWS = ("evaluate", "interval", "envelope", "relax", "restrict", "exact")


class UnsupportedView(TypeError):
    """An op was asked for a view that it does not have."""

    def __init__(self, op: Op, view: str) -> None:
        supported = ", ".join(op.views())
        super().__init__(f"op {op.kind!r} has no view {view!r}; it has: {supported}")


@dataclasses.dataclass(frozen=True, eq=False)
class Op(StoredFields, Draws, Executed, ABC):
    """A read-only function of one or more tensors of shape `(batch, *shape)`.

    Subclasses are frozen dataclasses whose fields are `StoredFields`. They define `kind`, `output_shape`, `evaluate`
    and `interval`, and of the other views what they can: one that is missing raises UnsupportedView by name. Views
    other than `evaluate` and `restrict` are outer in real arithmetic, in float64.

    kind: the op's name in the table `OPS`, in files and in messages.
    arity: how many inputs it takes.
    """

    kind: ClassVar[str]
    arity: ClassVar[int] = 1
    # Whether the op is an affine function of its inputs: its envelope is then exact.
    linear: ClassVar[bool] = False
    # Whether each output depends on one input unit only (of each node), so that intervals through it stay exact.
    one_to_one: ClassVar[bool] = False
    # Whether the flattened output is the flattened input.
    keeps_values: ClassVar[bool] = False
    # Linear, and its matrix holds stored weights or copies of inputs, each rounded at most once; its value at zero too.
    stores_matrix: ClassVar[bool] = False
    # Whether one increasing function takes the flattened input to the flattened output.
    keeps_order: ClassVar[bool] = False
    # Whether each output is the place of the greatest input along an axis.
    chooses: ClassVar[bool] = False
    # Whether each output is the greatest of the inputs at some places (`windows`).
    maximum: ClassVar[bool] = False
    # Whether linear bounds of the outputs of a non-linear op can be tighter than its interval over tight inputs.
    gains_from_lines: ClassVar[bool] = False
    # Whether each row of coefficients may have slopes of its own: offsets do not depend on them.
    slopes_by_row: ClassVar[bool] = True
    # Whether the linear bounds and the convex rows say no more than the output box.
    bounded_by_box: ClassVar[bool] = False
    # Whether outputs are functions of max-of-weighted distances: the op has a `distance_layer`.
    measures_distances: ClassVar[bool] = False
    # Whether inputs as near as you like can have values far apart.
    jumps: ClassVar[bool] = False
    # Whether `evaluate_pseudo` passes other gradients back than `evaluate`, without any leak.
    has_pseudogradient: ClassVar[bool] = False
    # The tensor fields that hold whole numbers (int64).
    whole_numbers: ClassVar[tuple[str, ...]] = ()

    @property
    def moves(self) -> bool:
        """Whether outputs are copies of inputs."""
        return False

    @property
    def value_at_zero(self) -> float | None:
        """The exact value at zero of an increasing function of single units; None: not known, or the op is none."""
        return None

    @property
    def hinge_slope(self) -> float | None:
        """The slope left of zero of a function of single units that is x on the right; None: the op is none."""
        return None

    @abstractmethod
    def output_shape(self, *shapes: Shape) -> Shape:
        """Return the shape of the output without the batch; raise ValueError if the inputs do not fit."""

    def keeps_order_of(self, shape: Shape) -> bool:
        """Return whether all outputs are in the order of the inputs, flattened, for an input of a shape."""
        return self.keeps_order

    # ------------------------------------------------------------------------------------------------- the views

    @abstractmethod
    def evaluate(self, *x: Tensor) -> Tensor:
        """Return the value at x, differentiable, in the dtype and on the device of the weights."""

    @abstractmethod
    def interval(self, *boxes: Box) -> Box:
        """Return a box around the range over the boxes. Outer, rounded outward in float64.

        In float32 the same formulas run, but reduced-precision products (TF32, Winograd) may break the law:
        float32 boxes guide search, they prove nothing.
        """

    def undefined(self, *boxes: Box) -> Tensor | None:
        """Return a mask `(batch,)` of the boxes that hold a point without a value; None: every point has one.

        Runtimes give NaN or infinity there, which later ops may hide from a box. So nothing is proved about such boxes,
        whatever the views say of them.
        """
        return None

    def envelope(self, *boxes: Box, slope: Tensor | None = None) -> Envelope:
        """Return linear functions below and above the op on the boxes. Outer, rounded outward in float64.

        slope: of the lower function where the op lets one choose it (`slope_range`), `(batch, *shape)` or, if
        `slopes_by_row`, `(batch, rows, *shape)`; None is the op's own choice. Other ops ignore it.
        """
        raise UnsupportedView(self, "envelope")

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

    # ------------------------------------------------------------------------------- the values of a last op, compared

    def scores(self, *x: Tensor, pseudo: bool = False, leak: float = 0.0) -> Tensor:
        """Return values in the order of the outputs, fit for comparing them; pseudo, leak: as of `evaluate_pseudo`."""
        return self.evaluate_pseudo(*x, leak=leak) if pseudo else self.evaluate(*x)

    def compare(self, *boxes: Box, classes: Tensor) -> Comparison:
        """Return which outputs lie below and above those of the classes `(batch,)` on the whole boxes. Proofs."""
        return Comparison.of_values(self.interval(*boxes), classes)

    def evaluate_pseudo(self, *x: Tensor, leak: float = 0.0) -> Tensor:
        """Return the value with gradients behind it that lead attacks on where the true ones vanish.

        leak: what units pass back at least, as a share of what comes, whose derivative may be zero.
        """
        return self.evaluate(*x)

    # ----------------------------------------------------------------------------------------- in rational arithmetic

    @property
    def is_rational(self) -> bool:
        """Whether `rational` has a value, for some weights at least."""
        return type(self).rational is not Op.rational

    def rational(self, *x: Rationals, afford: Afford) -> Rationals:
        """Return the value in real arithmetic on the stored weights, from the definition; NotEvaluated with a reason.

        x: `(batch, *shape)`; afford: is told of multiplications before they are made, and raises where too many.
        """
        raise NotEvaluated("it leaves the rational numbers")

    def rational_scores(self, *x: Rationals, afford: Afford) -> tuple[Rationals, NDArray[np.int64]]:
        """Return (numbers in the order of the outputs, their kinds): those of one kind may be compared."""
        return self.rational(*x, afford=afford), np.zeros(1, dtype=np.int64)

    # ---------------------------------------------------------------------------------------- what methods need beside

    def slope_range(self, box: Box) -> tuple[Tensor, Tensor, Tensor] | None:
        """Return (least, greatest, chosen) lower slopes `(batch, *shape)`, any of which is sound; None: no choice.

        S-shapes have shares in place of slopes, `(batch, 2, *shape)`, which say where their lines touch.
        """
        return None

    def open_units(self, box: Box) -> Tensor:
        """Return a mask `(batch, *shape)`: for which inputs a tighter box would make the envelope tighter."""
        return torch.zeros_like(box.lower, dtype=torch.bool)

    def matrix(self, *shapes: Shape) -> scipy.sparse.csr_array:
        """Return, for linear ops, the matrix from the flattened inputs side by side to the flattened output.

        float64; the constant part is the value at zero.
        """
        raise TypeError(f"op {self.kind!r} is not linear and has no matrix")

    def transposed(self, coefficients: Tensor, *shapes: Shape) -> tuple[Tensor, ...]:
        """Return, for linear ops, the coefficients `(rows, *shape)` of each input that c L has, L being the linear map.

        coefficients: c `(rows, *output shape)`; shapes: of the inputs. In the dtype and on the device of the weights,
        rounded to nearest: for searches.
        """
        raise TypeError(f"op {self.kind!r} is not linear and has no adjoint")

    def unit_rows(self, units: Tensor) -> tuple[Tensor, Tensor | None] | None:
        """Return the weights `(batch, k, inputs)` and biases of units `(batch, k)` of a vector, as they are stored.

        None: the op stores no row for each unit.
        """
        return None

    def windows(self, shape: Shape) -> Tensor:
        """Return, for maxima, the places `(outputs, cells)` in the flattened input of a shape; -1 for padding."""
        raise TypeError(f"op {self.kind!r} is no maximum over windows")

    def change(self, other: Op) -> Change[Op] | None:
        """Return what other(x + d) - self(x) is, as ops of d and x; None: no more than the difference of both values.

        other: of the same kind, on inputs of the same shapes.
        """
        return None

    def is_same(self, other: Op) -> bool:
        """Return whether another op is of the same kind, with the same settings and the same weights."""
        own, others = self.parameters(), other.parameters()
        return (
            (self.kind, self.settings(), own.keys()) == (other.kind, other.settings(), others.keys())
            and all(own[name].dtype == others[name].dtype and torch.equal(own[name], others[name]) for name in own)
        )  # fmt: skip

    def distance_layer(self, shape: Shape) -> DistanceLayer | None:
        """Return the dense layer of MWD units on flat inputs of a shape that does the same; None: the op is none."""
        return None

    def fan_in(self) -> int:
        """Return an upper bound of how many products, sums or comparisons one output takes."""
        return 1

    def program_size(self, view: str, outputs: int, segments: int) -> Size:
        """Return upper estimates of what the rows of a view, `relax` or `exact`, hold for so many outputs.

        As if every unit were open, and every curve cut into all segments.
        """
        if view == "exact" and not self.linear:
            return Size(outputs * (2 * segments + 6), outputs * (12 * segments + 5))
        return Size(3 * outputs, 6 * outputs)

    def trusted_error(self, size: Tensor, *x: Tensor) -> Tensor:
        """Return the sizes of which runtimes err by some units in the last place, at values of `(batch, *shape)` sizes.

        x: the inputs.

        That is more than the op's own rounding, as they approximate curves and merge nodes.
        """
        return size


class ElementwiseOp(Op):
    """A function of single units of one node."""

    def output_shape(self, *shapes: Shape) -> Shape:
        return shapes[0]
