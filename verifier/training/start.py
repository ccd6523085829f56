"""First weights of a training: from a file, or drawn so that boxes keep their width.

A native file keeps ops as they were written, batch statistics included, so that nothing is lost on the way.
"""

import math
from pathlib import Path

import torch
from torch import Tensor, nn

from encoders import read_network
from encoders.layers import Mwd, MwdConv2d
from encoders.layers.distance import Distance

# By layer: the names of its tensors, and those of its op.
WEIGHTS: dict[type[nn.Module], dict[str, str]] = {
    nn.Linear: {"weight": "weight", "bias": "bias"},
    nn.Conv2d: {"weight": "weight", "bias": "bias"},
    nn.BatchNorm2d: {"weight": "scale", "bias": "shift", "running_mean": "mean", "running_var": "variance"},
    Mwd: {"u": "weight", "w": "attractor", "negated": "negated"},
    Distance: {"u": "weight", "w": "attractor", "negated": "negated", "bias": "bias"},
    MwdConv2d: {"u": "weight", "w": "attractor", "negated": "negated"},
}


def draw_narrow_weights(module: nn.Module) -> None:
    """Draw the weights of affine layers from N(0, 2 pi / n^2), n what an output sees: E sum |w| = 2, and 0 as biases.

    A relu halves what twice the width of a box becomes, so that boxes keep their width from layer to layer (Shi et al.
    2021, section 3.1). The usual weights widen them by sqrt(n) / 4 a layer.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            nn.init.normal_(layer.weight, std=math.sqrt(2 * math.pi) / layer.weight[0].numel())
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def beside_pixels(module: nn.Module) -> nn.Module:
    """Return the module with the weights of its convolutions, and so their outputs, laid out channels last, in place.

    The same numbers: a pixel's channels lie beside each other, which processors convolve up to twice as fast.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            layer.weight.data = layer.weight.data.to(memory_format=torch.channels_last)
    return module


def load_weights(module: nn.Module, path: Path) -> None:
    """Copy the weights of a native file into a module of the same architecture; ValueError where shapes differ."""
    layers = [(layer, WEIGHTS[type(layer)]) for layer in module.modules() if type(layer) in WEIGHTS]
    wanted = [
        {theirs: value for ours, theirs in names.items() if (value := getattr(layer, ours)) is not None}
        for layer, names in layers
    ]
    stored = [op.parameters() for op in (node.op for node in read_network(path).nodes) if op.parameters()]
    # A convolution without a bias may be stored with one of zeros.
    stored = [_without_zeros(values, names) for values, names in zip(stored, wanted, strict=False)] + stored[
        len(wanted) :
    ]
    sizes = [
        [{name: tuple(value.shape) for name, value in values.items()} for values in part] for part in (wanted, stored)
    ]
    if not layers or sizes[0] != sizes[1]:
        raise ValueError(f"{path}: holds layers {_listed(sizes[1])}, the network to train has {_listed(sizes[0])}")
    with torch.no_grad():
        for targets, values in zip(wanted, stored, strict=True):
            for name, target in targets.items():
                target.copy_(values[name])


def _without_zeros(values: dict[str, Tensor], names: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value for name, value in values.items() if name in names or bool(value.any())}


def _listed(layers: list[dict[str, tuple[int, ...]]]) -> str:
    return ", ".join(str(layer.get("weight", layer.get("scale", ()))) for layer in layers)
