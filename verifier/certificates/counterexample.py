"""A witness that a run claims, checked in the user's own model and in real arithmetic.

There an enclosure of the network at the point decides, or, where it leaves the order open as at a tie, its values in
rational numbers.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from encoders.box import Box
from encoders.exact_order import order_exactly
from encoders.network import Network
from encoders.rationals import NotEvaluated
from encoders.region import BallRegion, domain_ends, domain_words


class ClaimError(ValueError):
    """What a run claims of an input does not hold."""


def check_witness(
    network: Network,
    runtime: Callable[[np.ndarray], np.ndarray],
    around: BallRegion,
    point: np.ndarray,
    reference: int,
    distance: float,
) -> None:
    """Check that a point is unsafe: within the stated distance and the domain, and no longer of the reference class.

    around: a ball (batch 1) that says where the centre, what the domain and how a distance is measured, of any radius.
    point: `input_shape`. In the user's model another class must have a value at least as large, and so it must
    in real arithmetic. ClaimError says what does not hold.
    """
    if point.shape != tuple(around.centre.shape[1:]) or not np.isfinite(point).all():
        raise ClaimError(f"its point has shape {point.shape} or is not finite")
    exact = torch.from_numpy(point.astype(np.float64)).unsqueeze(0)
    actual = float(around.distance(exact)[0])
    if not actual <= distance:
        raise ClaimError(f"it lies at distance {actual!r}, not {distance!r}")
    least, greatest = domain_ends(around.domain, exact)
    if not bool(((least <= exact) & (exact <= greatest)).all()):
        raise ClaimError(f"it leaves the domain {domain_words(around.domain)}")
    outputs = np.asarray(runtime(np.ascontiguousarray(point[None])))[0]
    if not np.delete(outputs, reference).max() >= outputs[reference]:
        raise ClaimError(f"the model still gives class {reference} the largest value")
    if not _loses(network, exact, reference):
        _check_exactly(network, exact, reference)


def _check_exactly(network: Network, point: torch.Tensor, reference: int) -> None:
    """Check in rational numbers what no enclosure shows, above all a tie; ClaimError if it does not hold."""
    try:
        order = order_exactly(network, point, torch.tensor([reference]))
    except NotEvaluated as error:
        raise ClaimError(f"in real arithmetic it is not shown to be unsafe: {error}") from None
    if not (order.level | order.below).any():
        raise ClaimError("in real arithmetic it is not shown to be unsafe")


def _loses(network: Network, point: torch.Tensor, reference: int) -> bool:
    """Return whether an enclosure shows another class to be at least as large at the point in real arithmetic."""
    exact = network.cast(torch.float64, torch.device("cpu"))
    boxes = exact.interval(Box.point(point), exact.output.inputs)
    return bool(exact.output.op.compare(*boxes, classes=torch.tensor([reference])).loses.any())
