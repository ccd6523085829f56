"""A drawn case: a network, inputs that lie where it hurts, a domain, and radii at the exact robust radii."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np
import torch
from torch import Tensor

from encoders import Network
from tests.networks.random_networks import F64
from tests.oracles.exact_radius import ExactOracle, TooManyPieces
from tests.whole_runs.networks import (
    SCALES,
    WEIGHTS,
    AnyNetwork,
    DistanceNetwork,
    RationalNetwork,
    in_dtype,
    scaled,
)

Domain = tuple[float, float] | None
DOMAINS: tuple[Domain, ...] = ((0.0, 1.0), (0.0, 1.0), None, (-1.0, 1.0), (-0.75, -0.25))
INPUTS = 40
# Without a domain the exact oracle looks this far around the unit square; no radius that is asked is larger.
AROUND = 3.5
RADII = (0.0, 1e-12, 1e-6, 0.01, 0.05, 0.1, 0.3, 1.0, 3.0)


@dataclass(frozen=True, eq=False)
class Case:
    """Inputs x `(n, *input_shape)` in the network's dtype, labels y, and the exact oracle where there is one."""

    seed: int
    network: Network
    domain: Domain
    x: np.ndarray
    y: np.ndarray
    oracle: ExactOracle | None
    words: tuple[str, ...]
    distances: dict[tuple[int, int, str], Fraction | None] = field(default_factory=dict)

    def distance(self, index: int, reference: int, norm: str) -> Fraction | None:
        """Return the exact robust radius (its square in the 2-norm) as the oracle does."""
        assert self.oracle is not None
        key = (index, reference, norm)
        if key not in self.distances:
            centre = self.x[index].astype(np.float64).ravel().tolist()
            self.distances[key] = self.oracle.distance(centre, reference, norm)
        return self.distances[key]

    def ties(self, index: int) -> bool:
        """Return whether an input is known to tie with its label, in reals and as the network is executed."""
        if self.oracle is None or self.distance(index, int(self.y[index]), "inf") != 0:
            return False
        with torch.no_grad():
            outputs = self.network.evaluate(torch.from_numpy(self.x[index : index + 1]))[0].tolist()
        own = outputs.pop(int(self.y[index]))
        # In another order of summation a tie may be none: zeros and whole numbers are safe from that.
        return max(outputs) == own and own == round(own)

    def radii(self, rng: random.Random, norm: str) -> list[float]:
        """Return some radii; where the exact ones are known, one of them or a float beside it is often among them."""
        chosen = rng.sample(RADII, rng.randint(1, 3))
        if self.oracle is not None and rng.random() < 0.6:
            index = rng.randrange(len(self.x))
            exact = self.distance(index, int(self.y[index]), norm)
            if exact is not None:
                chosen.append(rng.choice(floats_at(exact, norm)))
        return chosen


def floats_at(exact: Fraction, norm: str) -> list[float]:
    """Return a float beside an exact radius (its square in the 2-norm), the next greater one, and the next less."""
    near = math.sqrt(exact) if norm == "2" else float(exact)
    return [near, math.nextafter(near, 9.0), max(0.0, math.nextafter(near, -9.0))]


def draw_case(seed: int, inputs: int = INPUTS) -> Case:
    """Return the case of a seed: three of four have an exact oracle; few have one class alone."""
    rng = random.Random(seed)
    domain = rng.choice(DOMAINS)
    box = domain or (0.0, 1.0)
    dtype = torch.float32 if rng.random() < 0.7 else F64
    rational, distances = rng.random() < 0.75, rng.random() < 0.2
    for attempt in range(100):
        drawn = seed * 1000 + attempt
        words = (rng.choice(WEIGHTS), rng.choice(SCALES))
        network = _network(drawn, words[0], box, rational, distances)
        if len(network.output_shape) != 1 or network.output_shape[0] < 2:
            continue
        try:
            network = in_dtype(scaled(network, words[1], drawn), dtype)
            oracle = ExactOracle.of(network, *(domain or (-AROUND, 1.0 + AROUND))) if rational else None
        except (TooManyPieces, ValueError):
            # A weight may overflow when it is scaled.
            continue
        x = _inputs(network, box, oracle, rng, inputs)
        with torch.no_grad():
            y = network.evaluate(x).nan_to_num(0.0).argmax(dim=1).numpy()
        if len(set(y.tolist())) == 1 and rng.random() < 0.8:
            continue
        if rng.random() < 0.5:
            y[-1] = (y[-1] + 1) % network.output_shape[0]
        return Case(seed, network, domain, x.numpy(), y, oracle, (*words, str(dtype), str(domain)))
    raise AssertionError(f"no network for seed {seed}")


def _network(seed: int, weights: str, box: tuple[float, float], rational: bool, distances: bool) -> Network:
    if distances:
        return DistanceNetwork(seed, weights, box, rational).build()
    return (RationalNetwork if rational else AnyNetwork)(seed, weights, box).build()


def _inputs(
    network: Network, box: tuple[float, float], oracle: ExactOracle | None, rng: random.Random, inputs: int
) -> Tensor:
    """Return inputs inside, on corners and on a grid of the box, and at corners of the oracle's pieces: on kinks."""
    generator = torch.Generator().manual_seed(rng.randrange(2**31))
    shape, (least, greatest) = network.input_shape, box
    x = least + (greatest - least) * torch.rand(inputs, *shape, generator=generator, dtype=F64)
    grid = torch.randint(0, 5, (8, *shape), generator=generator) / 4.0
    x[:8] = least + (greatest - least) * grid
    x[8:12] = least + (greatest - least) * torch.randint(0, 2, (4, *shape), generator=generator)
    if oracle is not None:
        for row in range(12, 20):
            corner = rng.choice(rng.choice(oracle.pieces)[0])
            point = torch.tensor([float(c) for c in corner[: math.prod(shape)]], dtype=F64)
            x[row] = point.clamp(least, greatest).reshape(shape)
    x = x[torch.randperm(inputs, generator=generator)]
    # Rounded into the box, whose ends are floats of every format.
    return x.to(network.dtype).clamp(least, greatest)
