"""The two calls that every method answers, for a batch of inputs.

`decide`: is the ball of this radius safe? `bracket`: where does the robust radius lie? A method declares whether
it can prove, find, or both, and for which norms.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
from torch import Tensor

from encoders.network import Network
from encoders.region import BallRegion, Norm
from encoders.scaling import unit
from verifier.budget import Budget
from verifier.certificates.certificate import Certificate
from verifier.subject import Subject
from verifier.verdict import Bracket, Strength

# Inputs worked on together. Batches start at multiples of it in the data, so that a resumed run repeats them.
BATCH_SIZE = 64


@dataclass(frozen=True, eq=False)
class Batch:
    """Inputs of one subject: centres `(batch, *shape)` float64 on the device, reference classes, seeds.

    reach: the largest radius that is asked about; with a domain, the whole domain lies within it. norm: of the balls.
    """

    subject: Subject
    centres: Tensor
    classes: Tensor
    seeds: tuple[int, ...]
    domain: tuple[float, float] | None
    reach: float
    norm: Norm = "inf"

    def __len__(self) -> int:
        return len(self.seeds)

    def region(self, radius: Tensor | float) -> BallRegion:
        """Return the balls of a radius (one number, or one for each input) around the centres."""
        radii = torch.as_tensor(radius, dtype=torch.float64, device=self.centres.device)
        return BallRegion(self.centres, radii.expand(len(self)).clone(), self.domain, self.norm)

    @property
    def units(self) -> Tensor:
        """Return powers of two `(batch,)` that no input value asked about exceeds: in these, tolerances are meant."""
        if self.domain is not None:
            sizes = [max(abs(end) for end in self.domain)] * len(self)
        else:
            sizes = (self.centres.abs().flatten(1).amax(dim=1) + self.reach).tolist()
        return torch.tensor([unit(size) for size in sizes], dtype=torch.float64)

    def at(self, rows: Tensor) -> Batch:
        """Return the batch of the given rows (an index tensor)."""
        seeds = tuple(self.seeds[row] for row in rows.tolist())
        return replace(self, centres=self.centres[rows], classes=self.classes[rows], seeds=seeds)


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
