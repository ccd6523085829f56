"""What the stages of several methods took in all, and what came of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

from verifier.answers import Spent


@dataclasses.dataclass(frozen=True)
class StageTotal:
    """Of a stage: the inputs that it worked on, its seconds, and for how many an end of the bracket moved.

    proved, found: the lower and the upper end.
    """

    stage: str
    inputs: int
    seconds: float
    proved: int
    found: int


def totals(spendings: Iterable[Sequence[Spent]]) -> tuple[StageTotal, ...]:
    """Return the totals over inputs, in the order in which stages first worked; one that came again counts once."""
    held: dict[str, list[list[Spent]]] = {}
    for spending in spendings:
        mine: dict[str, list[Spent]] = {}
        for spent in spending:
            mine.setdefault(spent.stage, []).append(spent)
        for stage, turns in mine.items():
            held.setdefault(stage, []).append(turns)
    return tuple(
        StageTotal(
            stage,
            len(inputs),
            sum(spent.seconds for turns in inputs for spent in turns),
            sum(any(spent.outcome in ("proved", "both") for spent in turns) for turns in inputs),
            sum(any(spent.outcome in ("found", "both") for spent in turns) for turns in inputs),
        )
        for stage, inputs in held.items()
    )


def summed(parts: Iterable[Sequence[StageTotal]]) -> tuple[StageTotal, ...]:
    """Return the totals over several parts, none of whose inputs are in another."""
    held: dict[str, StageTotal] = {}
    for part in parts:
        for total in part:
            known = held.get(total.stage)
            if known is not None:
                numbers = {
                    name: getattr(known, name) + getattr(total, name)
                    for name in ("inputs", "seconds", "proved", "found")
                }
                total = StageTotal(total.stage, **numbers)
            held[total.stage] = total
    return tuple(held.values())
