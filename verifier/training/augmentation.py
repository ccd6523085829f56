"""Random changes of images that keep their class, made anew for every batch, from torch's global generator.

Images are `(batch, channels, height, width)`. Pixels that move in are 0, as is usual for CIFAR-10 (He et al. 2016).
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

# Pixels on each side by which images are shifted at most, of 32.
SHIFT_SHARE = 1 / 8


def shift(images: Tensor) -> Tensor:
    """Return the images, each moved by its own number of pixels up to an eighth of the size along each axis."""
    height, width = images.shape[2:]
    border = [max(1, round(SHIFT_SHARE * size)) for size in (height, width)]
    padded = functional.pad(images, (border[1], border[1], border[0], border[0]))
    rows, columns = (
        (torch.randint(2 * most + 1, (len(images), 1)) + torch.arange(size)).to(images.device)
        for most, size in zip(border, (height, width), strict=True)
    )
    which = torch.arange(len(images), device=images.device)[:, None, None]
    # Indices on both sides of a slice put their axes first.
    return padded[which, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2).contiguous()


def flip(images: Tensor) -> Tensor:
    """Return the images, each mirrored left to right with probability one half."""
    mirrored = (torch.rand(len(images)) < 0.5).to(images.device)
    return torch.where(mirrored[:, None, None, None], images.flip(3), images)


AUGMENTATIONS: dict[str, Callable[[Tensor], Tensor]] = {"shift": shift, "flip": flip}
