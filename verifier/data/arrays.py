"""Arrays that a caller holds, as a dataset: taken as stored, converted only where that is exact."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from encoders.limits import Limits
from verifier.data.dataset import Dataset, Inputs, clip_words
from verifier.data.error import DataError
from verifier.data.labels import ReadLabels, read_labels

# Every integer up to these magnitudes is a float32, a float64.
_FLOAT32_INTEGERS = 2**24
_FLOAT64_INTEGERS = 2**53


def from_arrays(
    x: Any,
    y: Any = None,
    clip: tuple[float, float] | None = None,
    *,
    name: str = "arrays",
    limits: Limits | None = None,
) -> Dataset:
    """Return a dataset that holds copies of x `(n, *shape)` and of the labels y.

    x and y are arrays, nested sequences or torch tensors (copied off their device). float32 and float64 stay;
    float16 becomes float32, integers the narrower of float32 and float64 that holds them all exactly. y holds
    integers or floats without a fraction `(n,)` or `(n, 1)`, booleans of two classes, or one-hot rows `(n, classes)`.
    Raises DataError for what cannot be converted exactly, LimitError for more than limits.data_bytes.
    """
    stored = as_array(name, "x", x)
    inputs = exact_floats(name, stored, limits or Limits())
    as_type = "" if inputs.dtype == stored.dtype.newbyteorder("=") else f" ({stored.dtype} as {inputs.dtype})"
    count = len(inputs) if inputs.ndim else 0
    read = None
    if y is not None:
        # The inputs are checked first, so that what is said of the labels is said of inputs that count.
        Dataset(name, inputs, None, clip, "")
        read = read_labels(name, as_array(name, "y", y), count)
    return labelled(name, inputs, read, clip, f"taken as stored{as_type}")


def labelled(
    name: str,
    inputs: Inputs,
    read: ReadLabels | None,
    clip: tuple[float, float] | None,
    note: str,
    warnings: tuple[str, ...] = (),
) -> Dataset:
    """Return the dataset of these inputs and of labels as they were read."""
    read_as = f", {read.words}" if read is not None and read.words else ""
    note = f"{note}{read_as}, {clip_words(clip)}"
    if read is None:
        return Dataset(name, inputs, None, clip, note, warnings)
    return Dataset(name, inputs, read.labels, clip, note, warnings, read.classes)


def as_array(name: str, which: str, value: Any) -> NDArray[Any]:
    """Return the array of a caller's value: an array, nested sequences, a torch tensor, anything that converts itself.

    Raises DataError where the conversion fails or would hide something (masked values, one object that is no array).
    """
    parts = value if isinstance(value, list | tuple) else (value,)
    if any(isinstance(part, np.ma.MaskedArray) and np.ma.is_masked(part) for part in parts):
        raise DataError(f"{name}: {which} has masked values; fill them ({which}.filled(value)) or leave their rows out")
    try:
        array = np.asarray(value.detach().cpu() if hasattr(value, "detach") else value)
    # The conversion is the value's own code, and libraries raise what they like there.
    except Exception as error:
        raise DataError(
            f"{name}: {which} is no array of numbers ({type(value).__name__}): {error}; give one array of shape "
            f"(n, ...) in memory, of float32, float64 or integers"
        ) from error
    if array.dtype.kind == "O":
        ways = ".toarray(), .to_numpy(dtype=...) or np.stack of equal shapes"
        raise DataError(
            f"{name}: {which} has dtype object ({type(value).__name__}), Python objects and no numbers; make it one "
            f"array of numbers first ({ways})"
        )
    return array


def exact_floats(name: str, x: NDArray[Any], limits: Limits) -> Inputs:
    """Return a contiguous copy of x in float32 or float64, every value unchanged."""
    if x.dtype.kind == "f" and x.dtype.itemsize <= 8:
        return _copy(name, x, np.float64 if x.dtype.itemsize == 8 else np.float32, limits)
    if x.dtype.kind not in "iu":
        raise DataError(f"{name}: x has dtype {x.dtype}; save real numbers as float32, float64 or integers")
    largest = max(abs(int(x.min())), abs(int(x.max()))) if x.size else 0
    if largest > _FLOAT64_INTEGERS:
        raise DataError(f"{name}: x holds integers up to {largest}, beyond what float64 holds exactly; scale them")
    return _copy(name, x, np.float32 if largest <= _FLOAT32_INTEGERS else np.float64, limits)


def _copy(name: str, x: NDArray[Any], dtype: type[np.floating[Any]], limits: Limits) -> Inputs:
    """Return x in C order and this dtype; the limit is checked before memory is taken."""
    limits.check("data_bytes", x.size * np.dtype(dtype).itemsize, f"{name}: x of shape {x.shape}")
    return np.array(x, dtype, order="C")
