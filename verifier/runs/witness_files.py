"""Witnesses on disk: arrays `index`, `x`, `distance`, one row for each replayed counterexample."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from encoders.files import replacing
from verifier.npz import ArrayFileError, read_npz_file

# By index in the data: (point, distance rounded up).
Witnesses = dict[int, tuple[np.ndarray, float]]


def read_witnesses(path: Path) -> list[tuple[int, np.ndarray, float]]:
    """Return (index, point, distance) of each row; ArrayFileError if the file holds no witnesses."""
    arrays = read_npz_file(path)
    missing = [name for name in ("index", "x", "distance") if name not in arrays]
    if missing:
        raise ArrayFileError(f"it has no array {', '.join(missing)}")
    index, x, distance = (arrays[name] for name in ("index", "x", "distance"))
    if index.ndim != 1 or distance.shape != index.shape or x.ndim < 2 or len(x) != len(index):
        raise ArrayFileError(f"its arrays have shapes {index.shape}, {x.shape} and {distance.shape}")
    if index.dtype.kind not in "iu" or x.dtype.kind != "f" or distance.dtype.kind != "f":
        raise ArrayFileError(f"its arrays hold {index.dtype}, {x.dtype} and {distance.dtype}")
    return [(int(i), point, float(d)) for i, point, d in zip(index, x, distance, strict=True)]


def write_witnesses(path: Path, witnesses: Mapping[int, tuple[np.ndarray, float]]) -> None:
    """Write witnesses in one atomic step, in the order of their indices."""
    order = sorted(witnesses)
    arrays = {
        "index": np.array(order, dtype=np.int64),
        "x": np.stack([witnesses[i][0] for i in order]),
        "distance": np.array([witnesses[i][1] for i in order], dtype=np.float64),
    }
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)
