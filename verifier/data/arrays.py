"""Arrays that a caller holds, or a `.npz` file, as a dataset: taken as stored, converted only where that is exact."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from verifier.data.dataset import DataError, Dataset, Inputs, Labels, clip_words

# Every integer up to these magnitudes is a float32, a float64.
_FLOAT32_INTEGERS = 2**24
_FLOAT64_INTEGERS = 2**53


def from_arrays(x: Any, y: Any = None, clip: tuple[float, float] | None = None, *, name: str = "arrays") -> Dataset:
    """Return a dataset that holds copies of x `(n, *shape)` and of the labels y `(n,)`.

    x and y are arrays, nested sequences or torch tensors (copied off their device). float32 and float64 stay;
    float16 becomes float32, integers the narrower of float32 and float64 that holds them all exactly. y holds
    integers or floats without a fraction. Raises DataError for what cannot be converted exactly.
    """
    stored = _array(name, "x", x)
    inputs = _exact_floats(name, stored)
    as_type = "" if inputs.dtype == stored.dtype.newbyteorder("=") else f" ({stored.dtype} as {inputs.dtype})"
    labels = None if y is None else _exact_labels(name, _array(name, "y", y))
    return Dataset(name, inputs, labels, clip, f"taken as stored{as_type}, {clip_words(clip)}")


def load_npz(path: Path, clip: tuple[float, float] | None) -> Dataset:
    """Return the dataset of a `.npz` file with the arrays `x` and, if there are labels, `y`."""
    arrays = read_npz(path, ("x",), optional=("y",))
    return from_arrays(arrays["x"], arrays.get("y"), clip, name=str(path))


def read_npz(path: Path, required: Sequence[str], optional: Sequence[str] = ()) -> dict[str, NDArray[Any]]:
    """Return the required arrays of a `.npz` file by name, and the optional ones that it has; nothing is unpickled.

    Raises DataError if the file is damaged, if one of these arrays holds pickled objects or a required one is missing.
    """
    try:
        with path.open("rb") as file:
            archive = np.load(file, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise DataError(f"{path}: holds a single array; save it with np.savez(file, x=..., y=...)")
            stored = archive.files
            arrays = {key: archive[key] for key in (*required, *optional) if key in stored}
    except DataError:
        raise
    # RuntimeError: encrypted, or an unknown compression. MemoryError: a header that claims an absurd shape.
    except (OSError, ValueError, EOFError, MemoryError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{path}: cannot be read as a .npz of plain arrays: {error}") from error
    # A member that is no .npy comes back as bytes.
    missing = [key for key in required if not isinstance(arrays.get(key), np.ndarray)]
    if missing:
        raise DataError(f"{path}: no array {', '.join(missing)}; it holds {', '.join(sorted(stored)) or 'nothing'}")
    return arrays


def _array(name: str, which: str, value: Any) -> NDArray[Any]:
    try:
        return np.asarray(value.detach().cpu() if hasattr(value, "detach") else value)
    except (TypeError, ValueError) as error:
        raise DataError(f"{name}: {which} is no array of numbers: {error}") from error


def _exact_floats(name: str, x: NDArray[Any]) -> Inputs:
    """Return a contiguous copy of x in float32 or float64, every value unchanged."""
    if x.dtype.kind == "f" and x.dtype.itemsize <= 8:
        return np.array(x, np.float64 if x.dtype.itemsize == 8 else np.float32, order="C")
    if x.dtype.kind not in "iu":
        raise DataError(f"{name}: x has dtype {x.dtype}; save real numbers as float32, float64 or integers")
    largest = max(abs(int(x.min())), abs(int(x.max()))) if x.size else 0
    if largest > _FLOAT64_INTEGERS:
        raise DataError(f"{name}: x holds integers up to {largest}, beyond what float64 holds exactly; scale them")
    return np.array(x, np.float32 if largest <= _FLOAT32_INTEGERS else np.float64, order="C")


def _exact_labels(name: str, y: NDArray[Any]) -> Labels:
    """Return a copy of y in int64, every value unchanged."""
    if y.dtype.kind not in "iuf":
        raise DataError(f"{name}: y has dtype {y.dtype}; labels are integers, or floats without a fraction")
    wide = y.astype(np.float64)
    # Written so that NaN is wrong too. The bound keeps the cast exact, and no network has that many classes.
    wrong = ~((wide == np.trunc(wide)) & (np.abs(wide) <= _FLOAT64_INTEGERS))
    if wrong.any():
        index = tuple(int(i) for i in np.unravel_index(int(np.argmax(wrong)), y.shape))
        raise DataError(f"{name}: label {y[index]} at index {index} is no integer of at most 53 bits")
    return np.array(y, np.int64, order="C")
