"""Searches about one region that stages of a portfolio leave, for later ones to go on with."""

from __future__ import annotations

from typing import TypeVar

Search = TypeVar("Search")


class Paused:
    """What earlier stages left of one question, by name; it lives as long as one call of a portfolio.

    Whoever goes on with a search takes it out and keeps it once it has stopped by itself: one that an exception or a
    signal ended in between may have lost a part that is not proved, and is never gone on with.
    """

    def __init__(self) -> None:
        self._searches: dict[str, object] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._searches

    def take(self, name: str, kind: type[Search]) -> Search | None:
        """Return the search of a name and forget it; None where there is none of this kind."""
        search = self._searches.pop(name, None)
        return search if isinstance(search, kind) else None

    def keep(self, name: str, search: object) -> None:
        """Keep a search that has stopped by itself."""
        self._searches[name] = search
