"""What can be trained: a name, the modules it stands for, and the paper's loss and optimiser for it.

MWD and sigmoid networks use squared error and AdaDelta, ReLU networks cross-entropy and AdaDelta (Agrawal et al.
2019, section 7); all others use cross-entropy and Adam.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from encoders.layers import Mwd, MwdConv2d
from encoders.layers.distance import Distance
from encoders.layers.mwd import UnitTypes
from verifier.training.convolutional import cnn_medium, cnn_small, cnn_wide, lenet, network_in_network, resnet18

Loss = Callable[[Tensor, Tensor], Tensor]
# Takes (parameters, learning rate).
Optimiser = Callable[[Iterable[nn.Parameter], float], torch.optim.Optimizer]


def squared_error(outputs: Tensor, labels: Tensor) -> Tensor:
    """Return the squared distance to the one-hot label: summed over classes, averaged over the batch."""
    return ((outputs - functional.one_hot(labels, outputs.shape[1])) ** 2).sum(dim=1).mean()


@dataclass(frozen=True)
class Architecture:
    """How a named network is made and what trains it.

    make: takes (input shape, hidden sizes, unit types, number of classes). learning_rate: of the optimiser, at
    the start. images: whether it takes images as they are; others get vectors.
    """

    make: Callable[[Sequence[int], Sequence[int], Sequence[str], int], nn.Sequential]
    hidden: tuple[int, ...]
    loss: Loss
    optimiser: Optimiser
    learning_rate: float
    images: bool = False


def _adadelta(parameters: Iterable[nn.Parameter], learning_rate: float) -> torch.optim.Optimizer:
    return torch.optim.Adadelta(parameters, lr=learning_rate)


def adam(parameters: Iterable[nn.Parameter], learning_rate: float) -> torch.optim.Optimizer:
    """Return Adam with its usual momenta, in one kernel: a step of 1.8 million weights takes 3 ms for 13."""
    return torch.optim.Adam(parameters, lr=learning_rate, fused=True)


def _adam_for_margins(parameters: Iterable[nn.Parameter], learning_rate: float) -> torch.optim.Optimizer:
    """Return Adam as Zhang et al. (2022) have it: feedback of a p-norm falls below its usual epsilon."""
    return torch.optim.Adam(parameters, lr=learning_rate, betas=(0.9, 0.99), eps=1e-10)


def alternating(layers: int) -> tuple[str, ...]:
    """Return plain and negated in turn, ending with negated: plain, negated, plain, negated for four layers."""
    return tuple(("negated", "plain")[(layers - 1 - i) % 2] for i in range(layers))


def _mwd(shape: Sequence[int], hidden: Sequence[int], types: Sequence[str], classes: int) -> nn.Sequential:
    sizes = [_vector_size(shape), *hidden, classes]
    kinds = _unit_types(types, len(sizes) - 1)
    return nn.Sequential(*(Mwd(n, m, kind) for (n, m), kind in zip(pairwise(sizes), kinds, strict=True)))


def _unit_types(types: Sequence[str], layers: int) -> tuple[UnitTypes, ...]:
    kinds = tuple(types) or alternating(layers)
    if len(kinds) != layers:
        raise ValueError(f"{layers} layers need as many unit types, got {len(kinds)}: {' '.join(kinds)}")
    return cast(tuple[UnitTypes, ...], kinds)


def _mwd_conv(shape: Sequence[int], hidden: Sequence[int], types: Sequence[str], classes: int) -> nn.Sequential:
    """Return convolutions, a dense hidden layer of the last hidden size, and a dense layer; small images, small kernel.

    Without the dense hidden layer accuracy was 15 points lower (benchmarks/RESULTS.md). Vectors with a square number
    of entries are read as images of one channel.
    """
    layers = list[nn.Module]()
    if len(shape) == 1 and math.isqrt(shape[0]) ** 2 == shape[0]:
        shape = (1, math.isqrt(shape[0]), math.isqrt(shape[0]))
        layers.append(nn.Unflatten(1, shape))
    if len(shape) != 3:
        raise ValueError(f"mwd-conv takes images (channels, height, width), got inputs of shape {tuple(shape)}")
    kernel, stride = (5, 2) if min(shape[1:]) >= 13 else (3, 1)
    kinds = _unit_types(types, len(hidden) + 1)
    *convolutions, width = hidden
    size = list(shape[1:])
    for (channels, units), kind in zip(pairwise([shape[0], *convolutions]), kinds, strict=False):
        if min(size) < kernel:
            raise ValueError(f"{len(convolutions)} convolutions with kernel {kernel} do not fit images {tuple(shape)}")
        layers.append(MwdConv2d(channels, units, kernel, stride, types=kind))
        size = [(n - kernel) // stride + 1 for n in size]
    inputs = [shape[0], *convolutions][-1] * size[0] * size[1]
    return nn.Sequential(*layers, nn.Flatten(), Mwd(inputs, width, kinds[-2]), Mwd(width, classes, kinds[-1]))


def _fully_connected(activation: type[nn.Module], last: bool) -> Callable[..., nn.Sequential]:
    def make(shape: Sequence[int], hidden: Sequence[int], types: Sequence[str], classes: int) -> nn.Sequential:
        if types:
            raise ValueError("unit types are those of MWD layers; leave them out here")
        sizes = [_vector_size(shape), *hidden, classes]
        layers = [layer for n, m in pairwise(sizes) for layer in (nn.Linear(n, m), activation())]
        return nn.Sequential(*(layers if last else layers[:-1]))

    return make


def _distance(shape: Sequence[int], hidden: Sequence[int], types: Sequence[str], classes: int) -> nn.Sequential:
    if types:
        raise ValueError("the unit types of distance networks are fixed; leave them out")
    sizes = [_vector_size(shape), *hidden, classes]
    last = len(sizes) - 2
    return nn.Sequential(*(Distance(n, m, k == last) for k, (n, m) in enumerate(pairwise(sizes))))


def _linear(shape: Sequence[int], hidden: Sequence[int], types: Sequence[str], classes: int) -> nn.Sequential:
    if hidden or types:
        raise ValueError("linear has neither hidden layers nor unit types; leave them out")
    return nn.Sequential(nn.Linear(_vector_size(shape), classes))


def _convolutional(make: Callable[[Sequence[int], Sequence[int], int], nn.Sequential]) -> Callable[..., nn.Sequential]:
    def checked(shape: Sequence[int], hidden: Sequence[int], types: Sequence[str], classes: int) -> nn.Sequential:
        if types:
            raise ValueError("unit types are those of MWD layers; leave them out here")
        return make(shape, hidden, classes)

    return checked


def _vector_size(shape: Sequence[int]) -> int:
    if len(shape) != 1:
        raise ValueError(f"this network takes vectors, got inputs of shape {tuple(shape)}")
    return int(shape[0])


def _image_network(
    make: Callable[[Sequence[int], Sequence[int], int], nn.Sequential], hidden: tuple[int, ...]
) -> Architecture:
    return Architecture(_convolutional(make), hidden, functional.cross_entropy, adam, 1e-3, images=True)


ARCHITECTURES: dict[str, Architecture] = {
    "mwd": Architecture(_mwd, (512, 512, 512), squared_error, _adadelta, 5.0),
    "mwd-conv": Architecture(_mwd_conv, (16, 128), squared_error, _adadelta, 5.0, images=True),
    "relu": Architecture(_fully_connected(nn.ReLU, False), (512, 512, 512), functional.cross_entropy, _adadelta, 1.0),
    "sigmoid": Architecture(_fully_connected(nn.Sigmoid, True), (512, 512, 512), squared_error, _adadelta, 1.0),
    "linear": Architecture(_linear, (), functional.cross_entropy, adam, 1e-3),
    # Huang et al. (2015), section 5.
    "mlp": Architecture(_fully_connected(nn.ReLU, False), (1000, 1000), functional.cross_entropy, adam, 1e-3),
    "lenet": _image_network(partial(lenet, True), (500,)),
    "lenet-linear-convolutions": _image_network(partial(lenet, False), (500,)),
    "cnn-small": _image_network(cnn_small, (16, 32, 100)),
    "cnn-medium": _image_network(cnn_medium, (64, 128, 256)),
    "cnn-wide": _image_network(cnn_wide, (64, 128, 512)),
    "nin": _image_network(network_in_network, (192,)),
    "resnet18": _image_network(resnet18, (64,)),
    # Their rate of .03 in units of .3, the spread of first attractors.
    "distance": Architecture(_distance, (512, 512, 512), functional.cross_entropy, _adam_for_margins, 9e-3),
}


def clamp_parameters(module: nn.Module) -> None:
    """Move the parameters of every MWD layer into their ranges; to be called after each optimiser step."""
    for layer in module.modules():
        if isinstance(layer, Mwd | MwdConv2d):
            layer.clamp_parameters()
