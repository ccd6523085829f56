"""The exact least margin over the ball of one input, in rationals (`tests.oracles.polygons`)."""

from encoders.network import Network
from tests.oracles.polygons import least_margin
from verifier.batch import Batch


def exact_margin(network: Network, batch: Batch, radius: float) -> float:
    """Return the least lead of the reference class over every other one in the ball of the batch's first input."""
    ends = batch.region(radius).enclosure()
    return float(least_margin(network, ends.lower[0].tolist(), ends.upper[0].tolist(), int(batch.classes[0])))
