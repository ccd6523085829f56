"""Method `input-split`: branch and bound over the inputs, of networks that have few."""

import math
from collections.abc import Sequence
from functools import partial

from encoders.network import Network
from encoders.region import BallRegion
from verifier.answers import Answer
from verifier.batch import Batch
from verifier.bounds.inputs.search import BoxSearch
from verifier.bounds.linear.bounds import bounds_refusal
from verifier.budget import Budget
from verifier.certificates.conjunctions import Conjunctions
from verifier.methods.base import Method
from verifier.methods.bisection import bisect_brackets
from verifier.methods.one_by_one import Tried, one_by_one
from verifier.methods.paused import Paused

# Networks of more inputs are refused: halves of so many sides hardly differ from the whole.
MOST_INPUTS = 32


class InputSplitMethod(Method):
    """Proves and finds until nothing is open but ties within rounding, if the time lasts.

    boxes: of a region. inputs: a network of more is refused. refinements: bisections of a bracket beyond the requested
    radii.
    """

    name = "input-split"
    scales = True
    proves = True
    finds = True

    def __init__(self, boxes: int = 1_000_000, inputs: int = MOST_INPUTS, refinements: int = 8) -> None:
        self.boxes, self.inputs, self.refinements = boxes, inputs, refinements

    def refusal(self, network: Network) -> str | None:
        count = math.prod(network.input_shape)
        if count > self.inputs:
            return f"method {self.name!r} halves boxes of up to {self.inputs} inputs; the network has {count}"
        if any(not node.op.is_function for node in network.nodes):
            return (
                f"method {self.name!r} evaluates points, and the draws of a randomised network have many values there"
            )
        return bounds_refusal(network, self.name)

    def decide(self, batch: Batch, region: BallRegion, budget: Budget) -> list[Answer]:
        return one_by_one(partial(self._decide_one, None), batch, region, budget)

    def go_on(self, batch: Batch, region: BallRegion, budget: Budget, paused: Paused) -> list[Answer]:
        """Return what `decide` does of a batch of one, going on with the boxes that are left."""
        return one_by_one(partial(self._decide_one, paused), batch, region, budget)

    def bracket(
        self, batch: Batch, epsilons: Sequence[float], answers: Sequence[Answer], budget: Budget
    ) -> list[Answer]:
        """Decide the requested radii that are open in rising order, then bisect."""
        return bisect_brackets(self, batch, [0.0, *epsilons], answers, budget, self.refinements)

    def _decide_one(self, paused: Paused | None, one: Batch, region: BallRegion, budget: Budget) -> Answer:
        attack, ball = Tried(one, region, self.name), region.on_processor()
        search = None if paused is None else paused.take(self.name, BoxSearch)
        search = search or BoxSearch(Conjunctions.of_batch(one), ball.enclosure(), one.seeds[0])
        found = search.run(attack, budget, self.boxes)
        if found.proved:
            return Answer.proved(float(ball.radius[0]), self.name, self.strength)
        if paused is not None and not found.falsified:
            paused.keep(self.name, search)
        return attack.shown.merge(Answer.open(None if found.falsified else found.reason, telling=found.telling))
