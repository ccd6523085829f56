"""The methods that exist, one after the other, each on what the earlier ones left open."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

import torch

from encoders.network import Network
from encoders.region import NORMS, BallRegion
from verifier.answers import UNKNOWN, Answer, merged
from verifier.batch import BATCH_SIZE, Batch
from verifier.budget import Budget, Overrun
from verifier.methods.base import Method
from verifier.methods.in_memory import bracketed, decided
from verifier.methods.paused import Paused
from verifier.verdict import Outcome, Strength


class PortfolioMethod(Method):
    """Runs its stages in order: a later stage sees only inputs that some requested radius leaves open.

    Stages of one name go on with one search where the batch is one region: what they leave is kept until `decide`
    returns. idle_after: by the name of a stage, that of a search after which it has nothing to add: left out once such
    a search is under way.
    """

    proves = True
    finds = True
    scales = True

    def __init__(
        self, stages: Sequence[Method], name: str = "auto", idle_after: Mapping[str, str] = MappingProxyType({})
    ) -> None:
        self.stages, self.name, self.idle_after = tuple(stages), name, idle_after
        named = [stage for stage in stages if stage.name == name] or stages
        # A ClassVar of single methods; of a portfolio it follows from the stages.
        self.norms = tuple(norm for norm in NORMS if any(norm in stage.norms for stage in named))  # type: ignore[misc]
        sizes = [stage.batch_size for stage in stages if stage.name == name]
        self.batch_size = min(sizes, default=BATCH_SIZE)  # type: ignore[misc]
        strengths = [stage.strength for stage in stages if stage.proves]
        # Of what `decide` proves; a bracket knows which stage moved it.
        self.strength = max(strengths, key=list(Strength).index, default=Strength.CHECKED)  # type: ignore[misc]

    def refusal(self, network: Network) -> str | None:
        """Return the reason of the stage that the portfolio is named after, if it has one."""
        return next((stage.refusal(network) for stage in self.stages if stage.name == self.name), None)

    def mapped(self, change: Callable[[Method], Method]) -> Method:
        return PortfolioMethod([change(stage) for stage in self.stages], self.name, self.idle_after)

    def decide(self, batch: Batch, region: BallRegion, budget: Budget) -> list[Answer]:
        answers, radii = [Answer()] * len(batch), region.radius.tolist()
        # Searches of many inputs would take the memory of as many.
        paused = Paused() if len(batch) == 1 else None
        for number, stage in enumerate(self._applicable(batch)):
            rows = [
                i for i, answer in enumerate(answers) if answer.witness is None and not answer.vouched_safe(radii[i])
            ]
            # What the first stages found out about why the time was not enough is not to be written over.
            if number and budget.exhausted:
                return _ended(answers, rows, budget)
            if not rows:
                break
            if paused is not None and self.idle_after.get(stage.name, "") in paused:
                continue
            index, started = torch.tensor(rows, device=batch.centres.device), time.perf_counter()
            try:
                part, ball = batch.at(index), region[index]
                fresh = decided(stage, part, ball, budget, paused)
            except Overrun as overrun:
                fresh = [Answer.open(str(overrun))] * len(rows)
            seconds = (time.perf_counter() - started) / len(rows)
            timed = [answer.after(stage.name, seconds, UNKNOWN, answer.reason) for answer in fresh]
            known = merged(answers, rows, timed)
            answers = [answer.explained(before) for answer, before in zip(known, answers, strict=True)]
        return answers

    def bracket(
        self, batch: Batch, epsilons: Sequence[float], answers: Sequence[Answer], budget: Budget
    ) -> list[Answer]:
        known = list(answers)
        for number, stage in enumerate(self._applicable(batch)):
            if number and budget.exhausted:
                return _ended(known, [i for i, answer in enumerate(known) if _is_open(answer, epsilons)], budget)
            before, started = known, time.perf_counter()
            blank = [replace(answer, reason=None, spent=()) for answer in known]
            fresh = bracketed(stage, batch, epsilons, blank, budget)
            # What a stage takes is shared by the inputs that are open at a radius, or about which it says more.
            pairs = enumerate(zip(before, fresh, strict=True))
            rows = [i for i, (a, b) in pairs if _is_open(a, epsilons) or a.bracket != b.bracket]
            seconds = (time.perf_counter() - started) / max(1, len(rows))
            known = [_following(*pair) for pair in zip(fresh, before, strict=True)]
            for i in rows:
                known[i] = known[i].after(stage.name, seconds, before[i].bracket, fresh[i].reason)
        return known

    def _applicable(self, batch: Batch) -> list[Method]:
        stages = [stage for stage in self.stages if batch.norm in stage.norms]
        stages = [stage for stage in stages if batch.scale is None or stage.scales]
        return [stage for stage in stages if stage.refusal(batch.subject.network) is None]


def _is_open(answer: Answer, epsilons: Sequence[float]) -> bool:
    """Return whether an answer leaves one of the radii open."""
    return any(answer.at(epsilon) is Outcome.OPEN for epsilon in epsilons)


def _ended(answers: list[Answer], rows: Sequence[int], budget: Budget) -> list[Answer]:
    """Return the answers, those of rows without a reason with that of the budget."""
    silent = [i for i in rows if answers[i].reason is None]
    return merged(answers, silent, [Answer.open(budget.why)] * len(silent))


def _following(answer: Answer, earlier: Answer) -> Answer:
    """Return an answer with what was spent before, and with the earlier reason where it has none."""
    return replace(answer, spent=earlier.spent, reason=earlier.reason if answer.reason is None else answer.reason)
