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
from verifier.answers import Answer, merged
from verifier.batch import BATCH_SIZE, Batch, Group
from verifier.budget import Budget
from verifier.methods.base import Method
from verifier.methods.in_memory import FULL, bracketed, decided
from verifier.verdict import Outcome


def by_groups(method: Method, groups: Sequence[Group], shared: Batch) -> Method:
    """Return the method for the shared batch whose places the groups divide among them."""
    if all(group.batch is shared for group in groups):
        return method
    return method.mapped(lambda stage: GroupedMethod(stage, groups, shared))


class GroupedMethod(Method):
    """Asks a method about the batches of groups, and about the shared batch where it only finds.

    Places are those of the shared batch: asked about another, such as a part of it, it raises ValueError. What a
    memory does not hold is met here, so that nobody asks about a part in place of the whole.
    """

    def __init__(self, method: Method, groups: Sequence[Group], shared: Batch) -> None:
        self.method, self.groups, self.shared = method, tuple(groups), shared
        self.name = method.name
        # ClassVars of other methods; here they are those of the method that is asked.
        self.proves, self.finds = method.proves, method.finds  # type: ignore[misc]
        self.strength, self.norms, self.scales = method.strength, method.norms, method.scales  # type: ignore[misc]

    def refusal(self, network: Network) -> str | None:
        return self.method.refusal(self.groups[0].batch.subject.network)

    def decide(self, batch: Batch, region: BallRegion, budget: Budget) -> list[Answer]:
        self._check(batch)
        answers = [Answer()] * len(batch)
        for group in self.groups:
            places = list(group.places)
            try:
                ball = group.batch.region(region.radius[torch.tensor(places, device=region.radius.device)])
                found = decided(self.method, group.batch, ball, budget)
            except torch.OutOfMemoryError:
                found = [FULL] * len(places)
            for place, answer in zip(places, found, strict=True):
                answers[place] = answer
        return answers

    def _check(self, batch: Batch) -> None:
        if batch is not self.shared:
            raise ValueError(f"{self.name}: groups of {len(self.shared)} inputs are asked about {len(batch)} others")

    def bracket(
        self, batch: Batch, epsilons: Sequence[float], answers: Sequence[Answer], budget: Budget
    ) -> list[Answer]:
        self._check(batch)
        if self.method.proves:
            return self._each(range(len(batch)), epsilons, answers, budget)
        known: list[Answer] = []
        for start in range(0, len(batch), BATCH_SIZE):
            numbers = range(start, min(start + BATCH_SIZE, len(batch)))
            known += self._asked(batch, numbers, epsilons, list(answers[start : start + BATCH_SIZE]), budget)
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
            found = self._asked(group.batch, numbers, epsilons, [known[place] for place in places], share)
            for place, answer in zip(places, found, strict=True):
                known[place] = answer
        return known

    def _asked(
        self, batch: Batch, numbers: Sequence[int], epsilons: Sequence[float], known: list[Answer], budget: Budget
    ) -> list[Answer]:
        """Return what is known after the method was asked about some inputs of a batch."""
        try:
            part = batch.at(torch.tensor(list(numbers), device=batch.centres.device))
            return bracketed(self.method, part, epsilons, known, budget)
        except torch.OutOfMemoryError:
            return merged(known, range(len(known)), [FULL] * len(known))

    @staticmethod
    def _open(places: Sequence[int], epsilons: Sequence[float], answers: Sequence[Answer]) -> int:
        return sum(any(answers[place].at(e) is Outcome.OPEN for e in epsilons) for place in places)
