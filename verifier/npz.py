"""Arrays of a .npz file that somebody else may have written: nothing is unpickled, and sizes are checked first.

A few kilobytes can unpack to terabytes, or hold a header that claims them. Every header is read before its data, must
agree with the length of its member, and all members together stay within a limit that grows with the file.
"""

from __future__ import annotations

import io
import math
import tokenize
import zipfile
import zlib
from pathlib import Path

import numpy as np

from encoders.limits import LimitError, Limits

# A file may unpack to this much, or to so many times its own length, whichever is more. Zeros shrink to a thousandth;
# arrays of slopes, most of them 0 or 1, to a fiftieth.
UNPACKED, RATIO = 1 << 28, 256
# Kinds of numbers: booleans, signed and unsigned integers, floats.
KINDS = "biuf"


class ArrayFileError(ValueError):
    """A file holds no plain arrays of numbers, or more than may be read."""


def read_npz_file(path: Path, limits: Limits | None = None) -> dict[str, np.ndarray]:
    """Return the arrays of a regular file by name; ArrayFileError says what is wrong with it, without its name."""
    try:
        if not path.is_file():
            raise ArrayFileError("there is no such file")
        (limits or Limits()).check("member_bytes", path.stat().st_size, "it")
        return read_npz(path.read_bytes(), limits)
    except (OSError, LimitError) as error:
        raise ArrayFileError(str(error)) from None


def read_npz(content: bytes, limits: Limits | None = None) -> dict[str, np.ndarray]:
    """Return the arrays of an archive by name. Raises ArrayFileError."""
    most = min(max(UNPACKED, RATIO * len(content)), (limits or Limits()).member_bytes)
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = archive.infolist()
            total = sum(member.file_size for member in members)
            if total > most:
                raise ArrayFileError(f"it unpacks to {total:,} bytes, more than {most:,}")
            if len({member.filename.removesuffix(".npy") for member in members}) < len(members):
                raise ArrayFileError("it holds two arrays of one name")
            return {member.filename.removesuffix(".npy"): _array(archive, member) for member in members}
    # RuntimeError: encrypted members, and nesting that is too deep; NotImplementedError: compression that is unknown.
    except (OSError, EOFError, MemoryError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise ArrayFileError(f"it is no archive of arrays: {type(error).__name__} {error}") from None


def _array(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    """Return one array, once its header agrees with its length."""
    try:
        with archive.open(member) as file:
            version = np.lib.format.read_magic(file)
            if version not in ((1, 0), (2, 0)):
                raise ArrayFileError(f"{member.filename} is of version {version} of the format")
            read = {1: np.lib.format.read_array_header_1_0, 2: np.lib.format.read_array_header_2_0}[version[0]]
            shape, by_column, dtype = read(file)
            if dtype.kind not in KINDS or min(shape, default=0) < 0:
                raise ArrayFileError(f"{member.filename} holds {dtype} in shape {shape}, not real numbers")
            claimed = math.prod(shape) * dtype.itemsize
            if claimed != member.file_size - file.tell():
                raise ArrayFileError(f"{member.filename} claims {claimed:,} bytes and holds {member.file_size:,}")
            data = np.frombuffer(file.read(), dtype=dtype)
    # The header is parsed as Python, by numpy: its tokens need not end.
    except (ValueError, SyntaxError, tokenize.TokenError) as error:
        raise ArrayFileError(f"{member.filename} is no array: {error}") from None
    return data.reshape(shape, order="F" if by_column else "C").copy()
