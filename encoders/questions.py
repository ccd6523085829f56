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

from encoders.property import Halfspaces, Property
from encoders.rounding import add_down, add_up

# What bounds may be given as; whole numbers and float32 are float64 without rounding.
Values = Tensor | NDArray[np.generic] | Sequence[float] | float


def robust(
    centre: Values,
    radius: Values,
    label: int,
    outputs: int,
    *,
    domain: tuple[float, float] | None = None,
    name: str = "",
) -> Property:
    """Return the property that class `label` alone has the largest output within a radius of an input, in norm inf.

    centre: in the shape of the network's input, finite. radius: one for all coordinates or one for each, not negative.
    outputs: the number of classes. domain: the least and greatest value of any coordinate, to which the box is cut.

    Unsafe: another output is at least as large. The box holds the ball in real arithmetic; a witness lies within it.
    """
    middle = _float64(centre)
    radii = _float64(radius).expand(middle.shape)
    if not bool(((radii >= 0) & radii.isfinite()).all()):
        raise ValueError("a radius must be a finite number that is not negative")
    least, greatest = domain or (-math.inf, math.inf)
    if not bool(((least <= middle) & (middle <= greatest)).all()):
        raise ValueError(f"the centre lies outside the domain [{least}, {greatest}]")
    lower, upper = add_down(middle, -radii).clamp(min=least), add_up(middle, radii).clamp(max=greatest)
    inner = add_up(middle, -radii).clamp(min=least), add_down(middle, radii).clamp(max=greatest)
    return Property(lower, upper, _beaten(label, outputs), name, inner=inner)


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
