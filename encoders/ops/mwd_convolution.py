"""The convolutional MWD layer: the dense one on every window of an image, with the same weights."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from encoders.arithmetic import Arithmetic
from encoders.box import Box, Shape
from encoders.layers.mwd_windows import crop, over_windows, place_index
from encoders.ops.distance import DistanceOp
from encoders.ops.mwd import Mwd
from encoders.ops.mwd_exact import check_size, exact_mwd
from encoders.ops.sliding import sliding_output
from encoders.views.relaxation import Relaxation


@dataclass(frozen=True, eq=False)
class MwdConv2d(DistanceOp):
    """MWD units slid over `(batch, channels, height, width)`.

    weight u >= 0 and attractor w: `(units, channels, rows, columns)`; negated: mask `(units,)`; padding (top, left,
    bottom, right), smaller than the kernel. Padded places take no part in the maximum, as if u were 0 there.
    """

    kind = "mwd-conv2d"

    weight: Tensor
    attractor: Tensor
    negated: Tensor
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)

    def __post_init__(self) -> None:
        if self.weight.dim() != 4 or self.weight.shape != self.attractor.shape:
            raise ValueError(
                f"mwd-conv2d weight and attractor must have 4 axes and one shape, got {tuple(self.weight.shape)} "
                f"and {tuple(self.attractor.shape)}"
            )
        self._dense(slice(None), slice(None))  # checks the values and the mask
        if min(self.stride) < 1:
            raise ValueError(f"mwd-conv2d needs stride >= 1, got {self.stride}")
        if not all(0 <= p < k for p, k in zip(self.padding, self.kernel * 2, strict=True)):
            raise ValueError(f"mwd-conv2d padding {self.padding} must be smaller than its kernel {self.kernel}")

    @property
    def kernel(self) -> tuple[int, int]:
        """(rows, columns) of a window."""
        return int(self.weight.shape[2]), int(self.weight.shape[3])

    def output_shape(self, *shapes: Shape) -> Shape:
        (shape,) = shapes
        channels = int(self.weight.shape[1])
        if len(shape) != 3 or shape[0] != channels:
            raise ValueError(f"mwd-conv2d takes shape ({channels}, height, width), got {shape}")
        rows, columns = sliding_output((shape[1], shape[2]), self.kernel, self.stride, self.padding)
        return int(self.weight.shape[0]), rows, columns

    def evaluate(self, *x: Tensor) -> Tensor:
        def layer(rows: slice, columns: slice, windows: Sequence[Tensor]) -> Sequence[Tensor]:
            return [self._dense(rows, columns).evaluate(windows[0])]

        return over_windows(x, self.kernel, self.stride, self.padding, layer)[0]

    def evaluate_pseudo(self, *x: Tensor, leak: float = 0.0) -> Tensor:
        """Return the value with pseudogradients behind it, for attacks and training."""

        def layer(rows: slice, columns: slice, windows: Sequence[Tensor]) -> Sequence[Tensor]:
            return [self._dense(rows, columns).evaluate_pseudo(windows[0])]

        return over_windows(x, self.kernel, self.stride, self.padding, layer)[0]

    def interval(self, *boxes: Box) -> Box:
        def layer(rows: slice, columns: slice, windows: Sequence[Tensor]) -> Sequence[Tensor]:
            box = self._dense(rows, columns).interval(Box.unchecked(windows[0], windows[1]))
            return [box.lower, box.upper]

        ends = [boxes[0].lower, boxes[0].upper]
        return Box.unchecked(*over_windows(ends, self.kernel, self.stride, self.padding, layer))

    def execution_error(self, boxes: Sequence[Box], errors: Sequence[Tensor], arithmetic: Arithmetic) -> Tensor:
        shape = boxes[0].shape
        flat = Box.unchecked(boxes[0].lower.flatten(1), boxes[0].upper.flatten(1))
        found = self.distance_layer(shape).execution_error([flat], [errors[0].flatten(1)], arithmetic)
        return found.reshape(-1, *self.output_shape(shape))

    def exact(self, *boxes: Box, segments: int = 1) -> Relaxation:
        """Return the rows of the dense layer that does the same, as that does."""
        shape = boxes[0].shape
        check_size(math.prod(self.output_shape(shape)), math.prod(shape))
        flat = Box.unchecked(boxes[0].lower.flatten(1), boxes[0].upper.flatten(1))
        return exact_mwd(self.distance_layer(shape), flat, segments)

    def distance_layer(self, shape: Shape) -> Mwd:
        """Return the same function of flat inputs of a shape as one dense layer, in C order on both sides.

        Inputs outside a window get the weight 0, whose terms 0 |x - w| never exceed a distance.
        """
        self.output_shape(shape)
        index = place_index((shape[0], shape[1], shape[2]), self.kernel, self.stride, self.padding)
        units, (positions, places) = self.weight.shape[0], index.shape
        index = index.to(self.weight.device).expand(units, positions, places)
        weight, attractor = (
            values.new_zeros(units, positions, shape[0] * shape[1] * shape[2] + 1)
            .scatter_(2, index, values.flatten(1)[:, None].expand(index.shape))[:, :, :-1]
            .flatten(0, 1)
            for values in (self.weight, self.attractor)
        )
        return Mwd(weight, attractor, self.negated.repeat_interleave(positions))

    def _dense(self, rows: slice, columns: slice) -> Mwd:
        """Return the dense layer of a window that has only some places on the image."""
        return Mwd(crop(self.weight, rows, columns), crop(self.attractor, rows, columns), self.negated)
