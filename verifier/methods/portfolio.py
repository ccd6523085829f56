"""The methods that exist, one after the other, each on what the earlier ones left open."""

from collections.abc import Sequence

import torch

from encoders.network import Network
from encoders.region import NORMS, BallRegion
from verifier.answers import Answer, merged
from verifier.batch import BATCH_SIZE, Batch
from verifier.budget import Budget
from verifier.methods.base import Method
from verifier.verdict import Strength


class PortfolioMethod(Method):
    """Runs its stages in order: a later stage sees only inputs that some requested radius leaves open."""

    proves = True
    finds = True
    scales = True

    def __init__(self, stages: Sequence[Method], name: str = "auto") -> None:
        self.stages, self.name = tuple(stages), name
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

    def decide(self, batch: Batch, region: BallRegion, budget: Budget) -> list[Answer]:
        answers, radii = [Answer()] * len(batch), region.radius.tolist()
        for stage in self._applicable(batch):
            rows = [
                i for i, answer in enumerate(answers) if answer.witness is None and not answer.vouched_safe(radii[i])
            ]
            if not rows:
                break
            index = torch.tensor(rows, device=batch.centres.device)
            answers = merged(answers, rows, stage.decide(batch.at(index), region[index], budget))
        return answers

    def bracket(
        self, batch: Batch, epsilons: Sequence[float], answers: Sequence[Answer], budget: Budget
    ) -> list[Answer]:
        known = list(answers)
        for stage in self._applicable(batch):
            known = stage.bracket(batch, epsilons, known, budget)
        return known

    def _applicable(self, batch: Batch) -> list[Method]:
        stages = [stage for stage in self.stages if batch.norm in stage.norms]
        stages = [stage for stage in stages if batch.scale is None or stage.scales]
        return [stage for stage in stages if stage.refusal(batch.subject.network) is None]
