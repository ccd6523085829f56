"""k-winners-take-all in place of the relus of a network to train (Xiao, Zhong, Zheng 2020)."""

from torch import nn

from encoders.layers import KWinners


def with_winners(module: nn.Sequential, share: float) -> nn.Sequential:
    """Return the chain with a layer that passes the share of units in place of each relu; other layers are shared.

    Raises ValueError where there is no relu to replace, or one inside of a block.
    """
    inside = [name for name, layer in module.named_modules() if isinstance(layer, nn.ReLU) and "." in name]
    layers = [KWinners(share) if isinstance(layer, nn.ReLU) else layer for layer in module]
    if inside or not any(isinstance(layer, KWinners) for layer in layers):
        raise ValueError(
            "--winners replaces the relus of a chain of layers; supported: relu, mlp, lenet, cnn-small, ..."
        )
    return nn.Sequential(*layers)
