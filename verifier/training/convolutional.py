"""Convolutional networks to train, each of a shape (channels, height, width), widths, and classes.

lenet       20 and 50 channels of 5 x 5, max pools, a dense layer (LeCun et al. 1998, in the sizes of Caffe)
cnn-small   4 x 4 of stride 2 twice, a dense layer (Wong, Kolter 2018)
cnn-medium  4 x 4 of stride 2 and 3 x 3 in turn, twice, batch normalisation, a dense layer: what is cheap of cnn-wide
cnn-wide    five 3 x 3, batch normalisation, a dense layer: the CNN7 of certified training (Shi et al. 2021)
nin         three 5 x 5 or 3 x 3, each with two 1 x 1, pools, means over the image (Lin, Chen, Yan 2014); no relu
            after the last convolution
resnet18    (He, Zhang, Ren, Sun 2016) with the 3 x 3 stem for small images
"""

from collections.abc import Sequence
from itertools import pairwise

from torch import nn

from verifier.training.layers import Residual


def lenet(activated: bool, shape: Sequence[int], hidden: Sequence[int], classes: int) -> nn.Sequential:
    """Return a LeNet, with a relu after each convolution or, as in Caffe's, with none. hidden: the dense layer."""
    channels, height, width = _image("lenet", shape, 16)
    size = [(((n - 4) // 2) - 4) // 2 for n in (height, width)]
    (dense,) = _widths("lenet", hidden, 1)

    def convolution(before: int, after: int) -> list[nn.Module]:
        return [nn.Conv2d(before, after, 5), *([nn.ReLU()] if activated else []), nn.MaxPool2d(2)]

    return nn.Sequential(
        *convolution(channels, 20), *convolution(20, 50),
        nn.Flatten(), nn.Linear(50 * size[0] * size[1], dense), nn.ReLU(), nn.Linear(dense, classes),
    )  # fmt: skip


def cnn_small(shape: Sequence[int], hidden: Sequence[int], classes: int) -> nn.Sequential:
    """Return two convolutions and a dense layer, of the three widths."""
    channels, height, width = _image("cnn-small", shape, 4)
    first, second, dense = _widths("cnn-small", hidden, 3)
    flat = second * (height // 2 // 2) * (width // 2 // 2)
    return nn.Sequential(
        nn.Conv2d(channels, first, 4, stride=2, padding=1), nn.ReLU(),
        nn.Conv2d(first, second, 4, stride=2, padding=1), nn.ReLU(),
        nn.Flatten(), nn.Linear(flat, dense), nn.ReLU(), nn.Linear(dense, classes),
    )  # fmt: skip


def cnn_medium(shape: Sequence[int], hidden: Sequence[int], classes: int) -> nn.Sequential:
    """Return four convolutions, two of the first width and two of the second, and a dense layer of the third.

    No convolution keeps the size of the image, where cnn-wide spends nine tenths of its time.
    """
    channels, height, width = _image("cnn-medium", shape, 4)
    first, second, dense = _widths("cnn-medium", hidden, 3)
    layers = list[nn.Module]()
    for before, after in ((channels, first), (first, second)):
        for size, stride, kernel in ((before, 2, 4), (after, 1, 3)):
            convolution = nn.Conv2d(size, after, kernel, stride=stride, padding=1, bias=False)
            layers += [nn.Sequential(convolution, nn.BatchNorm2d(after)), nn.ReLU()]
    flat = second * (height // 2 // 2) * (width // 2 // 2)
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(flat, dense), nn.ReLU(), nn.Linear(dense, classes))


def cnn_wide(shape: Sequence[int], hidden: Sequence[int], classes: int) -> nn.Sequential:
    """Return five convolutions, two of the first width and three of the second, and a dense layer of the third."""
    channels, height, width = _image("cnn-wide", shape, 4)
    first, second, dense = _widths("cnn-wide", hidden, 3)
    sizes = [channels, first, first, second, second, second]
    layers = list[nn.Module]()
    for number, (a, b) in enumerate(pairwise(sizes)):
        layers += [*_convolution(a, b, 2 if number == 2 else 1), nn.ReLU()]
    flat = second * ((height + 1) // 2) * ((width + 1) // 2)
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(flat, dense), nn.ReLU(), nn.Linear(dense, classes))


def network_in_network(shape: Sequence[int], hidden: Sequence[int], classes: int) -> nn.Sequential:
    """Return the network of one width; the paper's is 192, of which 160 and 96 are shares."""
    channels, _, _ = _image("nin", shape, 8)
    (width,) = _widths("nin", hidden, 1)
    middle, narrow = max(1, width * 160 // 192), max(1, width * 96 // 192)

    def block(sizes: Sequence[int], kernel: int) -> list[nn.Module]:
        layers = list[nn.Module]()
        for number, (a, b) in enumerate(pairwise(sizes)):
            size = kernel if number == 0 else 1
            layers += [nn.Conv2d(a, b, size, padding=size // 2), nn.ReLU()]
        return layers

    return nn.Sequential(
        *block((channels, width, middle, narrow), 5), nn.MaxPool2d(3, 2, padding=1), nn.Dropout(0.5),
        *block((narrow, width, width, width), 5), nn.AvgPool2d(3, 2, padding=1), nn.Dropout(0.5),
        *block((width, width, width, classes), 3)[:-1], nn.AdaptiveAvgPool2d(1), nn.Flatten(),
    )  # fmt: skip


def resnet18(shape: Sequence[int], hidden: Sequence[int], classes: int) -> nn.Sequential:
    """Return the network whose first stage has the one width, 64 in the paper."""
    channels, _, _ = _image("resnet18", shape, 8)
    (width,) = _widths("resnet18", hidden, 1)
    layers: list[nn.Module] = [*_convolution(channels, width), nn.ReLU()]
    before = width
    for stage in range(4):
        after = width << stage
        for stride in (1 if stage == 0 else 2, 1):
            body = nn.Sequential(*_convolution(before, after, stride), nn.ReLU(), *_convolution(after, after))
            shortcut = None if stride == 1 and before == after else _convolution(before, after, stride, 1)
            layers.append(Residual(body, shortcut))
            before = after
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, classes))


def _convolution(before: int, after: int, stride: int = 1, kernel: int = 3) -> nn.Sequential:
    """Return a convolution with normalised outputs, which need no bias."""
    convolution = nn.Conv2d(before, after, kernel, stride=stride, padding=kernel // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(after))


def _image(name: str, shape: Sequence[int], least: int) -> tuple[int, int, int]:
    if len(shape) != 3:
        raise ValueError(f"{name} takes images (channels, height, width), got shape {tuple(shape)}")
    channels, height, width = shape
    if min(height, width) < least:
        raise ValueError(f"{name} needs images of at least {least} x {least}, got {tuple(shape)}")
    return channels, height, width


def _widths(name: str, hidden: Sequence[int], count: int) -> tuple[int, ...]:
    if len(hidden) != count:
        raise ValueError(f"{name} takes {count} hidden sizes, got {len(hidden)}: {' '.join(map(str, hidden))}")
    return tuple(hidden)
