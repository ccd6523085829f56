"""What layers of max-of-weighted-distance units have in common, dense or slid over an image."""

import math
from abc import abstractmethod

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from encoders.box import Box, Shape
from encoders.ops.base import Op
from encoders.rationals import PYTHON_COST, Afford, Rationals
from encoders.views.distances import DistanceLayer
from encoders.views.envelope import ConstantEnvelope, Envelope
from encoders.views.relaxation import Relaxation, Size, no_rows


class DistanceOp(Op):
    """Units that see nothing of their inputs but distances. weight, attractor: `(units, ...)`; negated: a mask."""

    bounded_by_box = True
    measures_distances = True
    has_pseudogradient = True

    weight: Tensor
    attractor: Tensor
    negated: Tensor

    def envelope(self, *boxes: Box, slope: Tensor | None = None) -> Envelope:
        """Return the output box: linear functions of a distance's maximum gain next to nothing over it."""
        return ConstantEnvelope(self.interval(*boxes))

    def relax(self, *boxes: Box, around: Box | None = None) -> Relaxation:
        """Return no rows: the output box says as much as linear functions of a distance's maximum."""
        shape = boxes[0].shape
        return no_rows(math.prod(shape), math.prod(self.output_shape(shape)))

    def program_size(self, view: str, outputs: int, segments: int) -> Size:
        rows, entries = super().program_size(view, outputs, segments)
        if view != "exact":
            return Size(rows, entries)
        # Of each weight and sign a row above with 2 entries, one below with 3, and the literal among those of its unit.
        weights = outputs * self.weight[0].numel()
        return Size(4 * weights + outputs + rows, 12 * weights + entries)

    @abstractmethod
    def distance_layer(self, shape: Shape) -> DistanceLayer: ...

    def rational_scores(self, *x: Rationals, afford: Afford) -> tuple[Rationals, NDArray[np.int64]]:
        """Return the distances max_i u_i |x_i - w_i|, those of plain units negated: the link keeps their order.

        Only units of one type compare. Units of a map come one after the other, each with all of its positions.
        """
        (value,) = x
        layer = self.distance_layer(value.shape[1:])
        flat = value.map(lambda n: n.reshape(n.shape[0], 1, -1))
        afford(3 * PYTHON_COST * value.shape[0] * layer.weight.numel())
        away = (flat - Rationals.of(layer.attractor)).map(np.abs)
        distances = (Rationals.of(layer.weight) * away).map(lambda n: np.maximum.reduce(n, axis=2))
        kinds = layer.negated.cpu().numpy().astype(np.int64)
        return distances.map(lambda n: np.where(kinds == 1, n, -n)), kinds
