"""What is known about one input: a bracket around its robust radius, and what each of its ends rests on.

A method says what it can in answers, and `merge` brings together what several say. So a new fact about an answer is one
field, its line in `merge`, who finds it out and who reads it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from verifier.certificates.certificate import Certificate
from verifier.fields import NUMBER, REASON, TEXT, one_of, stated
from verifier.verdict import Bracket, Outcome, Strength, Telling

# The bracket of an input that nobody has looked at.
UNKNOWN = Bracket()
# What may come of a stage.
OUTCOMES = ("proved", "found", "both", "vouched", "nothing")


@dataclass(frozen=True, eq=False)
class Witness:
    """A counterexample that was replayed in the user's model and is unsafe in real arithmetic.

    point: `input_shape`, in the model's dtype, inside the domain.
    distance: from the input, in the norm of the question, rounded up.
    tie: the user's model gave the reference class and another the same value.
    """

    point: Tensor
    distance: float
    tie: bool


@dataclass(frozen=True)
class Spent:
    """What a stage of several methods took for an input, and what came of it.

    stage: a name of `--method`, or an attack's. seconds: the input's share. outcome: proved (the lower end rose), found
    (the upper end fell), both, vouched (a solver's word alone) or nothing. reason: why the stage left the input open.
    """

    stage: str = stated(TEXT)
    seconds: float = stated(NUMBER)
    outcome: str = stated(one_of(OUTCOMES))
    reason: str | None = stated(REASON, None)
    others: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Answer:
    """What is known about one input; nothing by default.

    bracket: around the robust radius.
    witness, certificate: of the bracket's upper and lower end, where they are at hand.
    execution_only: the nearest distance of a point that is unsafe in the user's model but not provably so in real
    arithmetic.
    reason: why a region was left open, the last that a method gave; only of interest where the bracket still is.
    telling: how much that says.
    open_units: how many units (for `milp` binaries) the boxes of the last ball left open, where that was counted.
    refuted: the (prover, finder) of a trusted end that a witness cut down.
    spent: what each stage took, in order, where several methods work one after the other.
    """

    bracket: Bracket = UNKNOWN
    witness: Witness | None = None
    execution_only: float | None = None
    reason: str | None = None
    certificate: Certificate | None = None
    open_units: int | None = None
    refuted: tuple[str, str] | None = None
    spent: tuple[Spent, ...] = ()
    telling: Telling = Telling.LIMIT

    @classmethod
    def proved(cls, radius: float, method: str, strength: Strength, certificate: Certificate | None = None) -> Answer:
        """Return the answer that nothing unsafe lies within a closed radius; a TRUSTED one is a solver's word alone."""
        return cls(UNKNOWN.raise_lower(radius, method, strength), certificate=certificate)

    @classmethod
    def broken(cls, witness: Witness, method: str) -> Answer:
        """Return the answer that a witness gives."""
        return cls(UNKNOWN.lower_upper(witness.distance, method), witness)

    @classmethod
    def open(
        cls,
        reason: str | None = None,
        *,
        execution_only: float | None = None,
        open_units: int | None = None,
        telling: Telling = Telling.LIMIT,
    ) -> Answer:
        """Return an answer that moves neither end."""
        return cls(reason=reason, execution_only=execution_only, open_units=open_units, telling=telling)

    def at(self, radius: float) -> Outcome:
        """Return what is proved or found about the closed ball of a radius."""
        return self.bracket.at(radius)

    def vouched_safe(self, radius: float) -> bool:
        """Return whether a proof, or the word of a solver alone, says that the closed ball of a radius is safe."""
        return max(self.bracket.lower, self.bracket.trusted) >= radius

    @property
    def distance(self) -> float:
        """The distance of the witness; infinite without one."""
        return math.inf if self.witness is None else self.witness.distance

    def merge(self, other: Answer) -> Answer:
        """Return what both say together; of two reasons or counts the other's, which is later.

        Each end is the nearer of the two with all that belongs to it, and this one's where they are equal. ValueError
        where one proves what the other breaks.
        """
        ours, theirs = self.bracket, other.bracket
        return Answer(
            ours.merge(theirs),
            other.witness if theirs.upper < ours.upper else self.witness,
            _nearest(self.execution_only, other.execution_only),
            self.reason if other.reason is None else other.reason,
            other.certificate if theirs.lower > ours.lower else self.certificate,
            self.open_units if other.open_units is None else other.open_units,
            ours.refutation(theirs) or other.refuted or self.refuted,
            self.spent + other.spent,
            self.telling if other.reason is None else other.telling,
        )

    def unproved(self) -> Answer:
        """Return the answer without what it proves, or a solver vouches for; what was found stays."""
        found = Bracket(upper=self.bracket.upper, upper_method=self.bracket.upper_method)
        return replace(self, bracket=found, certificate=None)

    def explained(self, earlier: Answer) -> Answer:
        """Return the answer with the reason of an earlier one about the same region where that says more."""
        if earlier.reason is None or (self.reason is not None and earlier.telling <= self.telling):
            return self
        return replace(self, reason=earlier.reason, telling=earlier.telling)

    def after(self, stage: str, seconds: float, before: Bracket, reason: str | None) -> Answer:
        """Return the answer with what a stage has taken; before: the bracket that it began with."""
        spent = Spent(stage, seconds, _outcome(before, self.bracket), reason)
        return replace(self, spent=(*self.spent, spent))


def merged(known: Sequence[Answer], rows: Sequence[int], fresh: Sequence[Answer]) -> list[Answer]:
    """Return what is known of a batch after answers about the given rows of it."""
    answers = list(known)
    for row, answer in zip(rows, fresh, strict=True):
        answers[row] = answers[row].merge(answer)
    return answers


def _outcome(before: Bracket, after: Bracket) -> str:
    """Return in a word how a bracket has become narrower."""
    rose, fell = after.lower > before.lower, after.upper < before.upper
    if rose and fell:
        return "both"
    if rose or fell:
        return "proved" if rose else "found"
    return "vouched" if after.trusted > before.trusted else "nothing"


def _nearest(*distances: float | None) -> float | None:
    return min((distance for distance in distances if distance is not None), default=None)
