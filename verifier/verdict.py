"""What is known about an input: a bracket around its robust radius, and how strongly each end is known."""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass, replace


class Strength(enum.StrEnum):
    """How far a proof can be trusted, that of its weakest link."""

    CHECKED = "checked"  # rigorous arithmetic, anyone can run it again
    COMPUTED = "computed"  # float64, not directed
    TRUSTED = "trusted"  # the word of a floating-point solver


class Outcome(enum.StrEnum):
    """The three words for an input at a radius."""

    CERTIFIED = "certified"
    FALSIFIED = "falsified"
    OPEN = "open"


@dataclass(frozen=True)
class Bracket:
    """An interval around the robust radius rho, the distance to the nearest input of another class (or a tie).

    lower: nothing unsafe lies within this closed radius; -1 where not even the input itself is known to be safe,
    infinity where the whole domain is proved safe. upper: distance of a replayed witness, rounded up; infinity
    where none is known. Raises ValueError on lower >= upper, which would be a contradiction.
    """

    lower: float = -1.0
    upper: float = math.inf
    lower_method: str = ""
    upper_method: str = ""
    strength: Strength = Strength.CHECKED

    def __post_init__(self) -> None:
        if math.isnan(self.lower) or math.isnan(self.upper):
            raise ValueError("a bracket's end is NaN")
        if self.lower >= self.upper and not self.lower == self.upper == math.inf:
            raise ValueError(
                f"contradiction: {self.lower_method or 'a proof'} says nothing unsafe within {self.lower!r}, "
                f"{self.upper_method or 'a witness'} found an unsafe input at {self.upper!r}"
            )

    def raise_lower(self, radius: float, method: str, strength: Strength) -> Bracket:
        """Return the bracket after a proof that the closed ball of this radius is safe."""
        if radius <= self.lower:
            return self
        return replace(self, lower=radius, lower_method=method, strength=strength)

    def lower_upper(self, radius: float, method: str) -> Bracket:
        """Return the bracket after a replayed witness at this distance (rounded up)."""
        return self if radius >= self.upper else replace(self, upper=radius, upper_method=method)

    def at(self, epsilon: float) -> Outcome:
        """Return what the bracket says about the closed ball of radius epsilon."""
        if self.lower >= epsilon:
            return Outcome.CERTIFIED
        return Outcome.FALSIFIED if self.upper <= epsilon else Outcome.OPEN
