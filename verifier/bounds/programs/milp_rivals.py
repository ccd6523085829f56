"""Several rivals in one program: a binary for each says whose row of the output is small (Tjeng et al. 2019).

With rows r_k of the output y, r_k y <= u_k proved on the ball, one continuous m in [least, most] and binaries s_k,

    r_k y <= m + M_k (1 - s_k),   sum s_k = 1,   M_k >= u_k - least

hold for some s exactly where some r_k y <= m. The M_k are rounded up, which cuts nothing off. With "at least one" in
place of "one", which says the same, HiGHS took 1.3 to 2 times as long.
"""

from __future__ import annotations

import numpy as np
import scipy

from encoders.formulations.relax import RelaxedNetwork
from encoders.linear_model import LinearModel


def some_below(
    relaxed: RelaxedNetwork, rows: np.ndarray, greatest: np.ndarray, least: float, most: float
) -> LinearModel:
    """Return the program that minimises the least of rows `(count, outputs)` of the output where it is at most `most`.

    greatest: proved upper bounds `(count,)` of the rows, finite; least: one lower bound of all, finite. The new columns
    are m, then the binaries. Of the direction of the network's rows.
    """
    model = relaxed.model(np.zeros(rows.shape[1]))
    count = len(rows)
    outputs = relaxed.columns[relaxed.network.output.name]
    entries = (rows.reshape(-1), (np.repeat(np.arange(count), rows.shape[1]), np.tile(outputs, count)))
    picked = scipy.sparse.csr_array(entries, shape=(count, model.columns))
    least = min(least, most)
    # The difference is rounded to nearest: the next float is above the exact one.
    big = np.nextafter(np.maximum(greatest - least, 0.0), np.inf)
    minus, ones = scipy.sparse.csr_array(np.full((count, 1), -1.0)), scipy.sparse.csr_array(np.ones((1, count)))
    A = scipy.sparse.vstack([
        scipy.sparse.hstack([model.A, scipy.sparse.csr_array((model.rows, 1 + count))]),
        scipy.sparse.hstack([picked, minus, scipy.sparse.diags_array(big)]),
        scipy.sparse.hstack([scipy.sparse.csr_array((1, model.columns + 1)), ones]),
    ], format="csr")  # fmt: skip
    cost = np.zeros(model.columns + 1 + count)
    cost[model.columns] = 1.0
    return LinearModel(
        cost, scipy.sparse.csr_array(A), np.concatenate([model.row_lower, np.full(count, -np.inf), [1.0]]),
        np.concatenate([model.row_upper, big, [1.0]]), np.concatenate([model.col_lower, [least], np.zeros(count)]),
        np.concatenate([model.col_upper, [most], np.ones(count)]), model.direction,
        np.concatenate([model.integer, [False], np.ones(count, dtype=bool)]),
    )  # fmt: skip
