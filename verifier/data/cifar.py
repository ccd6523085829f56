"""CIFAR-10 (A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009).

Read from the binary version, rows of one label byte and 3 x 32 x 32 pixel bytes, or else from `.npz` files with the
uint8 arrays `images` `(n, 32, 32, 3)` and `labels` `(n,)`: `test*.npz` or `train_*.npz`, joined in the order of their
names. The Python version is a pickle, which can run code when opened, so it is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from encoders.limits import Limits
from verifier.data.archive import check_file, read_npz
from verifier.data.dataset import Inputs
from verifier.data.error import DataError
from verifier.data.folders import cache_folder, download, folders_to_search, scale_bytes
from verifier.data.labels import Labels

_ADDRESS = "https://www.cs.toronto.edu/~kriz/"
_MD5 = {"cifar-10-binary.tar.gz": "c32a1d4ab5d03f1284b67883e8d87530"}
_FOLDER = "cifar-10-batches-bin"
_BINARY = {"test": ["test_batch.bin"], "train": [f"data_batch_{k}.bin" for k in range(1, 6)]}
_NPZ = {"test": "test*.npz", "train": "train_*.npz"}
_PICKLED = ["test_batch", *(f"data_batch_{k}" for k in range(1, 6))]
_ROW = 1 + 3 * 32 * 32

Bytes = NDArray[np.uint8]
Reader = Callable[[Path, Limits], tuple[Bytes, Bytes]]


def read_cifar10(split: str, data_dir: str | Path | None, limits: Limits | None = None) -> tuple[Inputs, Labels]:
    """Return inputs `(n, 3, 32, 32)` in [0, 1], channels red, green, blue, and labels; downloaded if need be."""
    limits = limits or Limits()
    reader, files = _locate(split, data_dir)
    batches: list[tuple[Bytes, Bytes]] = []
    size = 0
    for file in files:
        batches.append(reader(file, limits))
        size += 4 * batches[-1][0].size
        limits.check("data_bytes", size, f"{file} and the files before it, in float32,")
    images = np.concatenate([images for images, _ in batches])
    return scale_bytes(images), np.concatenate([labels for _, labels in batches]).astype(np.int64)


def _read_binary(path: Path, limits: Limits) -> tuple[Bytes, Bytes]:
    """Return the images `(n, 3, 32, 32)` and labels of one binary batch."""
    limits.check("data_bytes", 4 * check_file(path), f"{path}, in float32,")
    try:
        content = np.frombuffer(path.read_bytes(), np.uint8)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error}") from error
    if content.size == 0 or content.size % _ROW:
        raise DataError(f"{path}: {content.size} bytes are not one or more rows of {_ROW}; the file is damaged")
    rows = content.reshape(-1, _ROW)
    return rows[:, 1:].reshape(-1, 3, 32, 32), rows[:, 0]


def _read_arrays(path: Path, limits: Limits) -> tuple[Bytes, Bytes]:
    """Return the images `(n, 3, 32, 32)` and labels of one `.npz` file."""
    arrays = read_npz(path, ("images", "labels"), limits=limits)
    images, labels = arrays["images"], arrays["labels"]
    count = images.shape[:1]
    for array, shape in ((images, (*count, 32, 32, 3)), (labels, count)):
        if array.dtype != np.uint8 or array.shape != shape:
            raise DataError(f"{path}: found {array.dtype} of shape {array.shape}, expected uint8 of shape {shape}")
    return images.transpose(0, 3, 1, 2), labels


def _locate(split: str, data_dir: str | Path | None) -> tuple[Reader, list[Path]]:
    """Return a reader and the files it is to read, all in the same folder."""
    folders = folders_to_search("cifar10", data_dir)
    for folder in folders:
        if found := _files(folder, split):
            return found
    _refuse_pickles(folders)
    wanted = f"{', '.join(_BINARY[split])} of the binary version"
    download("cifar10", _ADDRESS, _MD5, wanted, folders, _untar())
    found = _files(cache_folder("cifar10"), split)
    assert found is not None
    return found


def _files(folder: Path, split: str) -> tuple[Reader, list[Path]] | None:
    """Return a reader and its files in this folder, None unless all of one version are there."""
    for home in (folder / _FOLDER, folder):
        binary = [home / file for file in _BINARY[split]]
        if all(path.is_file() for path in binary):
            return _read_binary, binary
    arrays = sorted(folder.glob(_NPZ[split]))
    return (_read_arrays, arrays) if arrays else None


def _refuse_pickles(folders: list[Path]) -> None:
    homes = [home for folder in folders for home in (folder, folder / "cifar-10-batches-py")]
    pickled = [str(home / file) for home in homes for file in _PICKLED if (home / file).is_file()]
    if pickled:
        raise DataError(
            f"cifar10: {', '.join(pickled)} are pickles, which are never opened; use the binary version, "
            f"{_ADDRESS}{next(iter(_MD5))}"
        )


def _untar() -> object:
    """Return what unpacks the download into the cache."""
    import pooch

    members = [f"{_FOLDER}/{file}" for files in _BINARY.values() for file in files]
    return pooch.Untar(members=members, extract_dir=".")
