"""The two calls that every method answers, for a batch of inputs.

`decide`: is the ball of this radius safe? `bracket`: where does the robust radius lie? A method declares whether
it can prove, find, or both, and for which norms.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from encoders.network import Network
from encoders.region import BallRegion
from verifier.answers import Decision, Witness
from verifier.batch import BATCH_SIZE, Batch
from verifier.budget import Budget
from verifier.certificates.certificate import Certificate
from verifier.verdict import Bracket, Strength


@dataclass(eq=False)
class Findings:
    """What is known about the inputs of a batch so far; methods improve it in place.

    reasons: by row, the last reason why a region was left open; only of interest where the bracket still is.
    certificates: by row, of the proof of the bracket's lower end, where it left one. open_units: by row, of the last
    ball at which they were counted. refuted: by row, the (prover, finder) of a trusted end that a witness cut down.
    """

    brackets: list[Bracket]
    witnesses: dict[int, Witness] = field(default_factory=dict)
    execution_only: dict[int, float] = field(default_factory=dict)
    reasons: dict[int, str] = field(default_factory=dict)
    certificates: dict[int, Certificate] = field(default_factory=dict)
    open_units: dict[int, int] = field(default_factory=dict)
    refuted: dict[int, tuple[str, str]] = field(default_factory=dict)

    def add(self, rows: Sequence[int], radius: Sequence[float], decision: Decision, method: Method) -> None:
        """Take in a decision about the given rows of the batch at the given radii."""
        for position, row in enumerate(rows):
            if bool(decision.certified[position]):
                proved = self.brackets[row].raise_lower(radius[position], method.name, method.strength)
                if proved.lower > self.brackets[row].lower:
                    self.certificates.pop(row, None)
                    if position in decision.certificates:
                        self.certificates[row] = decision.certificates[position]
                self.brackets[row] = proved
            if position in decision.witnesses:
                witness = decision.witnesses[position]
                if witness.distance < self.brackets[row].upper:
                    self.witnesses[row] = witness
                if witness.distance <= self.brackets[row].trusted:
                    self.refuted[row] = (self.brackets[row].trusted_method, method.name)
                self.brackets[row] = self.brackets[row].lower_upper(witness.distance, method.name)
            if position in decision.execution_only:
                distance = decision.execution_only[position]
                self.execution_only[row] = min(distance, self.execution_only.get(row, distance))
            if position in decision.reasons:
                self.reasons[row] = decision.reasons[position]
            if position in decision.open_units:
                self.open_units[row] = decision.open_units[position]


class Method(ABC):
    """A way to decide regions. Subclasses implement `decide` and `bracket`."""

    name: str
    proves: ClassVar[bool]
    finds: ClassVar[bool]
    strength: ClassVar[Strength] = Strength.CHECKED
    norms: ClassVar[tuple[str, ...]] = ("inf",)
    # Inputs that a run hands over together, and writes to its records together: few where each takes long.
    batch_size: ClassVar[int] = BATCH_SIZE

    def refusal(self, network: Network) -> str | None:
        """Return why this method cannot take the network, or None if it can."""
        return None

    @abstractmethod
    def decide(self, batch: Batch, region: BallRegion, budget: Budget) -> Decision:
        """Return proofs and replayed witnesses for the regions; what is neither stays open."""

    @abstractmethod
    def bracket(self, batch: Batch, epsilons: Sequence[float], findings: Findings, budget: Budget) -> None:
        """Narrow the brackets in `findings`, the requested radii first."""
