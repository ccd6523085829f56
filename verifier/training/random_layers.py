"""Layers whose weights are drawn anew for every batch of training; in evaluation they are their means.

    delta rule   w = mean + deviation z, z ~ N(0, 1) for each weight and bias; the deviations are no parameters: a
                 regime moves them by the size of gradients (Hanson 1990; Frazier-Logue, Hanson 2018)
    learnable    the same with deviation = softplus(rho), positive, rho a parameter like the mean
    drop-connect each weight zero with probability `rate`, else 1 / (1 - rate) times its mean (Wan et al. 2013)

`randomised` turns what was trained into a network that is drawn.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional

from encoders.network import Network, Node
from encoders.ops import DropConnect, DropConnect2d, Op, RandomAffine, RandomConv2d
from verifier.training.layers import Residual

# Ordinary layers, drawn as they are in training.
Layer = nn.Linear | nn.Conv2d
NORMAL, LEARNABLE, DROPPED = "normal", "learnable", "dropped"
# By regime.
RANDOM_KINDS = {"delta-rule": NORMAL, "delta-rule-learnable": LEARNABLE, "drop-connect": DROPPED}


class RandomLayer(nn.Module):
    """A linear layer or a convolution (zero padding) that draws its weights in training.

    kind: NORMAL, LEARNABLE or DROPPED. amount: the deviation to start with, of every weight and bias; of DROPPED the
    rate. decays: of a delta rule, how often its deviations have shrunk.
    """

    def __init__(self, layer: Layer, kind: str, amount: float) -> None:
        super().__init__()
        self.layer, self.kind, self.amount = layer, kind, amount
        self.decays: Tensor
        self.register_buffer("decays", torch.zeros((), dtype=torch.int64))
        for name, value in self._means().items():
            spread = torch.full_like(value.detach(), amount)
            if kind == LEARNABLE:
                # softplus(log(exp(s) - 1)) = s.
                self.register_parameter(f"rho_{name}", nn.Parameter(torch.log(torch.expm1(spread))))
            elif kind == NORMAL:
                self.register_buffer(f"deviation_{name}", spread)

    def _means(self) -> dict[str, nn.Parameter]:
        return dict(self.layer.named_parameters())

    def deviations(self) -> dict[str, Tensor]:
        """Return the deviations of `weight` and `bias`; none of DROPPED layers. A delta rule changes its own."""
        if self.kind == NORMAL:
            return {name: getattr(self, f"deviation_{name}") for name in self._means()}
        if self.kind == LEARNABLE:
            return {name: functional.softplus(getattr(self, f"rho_{name}")) for name in self._means()}
        return {}

    def drawn(self) -> dict[str, Tensor]:
        """Return a draw of weight and bias, from torch's global generator."""
        means, deviations = self._means(), self.deviations()
        if self.kind == DROPPED:
            kept = torch.rand_like(means["weight"]) >= self.amount
            return {**means, "weight": means["weight"] * kept / (1.0 - self.amount)}
        return {name: mean + deviations[name] * torch.randn_like(mean) for name, mean in means.items()}

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            evaluated: Tensor = self.layer(x)
            return evaluated
        result: Tensor = torch.func.functional_call(self.layer, self.drawn(), (x,))
        return result

    def gradients(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (deviations, gradient at the last draw) of weight and bias, where a step was taken."""
        for name, mean in self._means().items():
            if mean.grad is not None:
                yield self.deviations()[name], mean.grad

    def op(self) -> Op:
        """Return the layer as an op of a network."""
        fields = {name: value.detach().cpu().clone() for name, value in self._means().items()}
        spread = {"weight": "deviation", "bias": "bias_deviation"}
        random = {spread[name]: value.detach().cpu().clone() for name, value in self.deviations().items()}
        if isinstance(self.layer, nn.Linear):
            return DropConnect(**fields, rate=self.amount) if self.kind == DROPPED else RandomAffine(**fields, **random)
        top, left = self.layer.padding  # type: ignore[str-unpack]
        sliding = {
            "stride": tuple(self.layer.stride), "padding": (top, left, top, left),
            "dilation": tuple(self.layer.dilation), "groups": self.layer.groups,
        }  # fmt: skip
        if self.kind == DROPPED:
            return DropConnect2d(**fields, **sliding, rate=self.amount)  # type: ignore[arg-type]
        return RandomConv2d(**fields, **sliding, **random)  # type: ignore[arg-type]


def with_random_layers(module: nn.Sequential, kind: str, amount: float) -> nn.Sequential:
    """Return the network with a random layer in place of each linear layer and convolution; other layers are shared.

    amount: as of `RandomLayer`. Raises ValueError where there is none, or one within another block than a residual one.
    """
    result = _randomly(module, kind, amount)
    if not random_layers(result):
        raise ValueError("random weights are those of linear layers and convolutions, of which the network has none")
    assert isinstance(result, nn.Sequential)
    return result


def _randomly(module: nn.Module, kind: str, amount: float) -> nn.Module:
    if isinstance(module, Layer):
        return RandomLayer(module, kind, amount)
    if isinstance(module, nn.Sequential):
        return nn.Sequential(*(_randomly(layer, kind, amount) for layer in module))
    if isinstance(module, Residual):
        body, shortcut = (_randomly(branch, kind, amount) for branch in (module.body, module.shortcut))
        assert isinstance(body, nn.Sequential) and isinstance(shortcut, nn.Sequential)
        return Residual(body, shortcut)
    if any(isinstance(layer, Layer) for layer in module.modules()):
        raise ValueError(
            f"random weights are those of layers in chains and residual blocks, not within {type(module).__name__}; "
            "supported: relu, mlp, lenet, cnn-small, resnet18, ..."
        )
    return module


def random_layers(module: nn.Module) -> list[RandomLayer]:
    """Return the random layers, in the order in which they stand."""
    return [layer for layer in module.modules() if isinstance(layer, RandomLayer)]


def sum_of_variances(module: nn.Module) -> float:
    """Return the sum of the squared deviations of all weights and biases (Frazier-Logue, Hanson 2018, Figure 9)."""
    deviations = (value for layer in random_layers(module) for value in layer.deviations().values())
    return math.fsum(float(value.detach().double().square().sum()) for value in deviations)


def randomised(network: Network, module: nn.Module) -> Network:
    """Return the network of a module's means with the layers that are random in their places.

    They are found by their weights; of equal ones the first is taken first. Without random layers it is the network.
    """
    ops = [layer.op() for layer in random_layers(module)]
    nodes = list[Node]()
    for node in network.nodes:
        place = next((place for place, op in enumerate(ops) if _is_mean(node.op, op)), None)
        nodes.append(node if place is None else dataclasses.replace(node, op=ops.pop(place)))
    assert not ops, "a random layer is not in the network that was made of it"
    return Network(tuple(nodes), network.input_shape, network.dtype, network.source)


def _is_mean(op: Op, drawn: Op) -> bool:
    """Return whether an op has the weights and the settings of a random one, and no others."""
    own, others, settings = op.parameters(), drawn.parameters(), drawn.settings()
    same = all(name in others and torch.equal(value, others[name]) for name, value in own.items())
    return bool(own) and same and all(settings.get(name) == value for name, value in op.settings().items())
