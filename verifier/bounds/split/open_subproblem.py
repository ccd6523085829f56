"""Why a subproblem stays open although all its signs are known: what is true at the point where its bound ends.

The network is affine on such a subproblem, so its linear program has an exact optimum. Where neither the multipliers
prove the subproblem nor the user's model shows the point to be unsafe, the margin at that point in real arithmetic
tells why: it is a tie within rounding only if the margin is that small.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence

import torch
from torch import Tensor

from encoders.box import Box
from encoders.network import Network
from encoders.region import BallRegion

# A margin below this share of the outputs' reach is one that rounding to float32 may turn round.
TIE = 1e-6


class Why(enum.StrEnum):
    """The reasons, as a record states them; `{}` is how many subproblems they hold for."""

    TIE = "{} subproblems with all signs known are within rounding of a tie"
    DISAGREES = (
        "execution and real arithmetic disagree: {} subproblems hold a point where another class wins in real "
        "arithmetic and does not in the model's own output"
    )
    BETWEEN = "{} subproblems hold points where another class wins, but none that is a number of the model's dtype"
    UNPROVED = (
        "{} subproblems with all signs known are safe by more than rounding, but their linear programs do not prove it"
    )
    UNSOLVED = "the linear programs of {} subproblems with all signs known were not solved"


def why_open(network: Network, region: BallRegion, point: Tensor | None, row: Tensor, reach: float) -> Why:
    """Return why a subproblem is open. point: `input_shape`, where its bound ends, tried in vain as a counterexample.

    row: `(outputs,)`, the winner less the rival, whose greatest absolute value on the ball is `reach`.
    """
    if point is None:
        return Why.UNSOLVED
    exact = point.to(torch.float64).unsqueeze(0)
    least, greatest = _margin(network, exact, row)
    small = TIE * reach
    if least > small:
        return Why.UNPROVED
    if greatest >= -small:
        return Why.TIE
    tried = region.clip(exact, network.dtype).to(torch.float64)
    return Why.DISAGREES if _margin(network, tried, row)[1] <= 0 else Why.BETWEEN


def sentence(reasons: Sequence[Why]) -> str:
    """Return the reasons of several subproblems in words, the plainest first."""
    kinds = [why for why in Why if why in reasons]
    return "; ".join(why.value.format(reasons.count(why)) for why in kinds)


def _margin(network: Network, point: Tensor, row: Tensor) -> tuple[float, float]:
    """Return bounds of a row of the outputs at a point `(1, *input_shape)` in real arithmetic."""
    exact = network.cast(torch.float64, torch.device("cpu"))
    (outputs,) = exact.interval(Box.point(point))
    lower, upper = outputs.lower[0], outputs.upper[0]
    positive, negative = row.clamp(min=0), row.clamp(max=0)
    return float(positive @ lower + negative @ upper), float(positive @ upper + negative @ lower)
