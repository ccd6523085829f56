"""A batch of axis-aligned boxes: the value that interval propagation passes from op to op."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

# Sizes along the axes of a value, the batch not counted.
Shape = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Box:
    """The closed boxes {x : lower <= x <= upper}: what interval propagation passes on.

    lower: least values `(batch, *shape)`, any floating dtype and device; -infinity where there is no bound.
    upper: greatest values, of the same shape, dtype and device.

    A box from a view in float64 is rounded outward and contains the exact range; one in float32 proves nothing.
    Raises ValueError if the ends differ in shape, dtype or device, hold NaN, or are in the wrong order.
    """

    lower: Tensor
    upper: Tensor

    def __post_init__(self) -> None:
        if self.lower.shape != self.upper.shape:
            raise ValueError(f"box ends differ in shape: {tuple(self.lower.shape)} and {tuple(self.upper.shape)}")
        if self.lower.dtype != self.upper.dtype or self.lower.device != self.upper.device:
            raise ValueError("box ends differ in dtype or device")
        # One comparison finds both errors: a comparison with NaN is false.
        if not bool((self.lower <= self.upper).all()):
            bad = "NaN" if bool((self.lower.isnan() | self.upper.isnan()).any()) else "lower > upper"
            raise ValueError(f"not a box: {bad} in its ends")

    @classmethod
    def unchecked(cls, lower: Tensor, upper: Tensor) -> Box:
        """Return a box without the checks, for ops whose formula guarantees them (saves two passes an op)."""
        box = object.__new__(cls)
        object.__setattr__(box, "lower", lower)
        object.__setattr__(box, "upper", upper)
        return box

    @classmethod
    def point(cls, x: Tensor) -> Box:
        """Return the degenerate boxes {x}."""
        return cls(x, x)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one box, without the batch."""
        return tuple(self.lower.shape[1:])

    @property
    def batch(self) -> int:
        """The number of boxes."""
        return int(self.lower.shape[0])

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the ends."""
        return self.lower.dtype

    def __getitem__(self, rows: Tensor | slice) -> Box:
        """Return the boxes of the given batch rows (index tensor, mask or slice)."""
        return Box.unchecked(self.lower[rows], self.upper[rows])

    def unbounded_at(self, rows: Tensor) -> Box:
        """Return the boxes, in the rows of a mask `(batch,)` those of all numbers."""
        mask = rows.reshape(-1, *[1] * (self.lower.dim() - 1))
        return Box.unchecked(self.lower.masked_fill(mask, -torch.inf), self.upper.masked_fill(mask, torch.inf))

    def contains(self, x: Tensor) -> Tensor:
        """Return a mask `(batch,)`: whether every coordinate of x lies in its box, without tolerance."""
        inside = (self.lower <= x) & (x <= self.upper)
        return inside.unsqueeze(-1).flatten(1).all(dim=1)
