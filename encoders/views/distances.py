"""A dense layer of max-of-weighted-distance units, as those see it who work on the distances."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from encoders.box import Box


class DistanceLayer(Protocol):
    """Units with distances z = max_i weight_i |x_i - attractor_i|, and outputs that are one monotone function of z.

    weight, attractor: `(units, inputs)`; negated: mask `(units,)` of units whose output rises with z; bias: `(units,)`,
    only with the linear link, where outputs are bias -+ z. Else they are exp(-z^2), or 1 minus that.
    """

    @property
    def weight(self) -> Tensor: ...
    @property
    def attractor(self) -> Tensor: ...
    @property
    def negated(self) -> Tensor: ...
    @property
    def bias(self) -> Tensor | None: ...
    @property
    def has_linear_link(self) -> bool: ...

    def interval(self, *boxes: Box) -> Box:
        """Return a box around the outputs, rounded outward."""

    def distance_range(self, box: Box) -> tuple[Tensor, Tensor]:
        """Return (near, far) `(batch, units)`, the range of z over the boxes, rounded outward."""
