"""Which half-spaces of a region say nothing new: the reason why few rows of the program are ever needed.

A condition is redundant if the others and the domain imply it: its least value over them, an LP, is not negative. In
the toy of Bastani et al. (2016), Figure 1, that is so for 6 of the 8 half-spaces.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.sparse import csr_array

from encoders.linear_model import Direction, LinearModel
from verifier.restriction.question import Question
from verifier.solvers import Solver, Termination

# The least value that counts as not negative, in units of its row.
TOLERANCE = 1e-9


def redundant_conditions(question: Question, solver: Solver) -> np.ndarray:
    """Return a mask over the conditions of the question's region: those that the others and the domain imply.

    Each is tested against all others, so of two equal ones both count. Label rows are left out. For small networks: one
    LP for each condition. A condition whose LP the solver does not finish counts as not redundant.
    """
    numbers = np.arange(question.label_rows, len(question.at_centre))
    rows, values = question.rows(numbers), question.at_centre[numbers]
    mask = np.zeros(len(numbers), dtype=bool)
    for i in range(len(numbers)):
        others = np.arange(len(numbers)) != i
        model = LinearModel(
            rows[i], csr_array(rows[others]), -values[others], np.full(int(others.sum()), math.inf), question.lower,
            question.upper, Direction.EXACT,
        )  # fmt: skip
        solution = solver.solve(model)
        if solution.termination is Termination.OPTIMAL:
            mask[i] = solution.bound + values[i] >= -TOLERANCE * question.units[numbers[i]]
    return mask
