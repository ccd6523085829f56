"""Whatever a caller gives as data, as a dataset: names, paths, arrays, loaders, data sets of torch, iterables.

Torch is not imported: only where it is loaded already can a value be one of its classes.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Set
from dataclasses import replace
from pathlib import Path
from typing import Any

from encoders.limits import Limits
from verifier.data.arrays import from_arrays
from verifier.data.batches import PAIRS, gather
from verifier.data.dataset import Dataset, clip_words
from verifier.data.error import DataError
from verifier.data.load import NAMES, load_data

REMEDY = (
    f"give a name ({', '.join(NAMES)}), the path of a .npz file with x and y or of a .csv file, arrays (x, y), "
    f"a Dataset, a DataLoader or an iterable of (x, y)"
)


def as_dataset(
    data: Any,
    *,
    data_dir: str | Path | None = None,
    clip: tuple[float, float] | None = None,
    limits: Limits | None = None,
    split: str = "test",
    label: str | int | None = None,
    classes: bool = True,
) -> Dataset:
    """Return the dataset of a name, a path, a Dataset, (x, y), arrays without labels, or anything that gives (x, y).

    That is a torch DataLoader, TensorDataset or any other data set of torch, or an iterable of batches or of single
    samples: read once, in its order, into memory. A loader that shuffles or leaves inputs out is taken with a warning.
    Two of anything are x and y, unless each of them is a batch or a sample by itself. data_dir, clip, limits, split,
    label and classes are those of `load_data`; a Dataset has its own clip, and one that differs from it is refused.

    Raises DataError with what would be taken for anything else, LimitError beyond the limits; both are ValueErrors.
    """
    limits = limits or Limits()
    if label is not None and not isinstance(data, str | os.PathLike):
        raise DataError(f"label {label!r} names a column of a .csv file; give its path as data, or leave label away")
    if isinstance(data, Dataset):
        return _clipped(data, clip)
    if isinstance(data, str | os.PathLike):
        place = Path(data) if isinstance(data, os.PathLike) else data
        return load_data(place, data_dir=data_dir, clip=clip, split=split, label=label, limits=limits, classes=classes)
    if data is None or isinstance(data, bytes | bytearray | bool | int | float | complex):
        raise DataError(f"data are a {type(data).__name__}, {data!r:.60}; {REMEDY}")
    if isinstance(data, Mapping | Set):
        raise DataError(f"data are a {type(data).__name__}, which has no order or no x and y of its own; {REMEDY}")
    if isinstance(data, tuple | list):
        return _from_sequence(data, clip, limits)
    if _is_array(data):
        return from_arrays(data, None, clip, limits=limits)
    found = _from_torch(data, clip, limits)
    return _from_iterable(data, clip, limits) if found is None else found


def _clipped(dataset: Dataset, clip: tuple[float, float] | None) -> Dataset:
    """Return the dataset with this clip, if it has none; DataError if it has another."""
    if clip is None:
        return dataset
    if dataset.clip is None:
        return replace(dataset, clip=clip, note=f"{dataset.note}, then {clip_words(clip)}")
    if clip_words(clip) != clip_words(dataset.clip):
        raise DataError(
            f"{dataset.name} is {clip_words(dataset.clip)}, and clip={clip!r} asks for another domain; leave clip away "
            f"or give dataclasses.replace(dataset, clip={clip!r})"
        )
    return dataset


def _from_sequence(data: tuple[Any, ...] | list[Any], clip: tuple[float, float] | None, limits: Limits) -> Dataset:
    """Return the dataset of (x, y), or of a list of batches or samples."""
    if len(data) == 2 and not all(_is_pair(part) for part in data):
        return from_arrays(data[0], data[1], clip, limits=limits)
    if data and all(isinstance(part, tuple | list) and len(part) == 2 for part in data):
        return gather(data, type(data).__name__, clip, limits)
    raise DataError(f"data are a {type(data).__name__} of {len(data)}, neither (x, y) nor such pairs; {REMEDY}")


def _is_pair(part: Any) -> bool:
    """Return whether this is a batch or a sample (x, y) of its own, and no x or y that lists two arrays.

    Two inputs in a list have one shape; the x of a batch or sample is an array of another shape than its y.
    """
    if not isinstance(part, tuple | list) or len(part) != 2 or not _is_array(part[0]):
        return False
    shape = () if isinstance(part[1], bool | int | float) else getattr(part[1], "shape", None)
    return part[0].ndim >= 1 and shape is not None and tuple(part[0].shape) != tuple(shape)


def _is_array(value: Any) -> bool:
    """Return whether the value is an array or a tensor, or converts itself to one (a table of numbers)."""
    return hasattr(value, "__array__") and hasattr(value, "ndim") and hasattr(value, "shape")


def _from_torch(data: Any, clip: tuple[float, float] | None, limits: Limits) -> Dataset | None:
    """Return the dataset of a DataLoader or a data set of torch, None if it is neither."""
    torch = sys.modules.get("torch")
    if torch is None:
        return None
    name = type(data).__name__
    if isinstance(data, torch.utils.data.DataLoader):
        return gather(data, name, clip, limits, _loader_warnings(data))
    # A subclass may change its samples, so it is asked for each.
    if type(data) is torch.utils.data.TensorDataset:
        if len(data.tensors) != 2:
            raise DataError(f"{name} holds {len(data.tensors)} tensors; {PAIRS}")
        x, y = data.tensors
        return from_arrays(x, y, clip, name=name, limits=limits)
    if isinstance(data, torch.utils.data.Dataset) and not isinstance(data, torch.utils.data.IterableDataset):
        return gather(_samples(data), name, clip, limits)
    return None


def _loader_warnings(loader: Any) -> tuple[str, ...]:
    """Return what a user has to know of a loader that shuffles or leaves inputs out."""
    from torch.utils.data import RandomSampler, SubsetRandomSampler, WeightedRandomSampler

    samplers = [loader.sampler, getattr(loader.batch_sampler, "sampler", None)]
    warnings = []
    if any(isinstance(sampler, RandomSampler | SubsetRandomSampler | WeightedRandomSampler) for sampler in samplers):
        warnings.append(
            "DataLoader: it shuffles, so positions are those of this reading, and another reading has another digest "
            "and cannot continue the run; use shuffle=False"
        )
    if getattr(loader, "drop_last", False):
        warnings.append("DataLoader: drop_last leaves out the inputs of an incomplete last batch; use drop_last=False")
    return tuple(warnings)


def _from_iterable(data: Any, clip: tuple[float, float] | None, limits: Limits) -> Dataset:
    """Return the dataset of an iterable, or of what has a length and positions."""
    name = type(data).__name__
    if isinstance(data, type):
        raise DataError(f"data are the class {data.__name__}, not an object of it; {REMEDY}")
    if hasattr(data, "__iter__"):
        return gather(data, name, clip, limits)
    if hasattr(data, "__getitem__") and hasattr(data, "__len__"):
        return gather(_samples(data), name, clip, limits)
    raise DataError(f"data are a {name}; {REMEDY}")


def _samples(data: Any) -> Iterator[Any]:
    """Yield the samples at all positions; many such classes never raise the IndexError that iteration waits for."""
    for position in range(len(data)):
        yield data[position]
