"""What an op stores: weights in the dtype of the file, and settings.

Everything that reads or writes ops without knowing them goes by these fields: files, digests, casts.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Self

import torch
from torch import Tensor


@dataclasses.dataclass(frozen=True, eq=False)
class StoredFields:
    """A frozen dataclass whose tensor fields are weights; the others are plain JSON values, settings."""

    def __post_init__(self) -> None:
        """Raise ValueError unless the fields fit together."""

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
