"""What a black-box attack may do: ask for outputs, and see inputs as pictures with windows."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from verifier.attacks.base import Search


def ask(search: Search, rows: Tensor | slice, x: Tensor) -> Tensor:
    """Return the shortfalls of points x `(rows, n)` for the given rows of the search; counts as one query each."""
    with torch.no_grad():
        scores = search.network.scores(x.detach().reshape(-1, *search.region.centre.shape[1:]))
    search.record.count_queries(rows)
    return search.shortfalls(scores, rows)


@dataclass(frozen=True)
class Picture:
    """Inputs as pictures `(channels, height, width)` of flat coordinates in C order."""

    channels: int
    height: int
    width: int

    @staticmethod
    def of(shape: torch.Size | tuple[int, ...]) -> "Picture":
        """Return how inputs of a shape are seen.

        Three axes longer than 1 are (channels, height, width), two are (height, width). Other inputs are flat; those
        of square length are taken for square pictures in rows, which guides proposals only.
        """
        sides = [side for side in shape if side > 1]
        if len(sides) == 3:
            return Picture(*sides)
        if len(sides) == 2:
            return Picture(1, *sides)
        count = math.prod(shape)
        side = math.isqrt(count)
        return Picture(1, side, side) if side * side == count else Picture(1, 1, count)

    @property
    def pixels(self) -> int:
        """Height times width."""
        return self.height * self.width

    def window(self, share: float, least: int = 1) -> tuple[int, int]:
        """Return (height, width) of a near-square window over about `share` of the pixels, at least `least` wide."""
        side = max(round(math.sqrt(share * self.pixels)), least)
        height = min(side, self.height)
        return height, min(max(round(share * self.pixels / height), side), self.width)

    def indices(self, places: Tensor, height: int, width: int) -> Tensor:
        """Return the pixels of windows `(batch, height * width)`.

        places: numbers in [0, 1), `(batch, 2)`, that choose the top left corner among those that fit.
        """
        room = torch.tensor([self.height - height + 1, self.width - width + 1], device=places.device)
        top, left = (places * room).long().unbind(dim=1)
        rows = top[:, None, None] + torch.arange(height, device=places.device)[:, None]
        columns = left[:, None, None] + torch.arange(width, device=places.device)
        return (rows * self.width + columns).flatten(1)

    def split(self, x: Tensor) -> Tensor:
        """Return flat points `(batch, n)` as `(batch, channels, pixels)`."""
        return x.reshape(-1, self.channels, self.pixels)

    def spread(self, indices: Tensor) -> Tensor:
        """Return pixel indices `(batch, k)` for every channel, `(batch, channels, k)`, to index `split`."""
        return indices[:, None, :].expand(-1, self.channels, -1)
