"""A solver that says what a function says, and methods that ask it."""

import math

from verifier.methods.milp import MilpMethod
from verifier.solvers import Solver


class FakeSolver(Solver):
    """Answers what a function of (model, settings) says, and remembers the settings."""

    integers = True
    name = "fake"

    def __init__(self, answer) -> None:
        self.answer, self.asked = answer, []

    def missing(self):
        return None

    def solve(self, model, seconds=math.inf, settings=None):
        self.asked.append(settings)
        return self.answer(model, settings)


def with_solvers(*solvers: Solver, **options) -> MilpMethod:
    method = MilpMethod(**options)
    method._solvers = solvers
    return method
