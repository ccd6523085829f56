"""Properties by name: the questions that people ask most, as boxes and unsafe sets.

All unsafe sets here are closed: a tie for the largest output, or an output on the end of its range, is a
counterexample.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from encoders.joint import Copy, Joint
from encoders.norm_ball import NormBall
from encoders.property import Halfspaces, Property
from encoders.region import Norm
from encoders.rounding import add_down, add_up

# The name of the model that is given first.
MODEL = "f"
# What bounds may be given as; whole numbers and float32 are float64 without rounding.
Values = Tensor | NDArray[np.generic] | Sequence[float] | float


def robust(
    centre: Values,
    radius: Values,
    label: int,
    outputs: int,
    *,
    domain: tuple[float, float] | None = None,
    norm: Norm = "inf",
    name: str = "",
) -> Property:
    """Return the property that class `label` alone has the largest output within a radius of an input.

    centre: in the shape of the network's input, finite. radius: one for all coordinates or one for each, not negative.
    outputs: the number of classes. domain: the least and greatest value of any coordinate, to which the ball is cut.
    norm: of the ball; in "2" and "1" there is one radius for all coordinates.

    Unsafe: another output is at least as large. The box holds the ball in real arithmetic; a witness lies within it.
    """
    middle = _float64(centre)
    lower, upper, inner = _around(middle, radius, domain)
    if norm == "inf":
        return Property(lower, upper, _beaten(label, outputs), name, inner=inner)
    radii = _float64(radius)
    if radii.numel() != 1:
        raise ValueError(f"a ball of the {norm}-norm has one radius; radii for each coordinate are of the norm inf")
    return Property(lower, upper, _beaten(label, outputs), name, ball=NormBall(middle, float(radii), norm))


def always_largest(lower: Values, upper: Values, label: int, outputs: int, *, name: str = "") -> Property:
    """Return the property that class `label` alone has the largest output on the box [lower, upper].

    Unsafe: any other output is at least as large (one polyhedron of one row for each).
    """
    return Property(_float64(lower), _float64(upper), _beaten(label, outputs), name)


def never_largest(lower: Values, upper: Values, label: int, outputs: int, *, name: str = "") -> Property:
    """Return the property that on the box [lower, upper] some output is larger than that of class `label`.

    Unsafe: its output is at least as large as every other (one polyhedron with a row for each).
    """
    rivals = _rivals(label, outputs)
    rows = torch.zeros(len(rivals), outputs, dtype=torch.float64)
    rows[range(len(rivals)), rivals] = 1.0
    rows[:, label] = -1.0
    return Property(_float64(lower), _float64(upper), (Halfspaces(rows, torch.zeros_like(rows[:, 0])),), name)


def output_within(lower: Values, upper: Values, least: Values, greatest: Values, *, name: str = "") -> Property:
    """Return the property that on the box [lower, upper] every output lies strictly between `least` and `greatest`.

    least, greatest: one value for each output, in C order; infinite where there is no such end.
    Unsafe: an output at or beyond an end (one polyhedron of one row for each finite end).
    """
    ends = _float64(least).reshape(-1), _float64(greatest).reshape(-1)
    if ends[0].shape != ends[1].shape or bool((ends[0].isnan() | ends[1].isnan()).any()):
        raise ValueError("the ends of the outputs must be numbers, as many below as above")
    unsafe = []
    for sign, values in ((1.0, ends[0]), (-1.0, -ends[1])):
        for output in values.isfinite().nonzero().flatten().tolist():
            row = torch.zeros(1, len(values), dtype=torch.float64)
            row[0, output] = sign
            unsafe.append(Halfspaces(row, values[output].reshape(1)))
    return Property(_float64(lower), _float64(upper), tuple(unsafe), name)


def output_changes_less_than(
    centre: Values,
    radius: Values,
    delta: Values,
    outputs: int,
    *,
    domain: tuple[float, float] | None = None,
    name: str = "",
) -> Property:
    """Return the property that within a radius of an input every output stays less than `delta` from its value there.

    centre, radius, domain: as of `robust`; the centre in numbers of the network's dtype. delta: one for all outputs or
    one for each, positive; infinite for outputs that may change.

    Unsafe: f(x)_j - f(centre)_j is at least delta_j or at most -delta_j, for a second copy of f at the fixed centre:
    in proofs both are values of real arithmetic, in witnesses those of the model's own execution too.
    """
    middle = _float64(centre)
    lower, upper, inner = _around(middle, radius, domain)
    shape, count = tuple(middle.shape), middle.numel()
    moving = Copy(MODEL, shape, tuple(range(count)), outputs)
    fixed = Copy(MODEL, shape, (-1,) * count, outputs, tuple(middle.flatten().tolist()))
    return Property(
        lower.flatten(), upper.flatten(), _apart(delta, outputs), name,
        inner=(inner[0].flatten(), inner[1].flatten()), joint=Joint(count, (moving, fixed)),
    )  # fmt: skip


def monotone_in(
    lower: Values,
    upper: Values,
    coordinate: int,
    output: int,
    outputs: int,
    *,
    slack: float,
    falling: bool = False,
    name: str = "",
) -> Property:
    """Return the property that raising one input, all others equal, never lowers an output by `slack` or more.

    lower, upper: the box of both inputs. coordinate: which is raised, in C order. slack: positive: without it every
    input tied with itself would break the closed question. falling: ask that the output never rises so much.

    Joint inputs: x, and behind it the raised coordinate. Unsafe: x_i <= x'_i and f(x')_j - f(x)_j <= -slack.
    """
    ends = [_float64(lower), _float64(upper)]
    shape, count = tuple(ends[0].shape), ends[0].numel()
    if not 0 <= coordinate < count or not 0 <= output < outputs:
        raise ValueError(f"input {coordinate} of {count} and output {output} of {outputs}; both count from 0")
    if not 0 < slack < math.inf:
        raise ValueError(f"slack must be a positive number, got {slack!r}: at x' = x no output falls by less than 0")
    places = tuple(range(count))
    raised = (*places[:coordinate], count, *places[coordinate + 1 :])
    joint = Joint(
        count + 1,
        (Copy(MODEL, shape, places, outputs), Copy(MODEL, shape, raised, outputs)),
        (coordinate, count),
    )
    rows = torch.zeros(2, 2 * outputs + 2, dtype=torch.float64)
    rows[0, 2 * outputs], rows[0, 2 * outputs + 1] = 1.0, -1.0
    rows[1, output], rows[1, outputs + output] = (1.0, -1.0) if falling else (-1.0, 1.0)
    offsets = torch.tensor([0.0, -float(slack)], dtype=torch.float64)
    least, greatest = (torch.cat([end.flatten(), end.flatten()[coordinate : coordinate + 1]]) for end in ends)
    return Property(least, greatest, (Halfspaces(rows, offsets),), name, joint=joint)


def equal_within(lower: Values, upper: Values, delta: Values, outputs: int, *, second: str, name: str = "") -> Property:
    """Return the property that two networks differ by less than `delta` in every output, all over a box.

    delta: as of `output_changes_less_than`. second: the name by which the other model is given to `verify`.
    Unsafe: |f(x)_j - g(x)_j| >= delta_j for any j.
    """
    ends = [_float64(lower), _float64(upper)]
    shape, places = tuple(ends[0].shape), tuple(range(ends[0].numel()))
    joint = Joint(len(places), (Copy(MODEL, shape, places, outputs), Copy(second, shape, places, outputs)))
    return Property(ends[0].flatten(), ends[1].flatten(), _apart(delta, outputs), name, joint=joint)


def _apart(delta: Values, outputs: int) -> tuple[Halfspaces, ...]:
    """Return where an output of the first copy differs by at least delta from that of the second."""
    changes = _float64(delta).expand(outputs)
    if not bool((changes > 0).all()):
        raise ValueError("delta must be a positive number for every output; infinite where the output may change")
    unsafe = []
    for output in changes.isfinite().nonzero().flatten().tolist():
        for sign in (1.0, -1.0):
            row = torch.zeros(1, 2 * outputs, dtype=torch.float64)
            row[0, output], row[0, outputs + output] = -sign, sign
            unsafe.append(Halfspaces(row, -changes[output : output + 1]))
    return tuple(unsafe)


def _around(
    middle: Tensor, radius: Values, domain: tuple[float, float] | None
) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor]]:
    """Return (lower, upper, inner) of the ball in norm inf, as `Property` has them."""
    radii = _float64(radius).expand(middle.shape)
    if not bool(((radii >= 0) & radii.isfinite()).all()):
        raise ValueError("a radius must be a finite number that is not negative")
    least, greatest = domain or (-math.inf, math.inf)
    if not bool(((least <= middle) & (middle <= greatest)).all()):
        raise ValueError(f"the centre lies outside the domain [{least}, {greatest}]")
    lower, upper = add_down(middle, -radii).clamp(min=least), add_up(middle, radii).clamp(max=greatest)
    return lower, upper, (add_up(middle, -radii).clamp(min=least), add_down(middle, radii).clamp(max=greatest))


def _beaten(label: int, outputs: int) -> tuple[Halfspaces, ...]:
    """Return where another output is at least that of the class: y_label - y_rival <= 0 for any rival."""
    rows = torch.zeros(outputs, outputs, dtype=torch.float64)
    rivals = _rivals(label, outputs)
    rows[:, label] = 1.0
    rows[rivals, rivals] = -1.0
    zero = torch.zeros(1, dtype=torch.float64)
    return tuple(Halfspaces(rows[rival : rival + 1], zero) for rival in rivals)


def _rivals(label: int, outputs: int) -> list[int]:
    if not 0 <= label < outputs or outputs < 2:
        raise ValueError(f"class {label} of {outputs} outputs; classes are 0 to {outputs - 1}, two at least")
    return [rival for rival in range(outputs) if rival != label]


def _float64(values: Values) -> Tensor:
    """Return a copy in float64, on the processor."""
    if isinstance(values, Tensor):
        return values.detach().to(device="cpu", dtype=torch.float64, copy=True)
    return torch.tensor(np.asarray(values, dtype=np.float64), dtype=torch.float64)
