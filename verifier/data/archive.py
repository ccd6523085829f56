"""Arrays of `.npz` files that may be damaged or hostile: everything a file claims is checked before it is allocated.

A `.npz` is a zip archive of `.npy` files. A kilobyte of it can claim an array of 2^60 elements, or unpack to
gigabytes. So sizes are compared with limits (the one place is `encoders.limits`), a header with the bytes its member
has, and content that grows more than a hundredfold with `expanded_bytes`. Only stored and deflated members are read,
which is all that numpy writes; Python's reader of the other methods unpacks whole blocks at once, whatever is asked.
"""

from __future__ import annotations

import stat
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from encoders.limits import LimitError, Limits
from verifier.data.error import DataError
from verifier.data.npy import MAGIC, read_npy

# Images of few values shrink some 50 times; deflate reaches 1,032 times on zeros.
_GROWTH = 100
_METHODS = {zipfile.ZIP_STORED: "stored", zipfile.ZIP_DEFLATED: "deflated"}


def check_file(path: Path) -> int:
    """Return the size of a regular file in bytes; raise DataError for folders, pipes, devices and what is absent."""
    try:
        status = path.stat()
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read: {error}") from error
    if not stat.S_ISREG(status.st_mode):
        raise DataError(f"{path}: no regular file, but a folder, pipe or device; name a file")
    return status.st_size


def check_growth(path: Path, what: str, claimed: int, limits: Limits) -> None:
    """Raise LimitError if this content of a file is larger than limits allow and grows as data do not."""
    if claimed > _GROWTH * check_file(path):
        limits.check("expanded_bytes", claimed, f"{path}: {what}, packed more than {_GROWTH} times smaller,")


def read_npz(
    path: Path, required: Sequence[str], optional: Sequence[str] = (), limits: Limits | None = None
) -> dict[str, NDArray[Any]]:
    """Return the required arrays of a `.npz` file by name, and the optional ones that it has; nothing is unpickled.

    Raises DataError if the file is damaged, if one of these arrays holds pickled objects or a required one is missing,
    and LimitError if it asks for more than the limits allow.
    """
    limits = limits or Limits()
    check_file(path)
    try:
        with path.open("rb") as file:
            if file.read(len(MAGIC)) == MAGIC:
                raise DataError(f"{path}: holds a single array; save it with np.savez(file, x=..., y=...)")
            with zipfile.ZipFile(file) as archive:
                return _read_members(path, archive, required, optional, limits)
    except (DataError, LimitError):
        raise
    # What zipfile and zlib throw at damaged content is no closed list: RuntimeError and NotImplementedError for
    # encryption, struct.error and OverflowError for tables of contents, EOFError, MemoryError and others.
    except Exception as error:
        raise DataError(
            f"{path}: cannot be read as a .npz of plain arrays: {str(error) or type(error).__name__}; write it again "
            f"with np.savez(file, x=..., y=...)"
        ) from error


def _read_members(
    path: Path, archive: zipfile.ZipFile, required: Sequence[str], optional: Sequence[str], limits: Limits
) -> dict[str, NDArray[Any]]:
    """Return the arrays that are there; DataError for a required one that is not."""
    members = {key: member for key in (*required, *optional) if (member := _member(path, archive, key))}
    total = sum(member.file_size for member in members.values())
    for member in members.values():
        _check_member(path, member, limits)
    limits.check("data_bytes", total, f"{path}: {', '.join(members)} together")
    check_growth(path, " and ".join(members), total, limits)
    arrays = {key: array for key, member in members.items() if (array := _read_member(archive, member)) is not None}
    missing = [key for key in required if key not in arrays]
    if missing:
        held = sorted(name.removesuffix(".npy") for name in archive.namelist())
        shown = ", ".join(map(_printable, held[:20])) + (f" and {len(held) - 20} more" if len(held) > 20 else "")
        raise DataError(f"{path}: no array {', '.join(missing)}; it holds {shown or 'nothing'}")
    return arrays


def _printable(name: str) -> str:
    """Return the name for an error: short, and without the control characters that a terminal would obey."""
    return name[:40] if name.isprintable() else ascii(name[:40])


def _member(path: Path, archive: zipfile.ZipFile, key: str) -> zipfile.ZipInfo | None:
    """Return the only member that numpy would call so; DataError where two are."""
    members = [member for member in archive.infolist() if member.filename in (key, f"{key}.npy")]
    if len(members) > 1:
        raise DataError(f"{path}: holds {len(members)} arrays named {key}, and only one can be meant; write it again")
    return members[0] if members else None


def _check_member(path: Path, member: zipfile.ZipInfo, limits: Limits) -> None:
    """Raise DataError or LimitError for a member that is not read, by what the table of contents says of it."""
    name = member.filename
    if member.flag_bits & 1:
        raise DataError(f"{path}: cannot be read as a .npz of plain arrays: {name} is encrypted")
    if member.compress_type not in _METHODS:
        method = zipfile.compressor_names.get(member.compress_type, str(member.compress_type))  # type: ignore[attr-defined]
        raise DataError(
            f"{path}: cannot be read as a .npz of plain arrays: {name} is packed with the method {method}, which numpy "
            f"never writes; write it again with np.savez_compressed(file, x=..., y=...)"
        )
    if member.compress_type == zipfile.ZIP_STORED and member.file_size != member.compress_size:
        raise DataError(
            f"{path}: cannot be read as a .npz of plain arrays: {name} is stored in {member.compress_size} bytes and "
            f"claims {member.file_size}"
        )
    limits.check("member_bytes", member.file_size, f"{path}: {name}")


def _read_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> NDArray[Any] | None:
    """Return the array of a member, None if it is no `.npy`; ValueError if it is damaged."""
    with archive.open(member) as file:
        try:
            return read_npy(file, member.file_size)
        except ValueError as error:
            raise ValueError(f"{member.filename}: {error}") from error
