"""Building blocks that torch lacks: the sum of a branch and a shortcut."""

from torch import Tensor, nn


class Residual(nn.Module):
    """relu(body(x) + shortcut(x)) (He, Zhang, Ren, Sun 2016); shortcut: None for x itself."""

    def __init__(self, body: nn.Sequential, shortcut: nn.Sequential | None = None) -> None:
        super().__init__()
        self.body = body
        self.shortcut = nn.Sequential() if shortcut is None else shortcut

    def forward(self, x: Tensor) -> Tensor:
        """Return the sum, rectified."""
        return nn.functional.relu(self.body(x) + self.shortcut(x))
