"""k-winners-take-all as a torch module: what a user trains, with the formula of the op of the same name."""

import math

import torch
from torch import Tensor, nn

from encoders.ops import k_winners


@torch.library.custom_op("encoders::k_winners", mutates_args=())
def _exported_k_winners(x: Tensor, count: int) -> Tensor:
    """Stand for the layer in an exported graph, where the reader finds it by name."""
    return k_winners.KWinners(count).evaluate(x)


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

    def op(self, x: Tensor) -> k_winners.KWinners:
        """Return the op for x `(batch, *shape)`."""
        return k_winners.KWinners(max(1, math.floor(self.share * math.prod(x.shape[1:]))))

    def forward(self, x: Tensor) -> Tensor:
        """Return x `(batch, *shape)` without the losers; winners pass their gradient, losers none."""
        if torch.compiler.is_exporting():
            y: Tensor = _exported_k_winners(x, self.op(x).count)
            return y
        return self.op(x).evaluate(x)

    def extra_repr(self) -> str:
        """Return the setting, for people who print the module."""
        return f"share={self.share}"
