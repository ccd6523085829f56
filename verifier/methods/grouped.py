"""A method asked about inputs whose networks differ by groups, and are all worse than one that they share.

What proves is asked group by group. What only finds searches the shared network for all of them at once: where another
class wins there, it wins in the network of the group. It is asked again, by groups, about inputs for which it found a
point that the user's model alone gives to another class.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from encoders.network import Network
from encoders.region import BallRegion
from verifier.answers import Answer
from verifier.batch import BATCH_SIZE, Batch, Group
from verifier.budget import Budget
from verifier.methods.base import Method
from verifier.methods.in_memory import bracketed, decided
from verifier.verdict import Outcome


def by_groups(method: Method, groups: Sequence[Group], shared: Batch) -> Method:
    """Return the method for the shared batch whose places the groups divide among them."""
    if all(group.batch is shared for group in groups):
        return method
    return method.mapped(lambda stage: GroupedMethod(stage, groups))


class GroupedMethod(Method):
    """Asks a method about the batches of groups, and about the shared batch where it only finds."""

    def __init__(self, method: Method, groups: Sequence[Group]) -> None:
        self.method, self.groups = method, tuple(groups)
        self.name = method.name
        # ClassVars of other methods; here they are those of the method that is asked.
        self.proves, self.finds = method.proves, method.finds  # type: ignore[misc]
        self.strength, self.norms, self.scales = method.strength, method.norms, method.scales  # type: ignore[misc]

    def refusal(self, network: Network) -> str | None:
        return self.method.refusal(self.groups[0].batch.subject.network)

    def decide(self, batch: Batch, region: BallRegion, budget: Budget) -> list[Answer]:
        answers = [Answer()] * len(batch)
        for group in self.groups:
            places = list(group.places)
            ball = group.batch.region(region.radius[torch.tensor(places, device=region.radius.device)])
            for place, answer in zip(places, decided(self.method, group.batch, ball, budget), strict=True):
                answers[place] = answer
        return answers

    def bracket(
        self, batch: Batch, epsilons: Sequence[float], answers: Sequence[Answer], budget: Budget
    ) -> list[Answer]:
        if self.method.proves:
            return self._each(range(len(batch)), epsilons, answers, budget)
        known: list[Answer] = []
        for start in range(0, len(batch), BATCH_SIZE):
            rows = torch.arange(start, min(start + BATCH_SIZE, len(batch)), device=batch.centres.device)
            before = answers[start : start + BATCH_SIZE]
            known += bracketed(self.method, batch.at(rows), epsilons, before, budget)
        apart = [i for i, a in enumerate(known) if a.execution_only is not None and a.witness is None]
        return self._each(apart, epsilons, known, budget)

    def _each(
        self, wanted: Sequence[int], epsilons: Sequence[float], answers: Sequence[Answer], budget: Budget
    ) -> list[Answer]:
        """Return the answers after the method was asked, group by group, about the wanted places."""
        known, left = list(answers), self._open(wanted, epsilons, answers)
        for group in self.groups:
            numbers = [i for i, place in enumerate(group.places) if place in wanted]
            if not numbers:
                continue
            places = [group.places[i] for i in numbers]
            # A group takes no more of the time than its share of the inputs that are open.
            mine = self._open(places, epsilons, known)
            share, left = budget.share(left / mine) if mine else budget, left - mine
            part = group.batch.at(torch.tensor(numbers, device=group.batch.centres.device))
            found = bracketed(self.method, part, epsilons, [known[place] for place in places], share)
            for place, answer in zip(places, found, strict=True):
                known[place] = answer
        return known

    @staticmethod
    def _open(places: Sequence[int], epsilons: Sequence[float], answers: Sequence[Answer]) -> int:
        return sum(any(answers[place].at(e) is Outcome.OPEN for e in epsilons) for place in places)
