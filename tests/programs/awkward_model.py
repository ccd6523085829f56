"""Linear models with every kind of row end, and coefficients that need all 17 digits."""

import math

import numpy as np
from scipy.sparse import csr_array

from encoders.linear_model import Direction, LinearModel


def awkward_model(seed: int = 0, integer: bool = False) -> LinearModel:
    """Return a model with every kind of row end, and coefficients that need all 17 digits."""
    random = np.random.default_rng(seed)
    matrix = random.normal(size=(6, 4)) * 10.0 ** random.integers(-14, 6, size=(6, 4))
    matrix[0, 1] = 0.1 + 1e-17 + 2**-54
    ends = random.normal(size=6)
    lower = np.array([ends[0], -math.inf, ends[2], ends[3], -math.inf, ends[5]])
    upper = np.array([math.inf, ends[1], ends[2], ends[3] + 1, math.inf, ends[5] + 1 / 3])
    column_lower = random.normal(size=4)
    mask = np.array([False, True, True, False]) if integer else np.zeros(4, dtype=bool)
    return LinearModel(
        random.normal(size=4) / 3, csr_array(matrix), lower, upper, column_lower, column_lower + 1 / 7,
        Direction.EXACT, mask,
    )  # fmt: skip
