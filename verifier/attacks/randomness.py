"""Random numbers that belong to inputs: a function of (seed of the input, stream, index), for all inputs at once.

A counter-based generator (Salmon et al. 2011) with the finaliser of SplitMix64 (Steele, Lea, Flood 2014): the
numbers of an input depend neither on the other inputs of the batch nor on the device, and any of them can be had
without those before it. Good enough for search; not for cryptography.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

# Odd constants of SplitMix64, written as the signed integers that torch multiplies modulo 2^64.
GOLDEN = -7046029254386353131
MIX_1 = -4658895280553007687
MIX_2 = -7723592293110705685


def uniform(seeds: Tensor, stream: int, count: int) -> Tensor:
    """Return numbers strictly between 0 and 1, `(batch, count)` float64, for the seeds (int64) of the inputs.

    Different streams give independent numbers.
    """
    key = _mix(seeds.to(torch.int64) * GOLDEN + _mix(torch.full_like(seeds, stream + 1, dtype=torch.int64)))
    index = torch.arange(1, count + 1, device=seeds.device, dtype=torch.int64)
    bits = _shift(_mix(key[:, None] + index * GOLDEN), 12)
    # 52 bits and a half: exact in float64, and never 0.
    return (bits.to(torch.float64) + 0.5) * 2.0**-52


def integers(seeds: Tensor, stream: int, count: int, below: int) -> Tensor:
    """Return integers in [0, below), `(batch, count)` int64."""
    return (uniform(seeds, stream, count) * below).to(torch.int64).clamp(max=below - 1)


def signs(seeds: Tensor, stream: int, count: int) -> Tensor:
    """Return -1 or 1, `(batch, count)` float64."""
    return (uniform(seeds, stream, count) - 0.5).sign()


def ball(seeds: Tensor, stream: int, count: int, norm: str) -> Tensor:
    """Return points that are uniform in the unit ball of the norm in `count` dimensions, `(batch, count)` float64.

    1 and 2: g / (sum_i |g_i|^p + e)^(1/p) with g_i of density proportional to exp(-|t|^p) and e exponential
    (Barthe, Guedon, Mendelson, Naor 2005, theorem 1).
    """
    if norm == "inf":
        return 2 * uniform(seeds, stream, count) - 1
    numbers = uniform(seeds, stream, 2 * count + 1)
    radial, angular, last = numbers[:, :count], numbers[:, count:-1], -numbers[:, -1:].log()
    exponential = -radial.log()
    if norm == "1":
        total: Tensor = exponential.sum(dim=1, keepdim=True) + last
        return (angular - 0.5).sign() * exponential / total
    # Box and Muller: sqrt(e) cos(2 pi u) has variance 1/2, which is the density exp(-t^2).
    gauss = exponential.sqrt() * torch.cos(2 * math.pi * angular)
    length: Tensor = ((gauss * gauss).sum(dim=1, keepdim=True) + last).sqrt()
    return gauss / length


def as_seeds(seeds: Sequence[int], device: torch.device) -> Tensor:
    """Return the seeds as int64 `(batch,)`, larger ones folded."""
    return torch.tensor([(seed + 2**63) % 2**64 - 2**63 for seed in seeds], dtype=torch.int64, device=device)


def _mix(z: Tensor) -> Tensor:
    z = (z ^ _shift(z, 30)) * MIX_1
    z = (z ^ _shift(z, 27)) * MIX_2
    return z ^ _shift(z, 31)


def _shift(z: Tensor, bits: int) -> Tensor:
    """Return a logical right shift: torch's keeps the sign."""
    shifted: Tensor = (z >> bits) & (2 ** (64 - bits) - 1)
    return shifted
