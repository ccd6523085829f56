"""Linear and integer programs: with known answers, infeasible, and one that takes minutes."""

import math

import numpy as np
from scipy.sparse import csr_array

from encoders.linear_model import Direction, LinearModel


def model(cost, matrix, row_lower, row_upper, col_lower, col_upper, integer=()) -> LinearModel:
    arrays = [np.asarray(a, dtype=np.float64) for a in (row_lower, row_upper, col_lower, col_upper)]
    return LinearModel(
        np.asarray(cost, dtype=np.float64), csr_array(np.asarray(matrix, dtype=np.float64)), *arrays,
        Direction.EXACT, np.asarray(integer, dtype=bool),
    )  # fmt: skip


# min -3x - 2y, x + y <= 4, x + 3y <= 7, x <= 3: x = 3, y = 1, value -11, multipliers -2, 0.
CORNER = model([-3, -2], [[1, 1], [1, 3]], [-math.inf, -math.inf], [4, 7], [0, 0], [3, 10])
INFEASIBLE = model([1, 1], [[1, 1], [1, 1]], [3, -math.inf], [math.inf, 2], [0, 0], [9, 9])


def hard_model(size: int = 60) -> LinearModel:
    """Return an integer program that takes minutes: many tight knapsacks with random weights."""
    random = np.random.default_rng(0)
    weights = np.round(100 * random.random((size, 2 * size)))
    return model(
        -random.random(2 * size), weights, np.full(size, -math.inf), weights.sum(axis=1) / 3, np.zeros(2 * size),
        np.ones(2 * size), np.ones(2 * size, dtype=bool),
    )  # fmt: skip
