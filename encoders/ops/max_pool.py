"""The maximum over sliding windows."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from encoders.arithmetic import Arithmetic
from encoders.box import Box, Shape
from encoders.ops.base import Op
from encoders.ops.sliding import check_window, pooled_shape, spread_window
from encoders.rationals import Afford, Rationals
from encoders.rounding import gamma
from encoders.views.coefficients import Coefficients
from encoders.views.envelope import Envelope, SelectionEnvelope
from encoders.views.exact_window import exact_window
from encoders.views.relaxation import Relaxation, Size, window_relaxation
from encoders.views.restriction import Restriction, window_restriction
from encoders.views.windows import over_channels, window_cells


@dataclass(frozen=True, eq=False)
class MaxPool2d(Op):
    """The maximum over windows of `(batch, channels, height, width)`; padded places never win."""

    kind = "max-pool2d"
    maximum = True

    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilation: tuple[int, int] = (1, 1)

    def __post_init__(self) -> None:
        check_window(self.kind, self.kernel, self.stride, self.padding, self.dilation)

    def output_shape(self, *shapes: Shape) -> Shape:
        result = pooled_shape(self.kind, shapes[0], self.kernel, self.stride, self.padding, self.dilation)
        if not all(self._sees_input(axis, shapes[0][axis + 1], result[axis + 1]) for axis in (0, 1)):
            raise ValueError(f"{self.kind}: padding {self.padding} leaves windows without any input in {shapes[0]}")
        return result

    def _sees_input(self, axis: int, size: int, outputs: int) -> bool:
        """Return whether every window has a cell in the input along an axis, whatever their number.

        A window that starts inside has one. One that starts in the padding before has `start mod dilation` as its
        first cell that is not before the input, as the padding is less than the kernel.
        """
        stride, dilation, before = self.stride[axis], self.dilation[axis], self.padding[axis]
        if (outputs - 1) * stride - before >= size:
            return False
        if dilation <= size:
            return True
        # Remainders repeat after `dilation` windows; with a dilation beyond the size only tiny kernels fit.
        in_front = min(-(-before // stride), outputs, dilation)
        return all((i * stride - before) % dilation < size for i in range(in_front))

    def evaluate(self, *x: Tensor) -> Tensor:
        (value,) = x
        top, left, bottom, right = self.padding
        if any(self.padding):
            value = functional.pad(value, (left, right, top, bottom), value=-torch.inf)
        return functional.max_pool2d(value, self.kernel, self.stride, 0, self.dilation)

    def execution_error(self, boxes: Sequence[Box], errors: Sequence[Tensor], arithmetic: Arithmetic) -> Tensor:
        """Return the greatest error of a window: a maximum rounds nothing, and moves by no more than its inputs."""
        return self.evaluate(errors[0])

    def interval(self, *boxes: Box) -> Box:
        """Return the exact range: the maximum is monotone in every input and rounds nothing."""
        (box,) = boxes
        return Box.unchecked(self.evaluate(box.lower), self.evaluate(box.upper))

    def restrict(self, *x: Tensor, direction: Tensor | None = None, tolerance: float = 0.0) -> Restriction:
        shape = tuple(x[0].shape[1:])
        return window_restriction(x[0], self.windows(shape), self.output_shape(shape), direction, tolerance)

    def envelope(self, *boxes: Box, slope: Tensor | None = None) -> Envelope:
        """Return each window's input of the greatest lower end as the function below.

        The one above is the same where that input wins on the whole box, else the greatest upper end.
        """
        (box,) = boxes
        lowers, uppers = self._cells(box.lower), self._cells(box.upper)
        lower, chosen = lowers.max(dim=-1)
        upper = uppers.gather(-1, chosen.unsqueeze(-1)).squeeze(-1)
        rival = uppers.scatter(-1, chosen.unsqueeze(-1), -torch.inf).amax(dim=-1)
        reach = torch.maximum(lower.abs(), upper.abs())
        error = reach * gamma(self.fan_in() + 8, box.dtype)

        def scatter(coefficients: Coefficients) -> Coefficients:
            return self._scatter(coefficients, chosen, box.shape)

        return SelectionEnvelope(scatter, (lower >= rival).to(box.dtype), uppers.amax(dim=-1), error)

    def relax(self, *boxes: Box, around: Box | None = None) -> Relaxation:
        (box,) = boxes
        outer = box if around is None else around
        ends = (outer.lower.flatten(), outer.upper.flatten())
        return window_relaxation(box.lower.flatten(), ends, self.windows(box.shape))

    def exact(self, *boxes: Box, segments: int = 1) -> Relaxation:
        (box,) = boxes
        lower, upper = (end.flatten().cpu().numpy() for end in (box.lower, box.upper))
        return exact_window(lower, upper, self.windows(box.shape).numpy())

    def open_units(self, box: Box) -> Tensor:
        return box.lower < box.upper

    def fan_in(self) -> int:
        return self.kernel[0] * self.kernel[1]

    def program_size(self, view: str, outputs: int, segments: int) -> Size:
        cells = self.fan_in()
        if view == "exact":
            return Size(outputs * (2 * cells + 3), outputs * (9 * cells + 2))
        return Size(outputs * (cells + 1), outputs * (3 * cells + 1))

    def rational(self, *x: Rationals, afford: Afford) -> Rationals:
        (value,) = x
        places = self.windows(value.shape[1:]).numpy()
        present = places >= 0
        values = value.numerators.reshape(value.shape[0], -1)[:, places]
        # Every window has a cell on the map; it stands in for those in the padding.
        winner = present.argmax(axis=1)
        values = np.where(present, values, values[:, np.arange(len(winner)), winner][:, :, None])
        shape = self.output_shape(value.shape[1:])
        return Rationals(np.maximum.reduce(values, axis=2).reshape(-1, *shape), value.denominator)

    def windows(self, shape: Shape) -> Tensor:
        cells = window_cells(shape, self.kernel, self.stride, self.padding, self.dilation)
        return over_channels(cells, shape[0], shape[1] * shape[2])

    def _cells(self, x: Tensor) -> Tensor:
        """Return the values of each window `(batch, channels, height, width, cells)`, -inf in the padding."""
        top, left, bottom, right = self.padding
        x = functional.pad(x, (left, right, top, bottom), value=-torch.inf)
        for axis in (0, 1):
            reach = (self.kernel[axis] - 1) * self.dilation[axis] + 1
            x = x.unfold(axis + 2, reach, self.stride[axis])
        return x[..., :: self.dilation[0], :: self.dilation[1]].flatten(4)

    def _scatter(self, coefficients: Coefficients, chosen: Tensor, shape: Shape) -> Coefficients:
        """Return the coefficients of the input where each output's goes to its chosen cell."""
        values, corner = coefficients.values, coefficients.corner or (0, 0)
        cell = coefficients.crop(chosen)
        extents, places = [], []
        for axis, step in ((0, cell // self.kernel[1]), (1, cell % self.kernel[1])):
            count = values.shape[axis - 2]
            extents.append((count - 1) * self.stride[axis] + (self.kernel[axis] - 1) * self.dilation[axis] + 1)
            start = torch.arange(count, device=values.device) * self.stride[axis]
            places.append(step * self.dilation[axis] + (start[:, None] if axis == 0 else start))
        index = (places[0] * extents[1] + places[1]).flatten(2).unsqueeze(1).expand(*values.shape[:3], -1)
        spread = torch.zeros(*values.shape[:3], extents[0] * extents[1], dtype=values.dtype, device=values.device)
        spread = spread.scatter_add(3, index, values.flatten(3)).unflatten(3, extents)
        return spread_window(spread, corner, self.stride, self.padding, shape)
