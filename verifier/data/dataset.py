"""A dataset: inputs, labels and the domain they are clipped to, checked on construction and read-only."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from verifier.data.error import DataError
from verifier.data.labels import Labels
from verifier.data.layout import arrange, channels_first

Inputs = NDArray[np.floating[Any]]


@dataclass(frozen=True, eq=False)
class Dataset:
    """Inputs with their labels and the domain they live in.

    name: for messages; no part of the digest.
    inputs: `(n, *shape)`, float32 or float64, finite, n >= 1.
    labels: `(n,)`, int64, >= 0; None where there are none.
    clip: the domain (least, greatest) that regions are cut to; every input lies in it, compared exactly as real
    numbers; None: no limit.
    note: how the inputs were scaled, reshaped and clipped, and how labels were read.
    warnings: what was taken although it could be meant otherwise.
    columns: the names of the columns of a table, in order; of other data there are none.
    label_classes: the number of classes that the form of the labels names (one-hot rows, booleans, words), None for
    whole numbers.

    The arrays are read-only, so that the digest stays true: give torch a copy (`torch.tensor(dataset.inputs[:k])`),
    since `torch.from_numpy` warns of such memory.

    Raises DataError if the inputs are empty or not finite or leave the clip, or if the labels do not match them.
    """

    name: str
    inputs: Inputs
    labels: Labels | None
    clip: tuple[float, float] | None
    note: str
    warnings: tuple[str, ...] = ()
    label_classes: int | None = None
    columns: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _check_arrays(self.name, self.inputs, self.labels)
        object.__setattr__(self, "inputs", _read_only(self.inputs))
        object.__setattr__(self, "clip", _checked_clip(self.clip))
        _check_inputs(self.name, self.inputs, self.clip)
        if self.labels is not None:
            object.__setattr__(self, "labels", _read_only(self.labels))
            _check_labels_match(self.name, self.labels, len(self.inputs))

    def __len__(self) -> int:
        """The number of inputs."""
        return len(self.inputs)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one input."""
        return self.inputs.shape[1:]

    @cached_property
    def digest(self) -> str:
        """SHA-256, in hexadecimal, of the inputs, labels, shape, dtype and clip; not of the name and the note."""
        sha = hashlib.sha256(repr((self.inputs.shape, str(self.inputs.dtype), self.clip)).encode())
        for array in (self.inputs, self.labels):
            sha.update(b"none" if array is None else np.ascontiguousarray(array).data)
        return sha.hexdigest()

    def fit_to(self, input_shape: Sequence[int], layout: str | None = None) -> Dataset:
        """Return the data with inputs of the model's input shape; `layout` is that of the data, not of the model.

        Inputs of that shape stay as they are, unless the layout says otherwise. Others keep their elements in C order,
        with a warning where that may be wrong, and are permuted only if the layout is given. The digest covers inputs
        and shape, so it changes with them; the note says what was done. Raises DataError, with the permutation or the
        layout that fits, if axes fit only after a permutation, or if the numbers of elements differ.
        """
        shape = tuple(int(size) for size in input_shape)
        try:
            arrangement = arrange(self.input_shape, shape, layout)
        except DataError as error:
            one = self.inputs.size == math.prod(shape) and self.inputs.size > math.prod(self.input_shape)
            hint = "; x as a whole has as many elements as one input: if it is one, give x[None]" if one else ""
            raise DataError(f"{self.name}: {error}{hint}") from None
        if not arrangement.words:
            return self
        inputs = self.inputs.transpose(0, *(axis + 1 for axis in arrangement.order))
        warnings = () if arrangement.warning is None else (f"{self.name}: {arrangement.warning}",)
        return replace(
            self,
            inputs=np.ascontiguousarray(inputs.reshape(len(self), *shape)),
            note=f"{self.note}, {arrangement.words}",
            warnings=(*self.warnings, *warnings),
        )

    def channels_first_shape(self, layout: str | None) -> tuple[int, ...]:
        """Return the input shape of a model that names none itself (a torch module) for data in this layout.

        Torch has channels first: data said to be `nhwc` are permuted by `fit_to` this shape, others stay.
        """
        return channels_first(self.input_shape, layout)

    def indices(self, limit: int | None = None, offset: int = 0) -> range:
        """Return the positions offset, offset + 1, ...: at most limit of them, fewer where the data end.

        Raises DataError if limit is below 1, the offset is outside the data, or one is no whole number.
        """
        for name, value in (("limit", limit), ("offset", offset)):
            if value is not None and not hasattr(value, "__index__"):
                raise DataError(f"{self.name}: {name} {value!r} is no whole number")
        if limit is not None and limit < 1:
            raise DataError(f"{self.name}: limit {limit} is below 1")
        if not 0 <= offset < len(self):
            raise DataError(f"{self.name}: offset {offset} is outside 0..{len(self) - 1}, the {len(self)} inputs")
        return range(offset, len(self) if limit is None else min(len(self), offset + limit))


