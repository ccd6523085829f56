"""Where the files of named data are looked for, and how they are fetched when they are nowhere.

The first of these folders that holds all the files wins; a subfolder with the data's name goes before its parent,
since MNIST and Fashion-MNIST name their files alike:

    data_dir/<name>, data_dir, $VERIFIER_DATA_DIR/<name>, $VERIFIER_DATA_DIR, <user cache>/<name>
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from verifier.data.dataset import Inputs
from verifier.data.error import DataError

VARIABLE = "VERIFIER_DATA_DIR"


def cache_folder(name: str) -> Path:
    """Return the folder of the user's cache that downloads of this name go to; it need not exist."""
    import pooch

    return Path(pooch.os_cache("robustness-verifier")) / name


def folders_to_search(name: str, data_dir: str | Path | None) -> list[Path]:
    """Return the folders to look into, best first. Raises DataError if a folder the user named is none."""
    folders = []
    for origin, given in (("data_dir", data_dir), (VARIABLE, os.environ.get(VARIABLE) or None)):
        if given is None:
            continue
        try:
            folder = Path(given).expanduser()
            is_folder = folder.is_dir()
        # TypeError: no path at all. RuntimeError: no such home folder. OSError: too long, or not permitted.
        except (TypeError, RuntimeError, OSError) as error:
            raise DataError(f"{name}: {origin} {given!r} is not a folder ({error})") from error
        if not is_folder:
            raise DataError(f"{name}: {origin} {folder} is not a folder")
        folders += [folder / name, folder]
    return [*folders, cache_folder(name)]


def download(
    name: str, address: str, md5: dict[str, str], wanted: str, searched: Sequence[Path], processor: Any = None
) -> None:
    """Return once the files of md5 (file name to checksum) lie in the cache, each checked against its MD5.

    wanted says which files a person may provide instead. Raises DataError, with that, if a download fails.
    """
    import pooch

    try:
        for file, checksum in md5.items():
            pooch.retrieve(address + file, f"md5:{checksum}", fname=file, path=cache_folder(name), processor=processor)
    # OSError covers requests' exceptions and the disk; ValueError is pooch's wrong checksum.
    except (OSError, ValueError) as error:
        raise DataError(
            f"{name}: found in none of {', '.join(map(str, searched))}, and the download from {address} failed "
            f"({type(error).__name__}: {error}). Put {wanted} into one folder and name it with --data-dir "
            f"(data_dir in Python) or {VARIABLE}"
        ) from error


def scale_bytes(pixels: NDArray[np.uint8]) -> Inputs:
    """Return pixels / 255 in float32: the quotient in float64, rounded, which equals float32(k) / float32(255)."""
    return (np.arange(256) / 255.0).astype(np.float32)[np.ascontiguousarray(pixels)]
