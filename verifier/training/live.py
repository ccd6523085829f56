"""A module in training as attacks see a network: its scores and their gradients at the weights of the moment.

Reading a graph for every batch would cost seconds, and a graph knows no batch statistics. What attacks ask beside
scores (rational arithmetic, intervals) a module cannot answer: points found here are training data, never witnesses.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from encoders.network import Network


class LiveNetwork(Network):
    """The class scores of a module. Gradients are those that the module defines: pseudogradients of MWD layers, too.

    It has no nodes, so attacks see one source of gradients; `leak` of dead units is not supported and ignored.
    """

    def __init__(self, module: nn.Module, dtype: torch.dtype) -> None:
        fields = {"nodes": (), "input_shape": (), "dtype": dtype, "source": "module in training", "module": module}
        for name, value in fields.items():
            object.__setattr__(self, name, value)

    def scores(self, x: Tensor, pseudo: bool = False, leak: float = 0.0) -> Tensor:
        """Return the module's outputs `(batch, classes)`, differentiable by x."""
        module: nn.Module = self.__dict__["module"]
        # A training in bfloat16 finds gradients in it; which point is worst is compared in the dtype of the points.
        result: Tensor = module(x)
        return result.to(x.dtype)


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """Leave batch statistics and dropout out while examples are made: what is attacked is what will be used."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training
