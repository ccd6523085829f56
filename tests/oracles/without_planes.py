"""Searches over signs with lines above hinges alone, so that what planes would spare them is still done."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from verifier.bounds.split import plane_search


@contextmanager
def without_planes() -> Iterator[pytest.MonkeyPatch]:
    """Let searches find no planes; more may be patched."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plane_search, "MOST_WORK", 0)
        yield patch
