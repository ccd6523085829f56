"""Parts of a box that wait to be bounded, in lists of several side by side."""

from __future__ import annotations

from typing import Protocol, Self, TypeVar


class PartsSideBySide(Protocol):
    """Several parts: how many, some of them, several such side by side."""

    def __len__(self) -> int: ...
    def __getitem__(self, parts: slice, /) -> Self: ...
    @classmethod
    def joined(cls, parts: list[Self]) -> Self:
        """Return parts side by side."""
        ...


Parts = TypeVar("Parts", bound=PartsSideBySide)


def taken(waiting: list[Parts], count: int) -> Parts:
    """Return up to so many parts, the last ones, of lists of parts that wait, of which there are, and take them off."""
    found: list[Parts] = []
    while waiting and count > 0:
        last = waiting.pop()
        if len(last) > count:
            waiting.append(last[:-count])
            last = last[-count:]
        found.append(last)
        count -= len(last)
    return type(found[0]).joined(found)
