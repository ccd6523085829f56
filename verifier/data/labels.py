"""Labels in the forms that mean one thing: whole numbers, a column of them, booleans of two classes, one-hot rows.

Everything else (fractions, soft labels, several classes a row, text) is refused with the line that would make labels
of it, since a guess here would count other answers as correct.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from verifier.data.error import DataError

Labels = NDArray[np.int64]

# Every integer up to this magnitude is a float64.
_WHOLE = 2**53
_BLOCK = 2**20


@dataclass(frozen=True, eq=False)
class ReadLabels:
    """Labels `(n,)`, words for the note ("" for labels taken as they are), and how many classes their form names."""

    labels: Labels
    words: str = ""
    classes: int | None = None


def read_labels(name: str, y: NDArray[Any], count: int) -> ReadLabels:
    """Return the labels of this many inputs, every value unchanged. Raises DataError naming what they are instead."""
    if y.dtype.kind not in "iufb" or y.dtype.itemsize > 8:
        raise DataError(
            f"{name}: y has dtype {y.dtype}; labels are whole numbers 0, 1, ...: number the classes, for example with "
            f"np.unique(y, return_inverse=True)[1], or y.astype(np.int64) where they are numbers already"
        )
    if y.ndim == 2 and y.shape[0] == count and y.shape[1] >= 2:
        return _one_hot(name, y)
    column = y.ndim == 2 and y.shape == (count, 1)
    if not column and y.shape != (count,):
        raise DataError(f"{name}: labels of shape {y.shape} for {count} inputs; expected ({count},){_remedy(y, count)}")
    words = [f"labels from a column {y.shape}"] if column else []
    if y.dtype.kind == "b":
        words.append("boolean labels as 0 and 1")
    classes = 2 if y.dtype.kind == "b" else None
    return ReadLabels(_whole(name, y).reshape(count), ", ".join(words), classes)


def _remedy(y: NDArray[Any], count: int) -> str:
    """Return what to do with labels of another shape, where that is clear."""
    if y.ndim > 1 and y.size == count:
        return "; if these are the labels in order, give y.reshape(-1)"
    if y.ndim == 2 and y.shape[1] == count:
        return "; if these are one-hot columns, give y.T"
    return ""


def _whole(name: str, y: NDArray[Any]) -> Labels:
    """Return a copy of y in int64; DataError names the first value that is no integer."""
    flat = y.reshape(-1)
    # In blocks, so that checking takes no memory beside the labels.
    for start in range(0, len(flat), _BLOCK):
        wide = flat[start : start + _BLOCK].astype(np.float64)
        # Written so that NaN is wrong too. The bound keeps the cast exact, and no network has that many classes.
        wrong = ~((wide == np.trunc(wide)) & (np.abs(wide) <= _WHOLE))
        if wrong.any():
            index = tuple(int(i) for i in np.unravel_index(start + int(np.argmax(wrong)), y.shape))
            raise DataError(f"{name}: label {y[index]} at index {index} is no integer of at most 53 bits")
    return np.array(y, np.int64, order="C")


def _one_hot(name: str, y: NDArray[Any]) -> ReadLabels:
    """Return the labels of rows with a single 1 and zeros besides."""
    right = ((y == 0) | (y == 1)).all(axis=1) & (np.count_nonzero(y, axis=1) == 1)
    if not right.all():
        row = int(np.argmin(right))
        shown = np.array2string(y[row, :6], separator=", ") + (" ..." if y.shape[1] > 6 else "")
        raise DataError(
            f"{name}: labels of shape {y.shape} are no one-hot rows: row {row} is {shown}, not a single 1 and zeros; "
            f"soft or several labels are not supported: give the class, y.argmax(axis=1), if the largest is meant"
        )
    classes = y.shape[1]
    return ReadLabels(np.argmax(y, axis=1).astype(np.int64), f"labels from one-hot rows of {classes} classes", classes)
