"""Random resizing and padding in front of a network to train (Xie, Wang, Zhang, Ren, Yuille 2018).

In training every batch is shrunk to a random size and put at a random place; in evaluation images stay as they are.
`with_placement` turns what was trained into a network that is drawn.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from encoders.network import INPUT, Network, Node
from encoders.ops.resize_and_pad import ResizeAndPad

NAME = "resize-and-pad"


class RandomPlacement(nn.Module):
    """Draws from the op in training, from torch's global generator, one draw for all images of a batch."""

    def __init__(self, op: ResizeAndPad) -> None:
        super().__init__()
        self.op = op

    def forward(self, x: Tensor) -> Tensor:
        """Return images `(batch, channels, height, width)` of the same size."""
        return self.op.draw(torch.default_generator).cast(x.dtype, x.device).evaluate(x) if self.training else x


def behind_placement(module: nn.Sequential, shape: Sequence[int], share: float) -> nn.Sequential:
    """Return the chain behind random placements. shape: of an image; share: the least height as a share of its own.

    Raises ValueError where inputs are no images.
    """
    if len(shape) != 3:
        raise ValueError(
            f"regime resize-and-pad takes networks of images (lenet, cnn-small, nin, resnet18, ...), got one of inputs "
            f"of shape {tuple(shape)}"
        )
    return nn.Sequential(
        RandomPlacement(ResizeAndPad(tuple(shape), smallest=max(1, math.floor(share * shape[1])))), *module
    )


def with_placement(network: Network, module: nn.Module) -> Network:
    """Return the network of a module in evaluation with the op in front; without one the network itself."""
    ops = [layer.op for layer in module.modules() if isinstance(layer, RandomPlacement)]
    if not ops:
        return network
    (op,) = ops
    assert all(node.name != NAME for node in network.nodes)
    behind = (
        dataclasses.replace(node, inputs=tuple(NAME if name == INPUT else name for name in node.inputs))
        for node in network.nodes
    )
    return Network((Node(NAME, op, (INPUT,)), *behind), network.input_shape, network.dtype, network.source)
