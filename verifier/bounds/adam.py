"""Adam's direction (Kingma, Ba 2015), with averages that forget quickly: searches here take some twenty steps.

torch.optim has the same, but its first optimiser loads torch's compiler: 1.6 CPU seconds of a first verdict.
"""

from __future__ import annotations

from torch import Tensor

# What the averages of gradients and of their squares keep at a step.
FIRST, SECOND = 0.5, 0.9


def adam(averages: list[Tensor], gain: Tensor, step: int) -> Tensor:
    """Return the direction for a gradient of any shape, and update its two averages in place; step: from 0."""
    first, second = averages
    first.mul_(FIRST).add_(gain, alpha=1.0 - FIRST)
    second.mul_(SECOND).addcmul_(gain, gain, value=1.0 - SECOND)
    return (first / (1.0 - FIRST ** (step + 1))) / ((second / (1.0 - SECOND ** (step + 1))).sqrt() + 1e-12)
