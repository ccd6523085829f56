"""How long and at which rates a training goes on."""

import math
from dataclasses import dataclass

import torch

from verifier.training.augmentation import AUGMENTATIONS


@dataclass(frozen=True)
class Plan:
    """How long and how to train. schedule: constant, or cosine (the learning rate falls to 0 on half a cosine).

    precision: float32, or bfloat16 for the values that losses and gradients are found from.
    augment: rows of `AUGMENTATIONS`, in their order.
    pseudo_share, pseudo_decay, pseudo_epochs: of the MWD layers' gradients, the share of pseudogradients in the first
    epoch, by how much it is multiplied after each (0.9 in the published code of Agrawal et al. 2019), and the epochs
    after which true gradients follow.
    patience: stop after so many epochs without a better score, counted from `settled`, a share of the training, on.

    Raises ValueError for what cannot be.
    """

    epochs: int
    batch: int = 100
    learning_rate: float = 1.0
    schedule: str = "cosine"
    seed: int = 0
    augment: tuple[str, ...] = ()
    pseudo_share: float = 1.0
    pseudo_decay: float = 1.0
    pseudo_epochs: int | None = None
    patience: int | None = None
    settled: float = 0.0
    precision: str = "float32"

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch < 1 or not self.learning_rate > 0:
            raise ValueError("training needs at least one epoch, a batch of one and a positive learning rate")
        if self.schedule not in ("constant", "cosine"):
            raise ValueError(f"unknown schedule {self.schedule!r}; supported: constant, cosine")
        unknown = [name for name in self.augment if name not in AUGMENTATIONS]
        if unknown:
            raise ValueError(f"unknown augmentation {unknown[0]!r}; supported: {', '.join(AUGMENTATIONS)}")
        if not 0.0 <= self.pseudo_share <= 1.0 or not 0.0 <= self.pseudo_decay <= 1.0:
            raise ValueError(
                f"pseudo_share and pseudo_decay must lie in [0, 1], got {self.pseudo_share} and {self.pseudo_decay}"
            )
        if self.patience is not None and self.patience < 1:
            raise ValueError(f"patience must be at least one epoch, got {self.patience}")

    def rate_at(self, share: float) -> float:
        """Return the learning rate after a share of the training."""
        factor = 0.5 * (1.0 + torch.cos(torch.tensor(share * torch.pi)).item())
        return self.learning_rate * (factor if self.schedule == "cosine" else 1.0)

    def pseudo_share_in(self, epoch: int) -> float:
        """Return the share of pseudogradients in an epoch, counted from 0."""
        if self.pseudo_epochs is not None and epoch >= self.pseudo_epochs:
            return 0.0
        return self.pseudo_share * self.pseudo_decay**epoch

    def is_over(self, scores: list[float], best_epoch: int) -> bool:
        """Return whether to stop after the epochs with the given scores, of which one was best."""
        if len(scores) >= self.epochs:
            return True
        waiting_since = max(best_epoch + 1, math.ceil(self.settled * self.epochs))
        return self.patience is not None and len(scores) - waiting_since >= self.patience
