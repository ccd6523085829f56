"""What is said about inputs: proofs, witnesses, and why the rest stays open."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from verifier.certificates.certificate import Certificate


@dataclass(frozen=True, eq=False)
class Witness:
    """A counterexample that was replayed: the point in the model's dtype and its distance, rounded up.

    tie: the user's model gave the reference class and another the same value.
    """

    point: Tensor
    distance: float
    tie: bool


@dataclass(frozen=True, eq=False)
class Decision:
    """What a method says about a batch of regions.

    certified: mask `(batch,)` of proofs. witnesses: by row, only replayed ones. execution_only: by row, the distance
    of a point that is unsafe in the user's model but not provably so in real arithmetic. reasons: by row, why an input
    stays open, where the method knows more than that it failed. certificates: by row, of proofs that left one.
    open_units: by row, how many units (for `milp` binaries) the boxes of the ball left open, where that was counted.
    """

    certified: Tensor
    witnesses: dict[int, Witness] = field(default_factory=dict)
    execution_only: dict[int, float] = field(default_factory=dict)
    reasons: dict[int, str] = field(default_factory=dict)
    certificates: dict[int, Certificate] = field(default_factory=dict)
    open_units: dict[int, int] = field(default_factory=dict)

    def take(self, row: int, other: Decision) -> None:
        """Take in a decision about one input as that of the given row."""
        self.certified[row] |= other.certified[0]
        if 0 in other.witnesses:
            self.witnesses[row] = other.witnesses[0]
        if 0 in other.execution_only:
            self.execution_only[row] = other.execution_only[0]
        if 0 in other.reasons:
            self.reasons[row] = other.reasons[0]
        if 0 in other.certificates:
            self.certificates[row] = other.certificates[0]
        if 0 in other.open_units:
            self.open_units[row] = other.open_units[0]
