"""Sums whose roundings are bounded, for ways back through a network."""

from __future__ import annotations

import torch
from torch import Tensor

from encoders.rounding import tiny, unit_roundoff


class RoundedSum:
    """A sum of terms `(batch, rows)` that starts at zero; each was rounded relative to at most its own size."""

    def __init__(self, zero: Tensor) -> None:
        self.value, self.size, self.count = zero, torch.zeros_like(zero), 2

    def add(self, term: Tensor) -> None:
        """Add a term."""
        self.value, self.size, self.count = self.value + term, self.size + term.abs(), self.count + 1

    def rounded_down(self, last: Tensor) -> Tensor:
        """Return the sum with a last term, rounded down."""
        dtype = self.value.dtype
        size = (self.size + last.abs()) * (2.0 * (self.count + 1) * unit_roundoff(dtype))
        return (self.value + last - size - tiny(dtype)).nan_to_num(-torch.inf, -torch.inf, -torch.inf)
