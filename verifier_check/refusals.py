"""What is said of a claim that does not hold, and of one that is not decided; what malformed bytes raise."""

from __future__ import annotations

import struct
import zipfile
import zlib

# What bytes that are not what they should be raise.
# RuntimeError: encrypted members of an archive, nesting that is too deep, compression that is unknown. ArithmeticError:
# numbers beyond the floats, strides of zero.
MALFORMED = (KeyError, TypeError, ValueError, IndexError, ArithmeticError, AttributeError, RuntimeError, OSError,
              EOFError, struct.error, zipfile.BadZipFile, zlib.error)  # fmt: skip


class Refused(Exception):
    """What is claimed is not proved."""


class Undecided(Exception):
    """What is claimed needs something that is not supported here, or more time or memory than there is."""


# What says nothing of a claim.
UNDECIDED = (Undecided, MemoryError)


def why(error: BaseException) -> str:
    """Return why a claim is not decided."""
    return "it needs more memory than there is" if isinstance(error, MemoryError) else str(error)
