"""One `.npy` array from a stream that may be hostile: the header is matched, not evaluated, and compared with the size.

Format: the magic, a version, the length of the header, and a header that is written as a Python dictionary with the
keys descr, fortran_order and shape (NumPy enhancement proposal 1). NumPy gives that text to Python's parser; a pattern
serves all arrays of plain numbers, and neither warns of nor nests what it does not know.
"""

from __future__ import annotations

import math
import re
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

MAGIC = b"\x93NUMPY"
# NumPy's own limit for headers that it is not told to trust.
_HEADER_BYTES = 10_000
# Bytes of the header's length in each version; version 3 is for names of fields beyond Latin-1.
_LENGTH_BYTES = {(1, 0): 2, (2, 0): 4}
_ENTRY = re.compile(
    r"""\s*['"](descr|fortran_order|shape)['"]\s*:\s*(?:['"]([^'"]{1,20})['"]|(True|False)|\(([\d\sL,]*)\))\s*(,|\Z)"""
)
_DTYPE = re.compile(r"[<>=|]?[?biufcmMOSUV]\d*(\[\w+\])?|(u?int|float)(8|16|32|64)", re.ASCII)
_CHUNK = 2**20


def read_npy(file: IO[bytes], size: int) -> NDArray[Any] | None:
    """Return the array of a stream of this many bytes, None if it is no `.npy`.

    Raises ValueError unless the header is plain and claims exactly the bytes that follow it, before it allocates them.
    """
    if file.read(len(MAGIC)) != MAGIC:
        return None
    major, minor = _exactly(file, 2)
    if (major, minor) not in _LENGTH_BYTES:
        raise ValueError(f".npy version {major}.{minor}, which arrays of plain numbers never need")
    length_bytes = _LENGTH_BYTES[major, minor]
    length = int.from_bytes(_exactly(file, length_bytes), "little")
    if length > _HEADER_BYTES:
        raise ValueError(f"a header of {length} bytes, more than {_HEADER_BYTES}")
    dtype, fortran, shape = _parsed(_exactly(file, length).decode("latin1"))
    claimed, held = math.prod(shape) * dtype.itemsize, size - len(MAGIC) - 2 - length_bytes - length
    if claimed != held:
        raise ValueError(f"the header claims {claimed} bytes for the shape {shape} of {dtype}, but {held} follow it")
    values = np.empty(math.prod(shape), dtype)
    target = values.view(np.uint8).data
    for start in range(0, claimed, _CHUNK):
        stop = min(start + _CHUNK, claimed)
        target[start:stop] = _exactly(file, stop - start)
    if dtype.kind == "b" and claimed and int(values.view(np.uint8).max()) > 1:
        raise ValueError("booleans that are neither 0 nor 1")
    return values.reshape(shape, order="F" if fortran else "C")


def _parsed(header: str) -> tuple[np.dtype[Any], bool, tuple[int, ...]]:
    """Return the dtype, whether the first axis varies fastest, and the shape; ValueError for all but plain headers."""
    text, entries = header.strip(), dict[str, re.Match[str]]()
    inside, position = text[1:-1].rstrip(), 0
    while position < len(inside) and (entry := _ENTRY.match(inside, position)):
        entries[entry[1]], position = entry, entry.end()
    kinds = {"descr": 2, "fortran_order": 3, "shape": 4}
    plain = text[:1] + text[-1:] == "{}" and position == len(inside) and len(entries) == 3
    if not plain or any(entries[key][group] is None for key, group in kinds.items()):
        raise ValueError(f"the header {header[:60]!r} is not that of an array of plain numbers")
    shown = entries["descr"][2]
    dtype = np.dtype(shown) if _DTYPE.fullmatch(shown) else None
    if dtype is None or dtype.hasobject or dtype.itemsize == 0:
        raise ValueError(f"the dtype {shown!r} holds no plain numbers (pickled objects are never opened)")
    return dtype, entries["fortran_order"][3] == "True", _sizes(entries["shape"][4])


def _sizes(text: str) -> tuple[int, ...]:
    """Return the sizes of a shape written as a tuple without its brackets; Python 2 wrote an L behind them."""
    parts = [part.strip().removesuffix("L") for part in text.split(",")]
    if parts[-1] == "":
        parts.pop()
    elif len(parts) == 1:
        raise ValueError(f"the shape ({text[:60]}) is no tuple")
    # 19 digits hold every size that NumPy knows.
    if len(parts) > 64 or any(not (part.isascii() and part.isdecimal() and len(part) <= 19) for part in parts):
        raise ValueError(f"the shape ({text[:60]}) is not one of at most 64 sizes")
    return tuple(int(part) for part in parts)


def _exactly(file: IO[bytes], count: int) -> bytes:
    """Return the next bytes of the stream; ValueError if there are fewer."""
    content = file.read(count)
    if len(content) != count:
        raise ValueError(f"it ends {count - len(content)} bytes early")
    return content
