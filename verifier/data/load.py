"""Data by name or by file."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from encoders.limits import Limits
from verifier.data.archive import read_npz
from verifier.data.arrays import from_arrays, labelled
from verifier.data.cifar import read_cifar10
from verifier.data.dataset import Dataset, Inputs, check_labels, clip_words
from verifier.data.digits import read_digits
from verifier.data.error import DataError
from verifier.data.idx import read_mnist
from verifier.data.labels import Labels
from verifier.data.table import Table, read_table

NAMES = ("digits", "mnist", "fashion-mnist", "cifar10")
SPLITS = ("test", "train")
_CLASSES = 10
# Columns that a note names.
_NAMED = 12


def load_data(
    name_or_path: str | Path,
    *,
    data_dir: str | Path | None = None,
    clip: tuple[float, float] | None = None,
    split: str = "test",
    label: str | int | None = None,
    limits: Limits | None = None,
    classes: bool = True,
) -> Dataset:
    """Return the data of one of NAMES, of a `.npz` file (arrays `x` and, with labels, `y`), or of a `.csv` table.

    name_or_path: named data are float32 and scaled to [0, 1]; files are taken as stored.
    data_dir: where the files of named data may lie; those found nowhere are downloaded to the user's cache.
    clip: the domain (least, greatest); default [0, 1] for named data and none for a file.
    split: `test` or `train`; a file has no split and is read whole either way.
    label: the column of a `.csv` that holds the labels, by name or place; None: the last, "none": there are none.
    limits: what the files may ask for (default `Limits()`). classes: whether the labels of a file are read, as classes.

    Raises DataError if the data cannot be found or read, are not what they should be, or leave the clip, and LimitError
    if a file asks for more than the limits allow; both are ValueErrors.
    """
    if split not in SPLITS:
        raise DataError(f"split {split!r} is not one of {', '.join(SPLITS)}")
    if not isinstance(name_or_path, str | os.PathLike):
        raise DataError(f"data {name_or_path!r} are no name and no path; give one of {', '.join(NAMES)} or a file")
    limits = limits or Limits()
    name = str(name_or_path)
    path = None if name in NAMES else _existing(name)
    if label is not None and (path is None or path.suffix != ".csv"):
        raise DataError(f"label {label!r} names a column of a .csv file, and {name} is none; leave it away")
    if path is None:
        return _load_named(name, split, data_dir, (0.0, 1.0) if clip is None else clip, limits)
    if path.suffix == ".csv":
        return _load_table(read_table(path, label, limits, classes), path, clip)
    if path.suffix != ".npz":
        remedy = "save arrays with np.savez(file, x=..., y=...), a table with a header, commas and decimal points"
        raise DataError(f"{path}: neither a .npz nor a .csv file; {remedy}")
    arrays = read_npz(path, ("x",), ("y",) if classes else (), limits)
    return from_arrays(arrays["x"], arrays.get("y"), clip, name=str(path), limits=limits)


def _load_table(table: Table, path: Path, clip: tuple[float, float] | None) -> Dataset:
    read = labelled(str(path), table.inputs, table.labels, clip, f"columns {_few(table.columns)}")
    return replace(read, columns=table.columns)


def _few(columns: tuple[str, ...]) -> str:
    """Return the names of the first columns, and how many more there are."""
    more = len(columns) - _NAMED
    return ", ".join(columns[:_NAMED]) + (f" and {more} more" if more > 0 else "")


def _existing(name: str) -> Path:
    """Return the path of an existing regular file of this name."""
    remedy = f"give one of {', '.join(NAMES)}, or an existing .npz file with x and y, or .csv file"
    try:
        path = Path(name).expanduser()
        exists, is_file = path.exists(), path.is_file()
    # RuntimeError: no such home folder. ValueError: a zero byte. OSError: too long, or not permitted.
    except (OSError, RuntimeError, ValueError) as error:
        raise DataError(f"no data {name!r} ({error}): {remedy}") from error
    if not exists:
        raise DataError(f"no data {name!r}: {remedy}")
    if not is_file:
        raise DataError(f"{name}: no regular file, but a folder, pipe or device; {remedy}")
    return path


def _load_named(
    name: str, split: str, data_dir: str | Path | None, clip: tuple[float, float], limits: Limits
) -> Dataset:
    try:
        inputs, labels = _read(name, split, data_dir, limits)
    except OSError as error:
        raise DataError(f"{name}: its files cannot be read: {error}; name another folder with --data-dir") from error
    dataset = Dataset(name, inputs, labels, clip, f"scaled to [0, 1], {clip_words(clip)}")
    check_labels(dataset, _CLASSES)
    return dataset


def _read(name: str, split: str, data_dir: str | Path | None, limits: Limits) -> tuple[Inputs, Labels]:
    """Return the scaled inputs and the labels."""
    if name == "digits":
        return read_digits(split)
    if name == "cifar10":
        return read_cifar10(split, data_dir, limits)
    return read_mnist(name, split, data_dir, limits)
