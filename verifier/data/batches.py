"""Inputs and labels gathered from an iterable of (x, y): batches or single samples, read once and in its order.

An item is a batch if its y has an axis as long as the first axis of its x, else one sample. All of it is kept, so a
stream without an end stops at `limits.data_bytes`, of which an item takes at least 8 KiB; whatever the iterable raises
becomes a DataError.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encoders.limits import Limits
from verifier.data.arrays import as_array, exact_floats, labelled
from verifier.data.dataset import Dataset
from verifier.data.error import DataError
from verifier.data.labels import read_labels

# What an item counts as at least, so that a stream of small items without an end stops within a minute.
_ITEM_BYTES = 8192

PAIRS = "give pairs (x, y), of batches x (n, ...) and y (n,) or of one input x and its class y"


class Rows:
    """Rows of one shape in one growing array; its dtype widens where a value needs it."""

    def __init__(self) -> None:
        self._store: NDArray[Any] | None = None
        self._count = 0

    @property
    def values(self) -> NDArray[Any]:
        """The rows so far, `(n, *shape)`, not copied."""
        assert self._store is not None
        return self._store[: self._count]

    @property
    def nbytes(self) -> int:
        """The bytes that the rows so far take."""
        return 0 if self._store is None else self.values.nbytes

    def add(self, rows: NDArray[Any]) -> None:
        """Append rows `(k, *shape)`; ValueError if theirs is another shape."""
        if self._store is None:
            self._store = np.array(rows, order="C")
            self._count = len(rows)
            return
        if rows.shape[1:] != self._store.shape[1:]:
            raise ValueError(f"has shape {rows.shape[1:]}, and those before it {self._store.shape[1:]}")
        wide = np.promote_types(self._store.dtype, rows.dtype)
        if wide != self._store.dtype:
            self._store = self._store.astype(wide)
        count = self._count + len(rows)
        if count > len(self._store):
            # In place, so that memory never holds all rows twice; nothing else refers to the array.
            self._store.resize((max(count, self._count * 3 // 2), *self._store.shape[1:]), refcheck=False)
        self._store[self._count : count] = rows
        self._count = count


def gather(
    items: Iterable[Any], name: str, clip: tuple[float, float] | None, limits: Limits, warnings: tuple[str, ...] = ()
) -> Dataset:
    """Return the dataset of an iterable of (x, y), read once.

    Raises DataError for items that are no pairs, whose shapes differ, and for what the iterable itself raises, and
    LimitError once it has given more than limits.data_bytes.
    """
    inputs, labels = Rows(), Rows()
    stored: set[np.dtype[Any]] = set()
    for position, item in enumerate(_read(items, name)):
        place = f"{name}: item {position}"
        x, y = _pair(place, item)
        stored.add(x.dtype)
        values = exact_floats(place, x, limits)
        asked = inputs.nbytes + labels.nbytes + values.nbytes + y.nbytes
        limits.check("data_bytes", max(asked, _ITEM_BYTES * position), f"{name}, read up to item {position},")
        for which, rows, part in (("x", inputs, values), ("y", labels, y)):
            try:
                rows.add(part)
            except (ValueError, TypeError, MemoryError) as error:
                raise DataError(f"{place}: {which} {error}; inputs of one shape and labels of one form") from error
    if not stored:
        raise DataError(f"{name}: no data, it gave no items; an iterator that was read before is empty")
    x_all = inputs.values
    as_type = "" if stored == {x_all.dtype} else f" ({', '.join(sorted(map(str, stored)))} as {x_all.dtype})"
    Dataset(name, x_all, None, clip, "")
    read = read_labels(name, labels.values, len(x_all))
    return labelled(name, x_all, read, clip, f"taken as given{as_type}, in the order of reading", warnings)


def _read(items: Iterable[Any], name: str) -> Iterator[Any]:
    """Yield the items; raise DataError for whatever the iterable raises, which is a caller's or a library's code."""
    position = 0
    try:
        for item in items:
            yield item
            position += 1
    except Exception as error:
        # A worker of a loader reports a whole traceback, whose last line is the reason.
        lines = str(error).strip().splitlines() or [""]
        reason = lines[0] if len(lines) == 1 else f"{lines[0]} {lines[-1]}"
        raise DataError(
            f"{name}: reading item {position} failed: {type(error).__name__}: {reason}; iterate over it alone to see "
            f"why (a DataLoader with num_workers=0)"
        ) from error


def _pair(place: str, item: Any) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return an item as a batch: inputs `(k, ...)` and labels `(k, ...)`."""
    if not isinstance(item, tuple | list) or len(item) != 2:
        size = f" of {len(item)}" if isinstance(item, tuple | list) else ""
        raise DataError(f"{place} is a {type(item).__name__}{size}; {PAIRS}")
    x, y = as_array(place, "x", item[0]), as_array(place, "y", item[1])
    if x.ndim == 0:
        raise DataError(f"{place}: x is a single number; {PAIRS} (an input of one element has the shape (1,))")
    if x.size == 0:
        raise DataError(f"{place}: no data, x has shape {x.shape}")
    if x.ndim >= 2 and y.ndim >= 1 and len(y) == len(x):
        return x, y
    # One sample, whose class is a number, an array of one, or a one-hot vector.
    if y.size == 1 and y.ndim <= 1:
        return x[np.newaxis], y.reshape(1)
    if y.ndim == 1:
        return x[np.newaxis], y[np.newaxis]
    raise DataError(f"{place}: x has shape {x.shape} and y {y.shape}; {PAIRS}")
