"""The question that a search over signs asks: is a class above every other on a ball?"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from encoders.network import Network
from encoders.passes import expand_max_pools
from encoders.region import BallRegion
from verifier.bounds.split.form import HingeNetwork
from verifier.bounds.split.operators import chosen_form
from verifier.bounds.split.stages import StageUnits


@dataclass(frozen=True, eq=False)
class SplitQuestion:
    """Whether a class is above every other on a ball (batch 1, inf-norm, on the processor).

    network: without max pools; digest: of the network before. stages: matrices or ops, float64; units: of their values.
    device: where ascent runs.
    """

    network: Network
    digest: str
    region: BallRegion
    winner: int
    stages: HingeNetwork
    units: StageUnits
    device: torch.device

    @cached_property
    def rivals(self) -> tuple[int, ...]:
        """The other classes, one for each row."""
        return tuple(k for k in range(self.network.output_shape[0]) if k != self.winner)

    @cached_property
    def rows(self) -> np.ndarray:
        """Rows `(rivals, outputs)` of the output, the winner less each rival."""
        rows = -np.eye(self.network.output_shape[0])[list(self.rivals)]
        rows[:, self.winner] = 1.0
        return rows

    @property
    def input_ends(self) -> tuple[Tensor, Tensor]:
        """The least and the greatest input `(inputs,)` of the ball, in their units."""
        ball, unit = self.region.enclosure(), torch.tensor(-self.units.stages[0])
        return torch.ldexp(ball.lower.flatten(), unit), torch.ldexp(ball.upper.flatten(), unit)


def split_question(network: Network, region: BallRegion, winner: int) -> SplitQuestion:
    """Return the question about a network of affine ops, hinges and max pools; ascent runs where the region lies."""
    plain, device, region = expand_max_pools(network), region.centre.device, region.on_processor()
    ball = region.enclosure()
    stages, units = chosen_form(plain, ball.lower.flatten(), ball.upper.flatten())
    return SplitQuestion(plain, network.digest, region, winner, stages, units, device)
