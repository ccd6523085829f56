"""Parts of the inputs: batches, and the part i of n for machines that share nothing, of whole units.

Batches begin at multiples of their size, so that every part has those of the whole, and answers stay the same.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Shard:
    """The part `number` (from 1) of `parts`, as it is written: 2/5."""

    number: int
    parts: int

    def __str__(self) -> str:
        return f"{self.number}/{self.parts}"

    @classmethod
    def read(cls, text: str | None) -> Shard | None:
        """Return the shard that a text names; None of None. ValueError with what is supported."""
        if text is None:
            return None
        found = re.fullmatch(r"(\d{1,9})/(\d{1,9})", str(text))
        if found is None or not 1 <= int(found[1]) <= int(found[2]):
            raise ValueError(f"--shard takes i/n, the part i of n, counted from 1: 1/4, 2/4, 3/4, 4/4; got {text!r}")
        return cls(int(found[1]), int(found[2]))


def batches(indices: range, size: int) -> Iterator[range]:
    """Yield the parts of the indices between multiples of the size."""
    start = indices.start
    while start < indices.stop:
        stop = min(indices.stop, (start // size + 1) * size)
        yield range(start, stop)
        start = stop


def part_of(units: Sequence[range], shard: Shard) -> range:
    """Return the inputs of a part of units that follow one another: of at most one unit more than another part has.

    Raises ValueError where there are fewer units than parts.
    """
    if len(units) < shard.parts:
        raise ValueError(
            f"--shard {shard} asks for {shard.parts} parts of whole units of work (batches; of verify properties), so "
            f"that answers are those of one run; the inputs asked about make {len(units)} "
            f"unit{'s' if len(units) > 1 else ''}: ask for at most {len(units)}"
        )
    first, last = ((len(units) * number) // shard.parts for number in (shard.number - 1, shard.number))
    return range(units[first].start, units[last - 1].stop)
