"""What is known about an input: a bracket around its robust radius, and how strongly each end is known."""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass, replace


class Telling(enum.IntEnum):
    """How much a reason says: that a limit was met, how far a search is, or what no more time settles."""

    LIMIT = 0
    STANDING = 1
    FINAL = 2


class Strength(enum.StrEnum):
    """How far a proof can be trusted, that of its weakest link."""

    CHECKED = "checked"  # rigorous arithmetic, anyone can run it again
    COMPUTED = "computed"  # float64, not directed
    TRUSTED = "trusted"  # the word of a floating-point solver


class Outcome(enum.StrEnum):
    """The three words for an input at a radius (closed ball, real arithmetic on the stored weights).

    certified: nothing unsafe lies within; falsified: a replayed witness does; open: neither was shown.
    """

    CERTIFIED = "certified"
    FALSIFIED = "falsified"
    OPEN = "open"


class Verdict(enum.StrEnum):
    """The words of VNN-COMP. Of several boxes the verdict that comes last here counts for all."""

    UNSAT = "unsat"  # proved: no counterexample exists
    UNKNOWN = "unknown"
    TIMEOUT = "timeout"
    SAT = "sat"  # a counterexample exists


@dataclass(frozen=True)
class Bracket:
    """An interval around the robust radius rho, the distance to the nearest input of another class (or a tie).

    lower: nothing unsafe lies within this closed radius; -1 where not even the input itself is known to be safe,
    infinity where the whole domain is proved safe.
    upper: distance of a replayed witness, rounded up; infinity where none is known.
    lower_method, upper_method: the names of the methods that the ends come from; empty where there is none.
    strength: of the proof of `lower`, never TRUSTED.
    trusted: the largest radius, above `lower`, for which only a solver vouches, -1 if none: it proves nothing.
    trusted_method: the name of that method.

    All radii are in the units of the network's raw input, in the norm of the question. Raises ValueError on
    lower >= upper, which would be a contradiction; a witness within `trusted` refutes the solver alone, and cuts that
    end down.
    """

    lower: float = -1.0
    upper: float = math.inf
    lower_method: str = ""
    upper_method: str = ""
    strength: Strength = Strength.CHECKED
    trusted: float = -1.0
    trusted_method: str = ""

    def __post_init__(self) -> None:
        if math.isnan(self.lower) or math.isnan(self.upper) or math.isnan(self.trusted):
            raise ValueError("a bracket's end is NaN")
        if self.strength is Strength.TRUSTED:
            raise ValueError("a lower end is a proof; what only a solver vouches for is the end `trusted`")
        if self.lower >= self.upper and not self.lower == self.upper == math.inf:
            raise ValueError(
                f"contradiction: {self.lower_method or 'a proof'} says nothing unsafe within {self.lower!r}, "
                f"{self.upper_method or 'a witness'} found an unsafe input at {self.upper!r}"
            )
        if self.trusted >= self.upper and not self.trusted == self.upper == math.inf:
            raise ValueError(f"the trusted end {self.trusted!r} is not below the witness at {self.upper!r}")

    def raise_lower(self, radius: float, method: str, strength: Strength) -> Bracket:
        """Return the bracket after a proof that the closed ball of this radius is safe.

        One that is TRUSTED moves `trusted` alone, and not beyond a witness.
        """
        if strength is Strength.TRUSTED:
            vouched = _short_of(radius, self.upper)
            if vouched < 0.0 or vouched <= max(self.lower, self.trusted):
                return self
            return replace(self, trusted=vouched, trusted_method=method)
        if radius <= self.lower:
            return self
        trusted = (self.trusted, self.trusted_method) if self.trusted > radius else (-1.0, "")
        return Bracket(radius, self.upper, method, self.upper_method, strength, *trusted)

    def lower_upper(self, radius: float, method: str) -> Bracket:
        """Return the bracket after a replayed witness at this distance (rounded up)."""
        if radius >= self.upper:
            return self
        vouched = _short_of(self.trusted, radius)
        if vouched <= self.lower or vouched < 0.0:
            return replace(self, upper=radius, upper_method=method, trusted=-1.0, trusted_method="")
        return replace(self, upper=radius, upper_method=method, trusted=vouched)

    def merge(self, other: Bracket) -> Bracket:
        """Return the intersection of both; an end that is equal in both keeps this one's name."""
        merged = self.lower_upper(other.upper, other.upper_method)
        merged = merged.raise_lower(other.lower, other.lower_method, other.strength)
        return merged.raise_lower(other.trusted, other.trusted_method, Strength.TRUSTED)

    def refutation(self, other: Bracket) -> tuple[str, str] | None:
        """Return the (prover, finder) of a trusted end in one that the witness of the other cuts down, if it does."""
        for trusting, finding in ((self, other), (other, self)):
            if finding.upper <= trusting.trusted and finding.upper < math.inf:
                return trusting.trusted_method, finding.upper_method
        return None

    def at(self, epsilon: float) -> Outcome:
        """Return what the bracket says about the closed ball of radius epsilon; a solver's word is not asked."""
        if self.lower >= epsilon:
            return Outcome.CERTIFIED
        return Outcome.FALSIFIED if self.upper <= epsilon else Outcome.OPEN

    def only_trusted_at(self, epsilon: float) -> bool:
        """Return whether the closed ball of radius epsilon is open but for a solver that says it is safe."""
        return self.lower < epsilon <= self.trusted


def _short_of(radius: float, witness: float) -> float:
    """Return a radius, cut down below the distance of a witness."""
    return radius if radius < witness or math.isinf(witness) else math.nextafter(witness, -math.inf)