def check_labels(dataset: Dataset, classes: int) -> None:
    """Return nothing; raise DataError naming the first label that is not in range(classes).

    One-hot rows, booleans and words name a number of classes themselves, which has to be this one.
    """
    if dataset.label_classes not in (None, classes):
        raise DataError(
            f"{dataset.name}: the form of the labels (one-hot rows, booleans, words) names {dataset.label_classes} "
            f"classes, the model has {classes}; give whole numbers, for example y.argmax(axis=1) or y.astype(np.int64)"
        )
    if dataset.labels is None or int(dataset.labels.max()) < classes:
        return
    first = int(np.argmax(dataset.labels >= classes))
    raise DataError(
        f"{dataset.name}: label {dataset.labels[first]} at index {first} is not one of the {classes} classes "
        f"0..{classes - 1}"
    )


def clip_words(clip: tuple[float, float] | None) -> str:
    """Return the words that a note uses for this clip; raise DataError if it is no domain."""
    ends = _checked_clip(clip)
    if ends is None:
        return "not clipped"
    lower, upper = (repr(end).removesuffix(".0") for end in ends)
    return f"clipped to [{lower}, {upper}]"


def _read_only(array: NDArray[Any]) -> NDArray[Any]:
    """Return a view that cannot be written to; the caller's own array keeps its flags."""
    view = array.view()
    view.flags.writeable = False
    return view


def _check_arrays(name: str, inputs: Any, labels: Any) -> None:
    """Return nothing; raise DataError unless these are arrays, whatever a caller has put in their place."""
    for which, array in (("inputs", inputs), ("labels", labels)):
        if which == "labels" and array is None:
            continue
        if not isinstance(array, np.ndarray) or isinstance(array, np.ma.MaskedArray | np.matrix):
            raise DataError(f"{name}: {which} are a {type(array).__name__}, no array; from_arrays(x, y) converts them")


def _checked_clip(clip: tuple[float, float] | None) -> tuple[float, float] | None:
    """Return the clip as two floats; raise DataError unless they are finite and in order."""
    if clip is None:
        return None
    try:
        if isinstance(clip, str | bytes):
            raise TypeError("text")
        lower, upper = (float(end) for end in clip)
    except (TypeError, ValueError, OverflowError) as error:
        raise DataError(f"clip {clip!r} is not a domain: two finite numbers, the lower first ({error})") from error
    if not (math.isfinite(lower) and math.isfinite(upper) and lower < upper):
        raise DataError(f"clip ({lower}, {upper}) is not a domain: two finite numbers, the lower first")
    return lower, upper


def _check_inputs(name: str, inputs: Inputs, clip: tuple[float, float] | None) -> None:
    if inputs.dtype not in (np.float32, np.float64):
        raise DataError(f"{name}: inputs have dtype {inputs.dtype}; float32 and float64 are supported")
    if inputs.ndim < 2:
        raise DataError(
            f"{name}: inputs have shape {inputs.shape}; the first axis counts the inputs, so a single input of n "
            f"elements has shape (1, n)"
        )
    if inputs.size == 0:
        raise DataError(f"{name}: no data, the inputs have shape {inputs.shape}")
    # The extremes tell in two passes and no temporary array; a mask is built only to name the culprit.
    lowest, highest = float(inputs.min()), float(inputs.max())
    if not (math.isfinite(lowest) and math.isfinite(highest)):
        raise DataError(f"{name}: inputs must be finite, but {_first(inputs, ~np.isfinite(inputs))}")
    if clip is not None and (lowest < clip[0] or highest > clip[1]):
        # float64 ends make NumPy compare exactly; a Python float would be rounded to float32 first.
        outside = (inputs < np.float64(clip[0])) | (inputs > np.float64(clip[1]))
        raise DataError(
            f"{name}: {_first(inputs, outside)} lies outside the clip [{clip[0]}, {clip[1]}]; scale the data or "
            f"give the domain that they live in"
        )


def _first(inputs: Inputs, mask: NDArray[np.bool_]) -> str:
    """Return words for the first input element under the mask: its value and its index."""
    index = tuple(int(i) for i in np.unravel_index(int(np.argmax(mask)), mask.shape))
    return f"value {float(inputs[index])} at index {index}"


def _check_labels_match(name: str, labels: Labels, count: int) -> None:
    if labels.dtype != np.int64:
        raise DataError(f"{name}: labels have dtype {labels.dtype}; int64 is supported")
    if labels.shape != (count,):
        raise DataError(f"{name}: labels of shape {labels.shape} for {count} inputs; expected ({count},)")
    if int(labels.min()) < 0:
        first = int(np.argmax(labels < 0))
        raise DataError(f"{name}: label {labels[first]} at index {first} is negative")
