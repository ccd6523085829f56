"""What a training measured, epoch by epoch."""

from dataclasses import dataclass, field


@dataclass
class History:
    """What was measured after each epoch: losses (their sum over a batch, mean over batches) and validation score.

    rates: the learning rates of the last steps. diverged: the epoch, from 1, in which a loss or a weight was not
    finite, which is none of those counted here.
    """

    losses: list[float] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)
    diverged: int | None = None

    @property
    def best_epoch(self) -> int:
        """The first epoch with the greatest score, counted from 0."""
        return max(range(len(self.scores)), key=lambda epoch: (self.scores[epoch], -epoch))
