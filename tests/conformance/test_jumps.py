"""Networks that jump: what is proved about balls holds at every point of a fine grid, on both sides of every tie."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from encoders.ops import Affine, KWinners
from tests.answers import bracketed
from tests.networks.batches import batch_of
from tests.networks.chains import chain
from verifier.budget import Budget
from verifier.methods import METHODS

# Points of the grid along each of the two inputs: with weights of quarters floats hold every value there exactly.
GRID = 257
INPUTS = 8
PROVING = ("interval", "crown", "alpha-crown")
# Halving boxes ends at a tie only where both sides are proved together, so it may go on to the end of its budget.
SECONDS = 0.5


def network_of(seed: int, ties: bool):
    """Return a network of two inputs and two layers of winners; ties: weights of quarters, whose units often tie."""
    generator = torch.Generator().manual_seed(seed)

    def layer(inputs: int, outputs: int) -> Affine:
        weight, bias = (torch.randn(outputs, n, generator=generator) for n in (inputs, 1))
        bias = 0.5 * bias.squeeze(1) - 0.5 * weight.sum(dim=1) * (inputs == 2)
        return Affine((4 * weight).round() / 4, (4 * bias).round() / 4) if ties else Affine(weight, bias)

    return chain((2,), layer(2, 6), KWinners(2), layer(6, 5), KWinners(3), layer(5, 3))


@pytest.mark.parametrize("norm", ["inf", "2"])
@pytest.mark.parametrize("seed", range(2))
def test_proved_balls_hold_no_point_of_another_class(seed: int, norm: str) -> None:
    network = network_of(seed, ties=seed % 2 == 1)
    ends = torch.linspace(0.0, 1.0, GRID, dtype=torch.float64)
    grid = torch.cartesian_prod(ends, ends)
    scores = network.cast(torch.float64).evaluate(grid)
    centres = torch.rand(INPUTS, 2, generator=torch.Generator().manual_seed(100 + seed))
    # Half of the inputs lie on the grid, where units tie.
    centres[::2] = (centres[::2] * 8).round() / 8
    classes = network.evaluate(centres).argmax(dim=1)
    distances = torch.linalg.vector_norm(grid[None] - centres.double()[:, None], float(norm), dim=2)
    own = scores[:, classes].T
    others = torch.stack([scores.index_fill(1, c, -torch.inf).amax(dim=1) for c in classes[:, None]])
    nearest = torch.where(others >= own, distances, torch.inf).amin(dim=1)
    assert int(nearest.isfinite().sum()) >= 3
    batch = dataclasses.replace(batch_of(network, centres, classes), norm=norm)
    proved = {}
    for name in (*PROVING, "lp", "input-split"):
        if norm in METHODS[name].norms:
            part = batch if name in PROVING else batch.at(torch.arange(2))
            brackets = bracketed(METHODS[name], part, [0.3], Budget(math.inf if name in PROVING else SECONDS)).brackets
            proved[name] = np.array([bracket.lower for bracket in brackets])
            assert (proved[name] < nearest[: len(part)].numpy()).all(), name
    # Linear bounds see at least what intervals see, and that is more than nothing.
    assert (proved["crown"] >= np.minimum(proved["interval"], 0.3) - 1e-3).all() and (proved["interval"] > 0).any()
