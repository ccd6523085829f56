"""Bastani's linear program as a method: it finds, starting from an attack's region or from the input's own.

From an attack (the default): each witness that attacks found within a little more than the largest radius is pulled in
by `restriction.pull`, never farther than the attack. From the input (Bastani et al. 2016): the program of the input's
own region.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from encoders.network import Network
from encoders.region import BallRegion
from verifier.answers import Answer, Witness
from verifier.batch import Batch
from verifier.budget import Budget
from verifier.methods.base import Method
from verifier.restriction.pull import BEYOND, Programs, Targets
from verifier.verdict import Outcome
from verifier.witnesses.nearest import NearestAttack

Start = Literal["attack", "input"]


class RestrictionMethod(Method):
    """Finds; proves nothing.

    start: whose region; targets: for the input's own region; programs: how they are solved, and what points count.
    """

    name = "restriction"
    proves = False
    finds = True

    def __init__(self, start: Start = "attack", targets: Targets = "all", programs: Programs | None = None) -> None:
        self.start, self.targets, self.programs = start, targets, programs or Programs()
        self.attack = NearestAttack()

    def refusal(self, network: Network) -> str | None:
        refused = [node for node in network.nodes if "restrict" not in node.op.views()]
        if not refused:
            return None
        names = ", ".join(f"{node.name!r} ({node.op.kind})" for node in refused)
        return f"method 'restriction' needs linear pieces, which nodes {names} lack"

    def decide(self, batch: Batch, region: BallRegion, budget: Budget) -> list[Answer]:
        self._refuse(batch.subject.network)
        radii = region.radius.tolist()
        answers = [Answer()] * len(batch)
        if self.start == "attack":
            answers = self.attack.decide(batch, region.with_radius(region.radius * BEYOND), budget)
        decided = []
        for row, (answer, radius) in enumerate(zip(answers, radii, strict=True)):
            witness: Witness | None = None
            if self.start == "input":
                witness, _ = self.programs.own(batch.one(row), radius, self.targets, budget)
            elif answer.witness is not None:
                # The input itself may be unsafe: nothing is nearer.
                at_input = answer.witness.distance == 0.0
                witness = answer.witness if at_input else self.programs.pull(batch.one(row), answer.witness, budget)
            said = Answer.open(execution_only=answer.execution_only)
            if witness is not None and witness.distance <= radius:
                said = said.merge(Answer.broken(witness, self.name))
            decided.append(said)
        return decided

    def bracket(
        self, batch: Batch, epsilons: Sequence[float], answers: Sequence[Answer], budget: Budget
    ) -> list[Answer]:
        """Attack the radii in rising order and a little beyond the last; then pull in what was found within that."""
        self._refuse(batch.subject.network)
        largest, known = max(epsilons), list(answers)
        if self.start == "attack":
            known = self.attack.bracket(batch, [*epsilons, min(BEYOND * largest, batch.reach)], known, budget)
        for row, answer in enumerate(known):
            if budget.exhausted:
                break
            witness: Witness | None = None
            if self.start == "attack":
                witness = self.programs.pull_within(batch.one(row), answer.witness, largest, budget)
            elif any(answer.at(epsilon) is Outcome.OPEN for epsilon in epsilons):
                witness, _ = self.programs.own(batch.one(row), largest, self.targets, budget)
            if witness is not None:
                known[row] = answer.merge(Answer.broken(witness, self.name))
        return known

    def _refuse(self, network: Network) -> None:
        refusal = self.refusal(network)
        if refusal is not None:
            raise ValueError(refusal)
