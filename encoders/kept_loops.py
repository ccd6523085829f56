"""Loops compiled by numba and kept on disk, under names that change with every file that they are made of.

By itself numba compiles again where a loop's own file has changed, not where those of the loops in it have: what is
corrected there would go on as it was.
"""

import hashlib
from collections.abc import Callable
from pathlib import Path
from types import FunctionType
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


def interpreted(loop: Any) -> Callable[..., Any]:
    """Return a compiled loop as Python runs it, and the loops that it calls by their names with it: for short work.

    Nothing is compiled, which takes some loops many seconds. Arithmetic is IEEE either way; functions of `math` are
    those of the C library, and raise where compiled ones return an infinity or NaN.
    """
    return _twin(loop, {})


def _twin(loop: Any, known: dict[Any, FunctionType]) -> FunctionType:
    function = loop.py_func
    if function not in known:
        scope = dict(function.__globals__)
        known[function] = twin = FunctionType(function.__code__, scope, function.__name__, function.__defaults__)
        for name in twin.__code__.co_names:
            if hasattr(scope.get(name), "py_func"):
                scope[name] = _twin(scope[name], known)
    return known[function]
