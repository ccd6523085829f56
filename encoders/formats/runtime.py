"""A model run by its own framework: what a witness is replayed in.

The framework may take any batch, only batches of one, or single inputs without a batch axis; a runtime hides
that. It adds no arithmetic of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

# What stands in front of the input's shape in the file: an axis of any length, an axis of length 1, nothing.
Batch = Literal["any", "one", "none"]

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True, eq=False)
class Runtime:
    """A callable from `(batch, *input_shape)` in `dtype` to `(batch, *output_shape)`.

    framework: its name and version, for records; run: the framework itself, on arrays as the file wants them.
    variants: other ways in which a user may run the same model, by what tells them apart. values: the values of inner
    nodes at a batch of one, by their names in the network, where the framework can tell them. state: what the model
    keeps from run to run, as text that changes with it.
    """

    framework: str
    input_shape: tuple[int, ...]
    dtype: np.dtype[Any]
    batch: Batch
    run: Callable[[Array], Array]
    variants: Mapping[str, Callable[[Array], Array]] = field(default_factory=dict)
    values: Callable[[Array], Mapping[str, Array]] | None = None
    state: Callable[[], str] | None = None

    def __call__(self, x: Array) -> Array:
        """Return the outputs at x, one row for each row of x.

        Raises ValueError if x has another shape or dtype, or no rows: a witness is replayed as it is, not
        converted.
        """
        x = np.asarray(x)
        if x.ndim == 0 or x.shape[1:] != self.input_shape or x.shape[0] == 0:
            expected = ", ".join(["batch", *map(str, self.input_shape)])
            raise ValueError(f"{self.framework} takes x of shape ({expected}), got {x.shape}")
        if x.dtype != self.dtype:
            raise ValueError(f"{self.framework} takes x of dtype {self.dtype}, got {x.dtype}")
        if self.batch == "any":
            return self.run(np.ascontiguousarray(x))
        if self.batch == "one":
            return np.concatenate([self.run(np.ascontiguousarray(row[None])) for row in x])
        return np.stack([self.run(np.ascontiguousarray(row)) for row in x])

    def variant(self, name: str) -> Runtime:
        """Return the model as it is run in another way, one of `variants`."""
        return replace(self, run=self.variants[name], variants={}, values=None)


def open_batched(runtime: Runtime) -> Runtime:
    """Return the runtime, run one row at a time if a batch of two fails or does not come out as two rows.

    A file may declare a free batch and still reshape to a batch of one inside. What a batch changes in the *values*
    is not hidden here: whoever compares the runtime with the network sees it.
    """
    if runtime.batch != "any":
        return runtime
    rows = replace(runtime, batch="one")
    shape, dtype = runtime.input_shape, runtime.dtype
    probe = np.stack([np.zeros(shape, dtype), np.ones(shape, dtype)])
    expected = rows(probe)
    try:
        together = runtime(probe)
    except Exception:
        # Frameworks raise errors of their own classes for shapes that do not fit.
        return rows
    return runtime if together.shape == expected.shape else rows
