"""Decompression of gzip files that stops in time."""

import gzip
import io
import zlib
from pathlib import Path

from encoders.limits import Limits

# A compressed file may unpack to so many times its size: weights compress a few times, networks of mostly zeros (those
# of the TLL benchmark) up to 290 times, nothing but zeros 1,032 times.
LARGEST_RATIO = 400


def decompress(path: Path, content: bytes, limits: Limits, what: str, refusal: type[ValueError]) -> bytes:
    """Return the content of a gzip file of one or more members; stop as soon as it is too large.

    what: the file's kind. Raises `refusal` for a damaged file, and LimitError for one that unpacks to too much.
    """
    allowed = min(limits.member_bytes, max(limits.expanded_bytes, LARGEST_RATIO * len(content)))
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(content)) as file:
            unpacked = file.read(allowed + 1)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise refusal(f"{path}: the compressed file is damaged: {error}") from None
    if len(unpacked) > allowed:
        stated = f"the {what}, which unpacks to more than {allowed:,} bytes,"
        # The last four bytes of a gzip file state its size; a false one only spoils the advice.
        asked = max(len(unpacked), int.from_bytes(content[-4:], "little"))
        limits.check("member_bytes", asked, stated)
        limits.check("expanded_bytes", asked, stated)
    return unpacked
