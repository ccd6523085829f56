"""Linear bounds as methods: `crown` with each op's own slopes, `alpha-crown` with optimised ones, and `planes`.

`planes` is alpha-crown with planes above the first hinge, which see every input at once (Anderson et al. 2020;
Tjandraatmadja et al. 2020), in place of the lines above its units.
"""

import math
from collections.abc import Sequence
from functools import partial

import torch

from encoders.network import Network
from encoders.region import NORMS, BallRegion
from verifier.answers import Answer, merged
from verifier.batch import Batch
from verifier.bounds.linear.bounds import bounds_refusal
from verifier.bounds.linear.margins import in_pieces, margins_in_time, piece_size
from verifier.bounds.linear.slopes import SlopeSearch
from verifier.bounds.split.ball_margins import has_matrices
from verifier.budget import Budget
from verifier.methods.base import Method
from verifier.methods.bisection import bisect_brackets
from verifier.witnesses.minimisers import try_points

# Inputs that a run hands over together where each is a piece of its own: of 2,000 on two processors, 64 together leave
# one of them alone for the last 48.
SINGLE = 16


class CrownMethod(Method):
    """Proves by linear bounds, and tries the minimiser of each bound that fails as an attack.

    steps, reach: of the search for slopes (see `SlopeSearch`), 0 steps for none. refinements: bisections of a bracket
    beyond the requested radii.
    """

    proves = True
    finds = True
    norms = NORMS
    scales = True

    # Whether the search looks for planes.
    planes = False

    def __init__(self, name: str, steps: int = 0, refinements: int = 8, reach: float = math.inf) -> None:
        self.name = name
        self.steps = steps
        self.reach = reach
        self.refinements = refinements

    def batch_for(self, network: Network, device: torch.device) -> int:
        return SINGLE if piece_size(network, device) == 1 else self.batch_size

    def refusal(self, network: Network) -> str | None:
        return bounds_refusal(network, self.name)

    def decide(self, batch: Batch, region: BallRegion, budget: Budget) -> list[Answer]:
        if budget.exhausted or not len(batch):
            return [Answer()] * len(batch)
        search = SlopeSearch(self.steps, reach=self.reach, budget=budget, planes=self.planes) if self.steps else None
        work = partial(margins_in_time, search=search, budget=budget)
        margins = in_pieces(work, batch.subject.sharper or batch.subject.network, region, batch.classes)
        answers = self.proofs(margins.proved, region.radius)
        if margins.points is None:
            return answers
        rows = torch.nonzero(~margins.proved).squeeze(1).tolist()
        return merged(answers, rows, try_points(batch, region, margins.points, rows, self.name))

    def bracket(
        self, batch: Batch, epsilons: Sequence[float], answers: Sequence[Answer], budget: Budget
    ) -> list[Answer]:
        """Decide the requested radii that are open in rising order, then bisect."""
        return bisect_brackets(self, batch, [0.0, *epsilons], answers, budget, self.refinements)


class PlanesMethod(CrownMethod):
    """`alpha-crown` with planes above the first hinge, in the inf-norm, on networks held as matrices."""

    norms = ("inf",)
    planes = True

    def refusal(self, network: Network) -> str | None:
        if has_matrices(network):
            return super().refusal(network)
        return (
            f"method {self.name!r} takes networks of affine ops with relu, leaky-relu, abs and max pools that are no "
            "dearer as matrices between these; linear bounds take others"
        )
