"""MNIST and Fashion-MNIST from IDX files, plain or gzipped.

IDX: two zero bytes, the element type (8: unsigned byte), the number of dimensions, each dimension as a big-endian
uint32, then the elements in C order (Y. LeCun, C. Cortes, C. Burges, "The MNIST database of handwritten digits").
Exactly that is accepted: other types, missing and trailing bytes are refused.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import IO, cast

import numpy as np
from numpy.typing import NDArray

from encoders.limits import Limits
from verifier.data.archive import check_file, check_growth
from verifier.data.dataset import Inputs
from verifier.data.error import DataError
from verifier.data.folders import cache_folder, download, folders_to_search, scale_bytes
from verifier.data.labels import Labels

# What a byte becomes.
_FLOAT_BYTES = 4
_STEM = {"train": "train", "test": "t10k"}
_ADDRESS = {
    "mnist": "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "fashion-mnist": "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
}
_MD5 = {
    "mnist": {
        "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
        "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
        "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
        "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
    },
    "fashion-mnist": {
        "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
        "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
        "t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
    },
}


def read_mnist(
    name: str, split: str, data_dir: str | Path | None, limits: Limits | None = None
) -> tuple[Inputs, Labels]:
    """Return inputs `(n, 1, 28, 28)` in [0, 1] and labels of `mnist` or `fashion-mnist`, downloaded if need be."""
    images_path, labels_path = _locate(name, split, data_dir)
    images, labels = read_idx(images_path, 3, limits), read_idx(labels_path, 1, limits)
    if images.shape[1:] != (28, 28):
        raise DataError(f"{images_path}: images of {images.shape[1:]} pixels; expected (28, 28)")
    if len(images) != len(labels):
        raise DataError(f"{images_path}: {len(images)} images, but {labels_path} holds {len(labels)} labels")
    return scale_bytes(images)[:, np.newaxis], labels.astype(np.int64)


def read_idx(path: Path, dimensions: int, limits: Limits | None = None) -> NDArray[np.uint8]:
    """Return the unsigned bytes of an IDX file with this many dimensions. Raises DataError if it is not exactly one.

    No more is unpacked than the header claims, and LimitError is raised if that is more than the limits allow.
    """
    try:
        stored = check_file(path)
        if path.suffix == ".gz":
            with gzip.open(path) as file:
                return _read_claimed(path, cast(IO[bytes], file), dimensions, None, limits or Limits())
        with path.open("rb") as plain:
            return _read_claimed(path, plain, dimensions, stored, limits or Limits())
    except (OSError, EOFError, MemoryError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read: {error or type(error).__name__}") from error


def _read_claimed(path: Path, file: IO[bytes], dimensions: int, size: int | None, limits: Limits) -> NDArray[np.uint8]:
    """Return the bytes that the header claims; size is that of the content, where it is known before it is read."""
    start = 4 + 4 * dimensions
    header = file.read(start)
    if header[:4] != bytes((0, 0, 8, dimensions)) or len(header) < start:
        raise DataError(
            f"{path}: not an IDX file of unsigned bytes in {dimensions} dimensions: it begins with "
            f"{header[:4].hex()!r}, expected '000008{dimensions:02x}' and {dimensions} sizes"
        )
    shape = struct.unpack_from(f">{dimensions}I", header, 4)
    claimed = math.prod(shape)
    if size is not None and size - start != claimed:
        raise _wrong_length(path, size - start - claimed, shape)
    limits.check("member_bytes", claimed, f"{path}: the shape {shape}")
    limits.check("data_bytes", claimed * _FLOAT_BYTES, f"{path}: the shape {shape} in float32")
    check_growth(path, f"the shape {shape}", claimed, limits)
    content = file.read(claimed)
    missing = claimed - len(content)
    if missing or file.read(1):
        raise _wrong_length(path, -missing if missing else 1, shape)
    return np.frombuffer(content, np.uint8).reshape(shape)


def _wrong_length(path: Path, excess: int, shape: tuple[int, ...]) -> DataError:
    return DataError(f"{path}: {abs(excess)} {'trailing' if excess > 0 else 'missing'} bytes for the shape {shape}")


def _locate(name: str, split: str, data_dir: str | Path | None) -> tuple[Path, Path]:
    """Return the files of images and labels, both in the same folder."""
    folders = folders_to_search(name, data_dir)
    for folder in folders:
        if pair := _pair(folder, split):
            return pair
    md5 = {file: checksum for file, checksum in _MD5[name].items() if file.startswith(_STEM[split])}
    download(name, _ADDRESS[name], md5, f"{' and '.join(md5)} (or both without .gz)", folders)
    pair = _pair(cache_folder(name), split)
    assert pair is not None
    return pair


def _pair(folder: Path, split: str) -> tuple[Path, Path] | None:
    """Return the files of images and labels in this folder, None unless both are there."""
    paths = []
    for kind in ("images{}idx3-ubyte", "labels{}idx1-ubyte"):
        files = [f"{_STEM[split]}-{kind.format(dot)}{suffix}" for dot in "-." for suffix in ("", ".gz")]
        paths += [folder / file for file in files if (folder / file).is_file()][:1]
    return (paths[0], paths[1]) if len(paths) == 2 else None
