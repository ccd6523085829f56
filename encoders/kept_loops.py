"""Loops compiled by numba and kept on disk, under names that change with every file that they are made of.

By itself numba compiles again where a loop's own file has changed, not where those of the loops in it have: what is
corrected there would go on as it was.
"""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from numba import njit


def kept(pattern: str, **options: Any) -> Callable[[Callable[..., Any]], Any]:
    """Return what compiles a loop made of loops in the files of a pattern beside its own; options: of numba's njit.

    Where no folder can be written, neither beside the file nor the user's own for caches, nothing is kept.
    """

    def compiled(loop: Callable[..., Any]) -> Any:
        sources = sorted(Path(loop.__code__.co_filename).parent.glob(pattern))
        digests = b"".join(hashlib.sha256(source.read_bytes()).digest() for source in sources)
        loop.__qualname__ = f"{loop.__name__}-{hashlib.sha256(digests).hexdigest()[:16]}"
        try:
            return njit(cache=True, **options)(loop)
        except RuntimeError:
            return njit(**options)(loop)

    return compiled
