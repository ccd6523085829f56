"""A question that is safe and that linear bounds leave open, so that a solver is asked."""

import functools

from encoders.network import Network
from tests.networks.batches import random_batch
from tests.networks.chains import hinge_network
from tests.oracles.ball_margin import exact_margin
from verifier.batch import Batch
from verifier.budget import Budget
from verifier.methods import METHODS

RADII = (0.05, 0.12, 0.2, 0.4)


@functools.cache
def open_case() -> tuple[Network, Batch, float]:
    """Return a case that is safe and that linear bounds leave open, so that a solver is asked."""
    # Seeds before 12 have none.
    for seed in range(12, 50):
        network = hinge_network(seed, (2, 8, 6, 3))
        batch = random_batch(network, 1, seed)
        for radius in RADII:
            (crown,) = METHODS["crown"].decide(batch, batch.region(radius), Budget())
            if not crown.vouched_safe(radius) and exact_margin(network, batch, radius) > 1e-3:
                return network, batch, radius
    raise AssertionError("no seed has such a case")
