"""k-winners-take-all as a torch module: what a user trains, with the formula of the op of the same name."""

import math

import torch
from torch import Tensor, nn

from encoders.ops.k_winners import winners


@torch.library.custom_op("encoders::k_winners", mutates_args=())
def _exported_k_winners(x: Tensor, count: int) -> Tensor:
    """Stand for the layer in an exported graph, where the reader finds it by name."""
    return torch.where(winners(x, count) | x.isnan(), x, 0.0)


@_exported_k_winners.register_fake
def _(x: Tensor, count: int) -> Tensor:
    return torch.empty_like(x)


class KWinners(nn.Module):
    """Passes the greatest units of each sample, over channels and places alike, and zeros the others.

    share: of the units, rounded down as the authors' code does, one at least (Xiao, Zhong, Zheng 2020: .1 to .3).
    """

    def __init__(self, share: float) -> None:
        super().__init__()
        if not 0.0 < share <= 1.0:
            raise ValueError(f"the share of units that k-winners keeps must lie in (0, 1], got {share}")
        self.share = share

    def count(self, units: int) -> int:
        """Return how many of so many units pass."""
        return max(1, math.floor(self.share * units))

    def forward(self, x: Tensor) -> Tensor:
        """Return x `(batch, *shape)` without the losers; winners pass their gradient, losers none."""
        count = self.count(math.prod(x.shape[1:]))
        if torch.compiler.is_exporting():
            y: Tensor = _exported_k_winners(x, count)
            return y
        return torch.where(winners(x, count) | x.isnan(), x, 0.0)

    def extra_repr(self) -> str:
        """Return the setting, for people who print the module."""
        return f"share={self.share}"
